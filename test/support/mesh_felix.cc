// SPDX-License-Identifier: Apache-2.0
#include "test/support/mesh_felix.h"

#include <cstdlib>
#include <sstream>

namespace weft::test {
namespace {

// Marks as Felix takes them from its mask 0xffff0000: from a pod, and accepted.
constexpr const char* kRawRules = R"(*raw
:cali-PREROUTING - [0:0]
-A PREROUTING -j cali-PREROUTING
-A cali-PREROUTING -j MARK --set-xmark 0x0/0xf0000
-A cali-PREROUTING -i cali+ -j MARK --set-xmark 0x40000/0x40000
-A cali-PREROUTING -m mark --mark 0x40000/0x40000 -m rpfilter --validmark --invert -j DROP
COMMIT
)";
constexpr const char* kFilterRules = R"(*filter
:cali-INPUT - [0:0]
:cali-FORWARD - [0:0]
:cali-wl-to-host - [0:0]
:cali-from-wl-dispatch - [0:0]
:cali-to-wl-dispatch - [0:0]
-A INPUT -j cali-INPUT
-A FORWARD -j cali-FORWARD
-A cali-INPUT -i cali+ -g cali-wl-to-host
-A cali-FORWARD -j MARK --set-xmark 0x0/0xe0000
-A cali-FORWARD -i cali+ -j cali-from-wl-dispatch
-A cali-FORWARD -o cali+ -j cali-to-wl-dispatch
-A cali-FORWARD -m mark --mark 0x10000/0x10000 -j ACCEPT
-A cali-from-wl-dispatch -m comment --comment "Unknown interface" -j DROP
-A cali-to-wl-dispatch -m comment --comment "Unknown interface" -j DROP
)";

std::string host_rules(bool v6, FakeFelix::HostAction action) {
  std::string rules;
  if (v6) {
    // Without them no pod finds its gateway.
    for (const char* type : {"130", "131", "132", "133", "135", "136"}) {
      rules += std::string("-A cali-wl-to-host -p ipv6-icmp -m icmp6 --icmpv6-type ") + type + " -j ACCEPT\n";
    }
  }
  return rules + "-A cali-wl-to-host -j cali-from-wl-dispatch\n-A cali-wl-to-host -j " +
         (action == FakeFelix::HostAction::kDrop ? "DROP" : "ACCEPT") + "\nCOMMIT\n";
}

/// The head of each chain of an endpoint: what is known passes, what conntrack cannot place does not.
std::string conntrack_rules(const std::string& chain) {
  return "-A " + chain + " -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n" + "-A " + chain +
         " -m conntrack --ctstate INVALID -j DROP\n" + "-A " + chain + " -j MARK --set-xmark 0x0/0x10000\n";
}

std::string filter(const std::string& rules) { return "*filter\n" + rules + "COMMIT\n"; }

}  // namespace

FakeFelix::FakeFelix(const Netns& node, HostAction pods_to_node) : node_(&node) {
  for (const char* which : {"all", "default"}) node.sysctl("net/ipv4/conf/" + std::string(which) + "/rp_filter", "1");
  for (const char* family : {"0.0.0.0", "::"}) {
    const auto address = *IpAddress::parse(family);
    load(kRawRules + std::string(kFilterRules) + host_rules(address.is_v6(), pods_to_node), address);
  }
}

void FakeFelix::add_endpoint(const std::string& interface) const {
  const std::string from = "cali-fw-" + interface;
  const std::string to = "cali-tw-" + interface;
  const std::string policy = "cali-pi-" + interface;
  load(filter(":" + from + " - [0:0]\n:" + to + " - [0:0]\n:" + policy + " - [0:0]\n" + conntrack_rules(from) + "-A " +
              from + " -p udp -m udp --dport 4789 -j DROP\n-A " + from + " -p ipencap -j DROP\n-A " + from +
              " -j MARK --set-xmark 0x10000/0x10000\n" + conntrack_rules(to) + "-A " + to + " -j " + policy + "\n-A " +
              to + " -j MARK --set-xmark 0x10000/0x10000\n-I cali-from-wl-dispatch -i " + interface + " -g " + from +
              "\n-I cali-to-wl-dispatch -o " + interface + " -g " + to + "\n"));
}

void FakeFelix::remove_endpoint(const std::string& interface) const {
  const std::string from = "cali-fw-" + interface;
  const std::string to = "cali-tw-" + interface;
  const std::string policy = "cali-pi-" + interface;
  load(filter("-D cali-from-wl-dispatch -i " + interface + " -g " + from + "\n-D cali-to-wl-dispatch -o " + interface +
              " -g " + to + "\n-F " + from + "\n-F " + to + "\n-F " + policy + "\n-X " + from + "\n-X " + to + "\n-X " +
              policy + "\n"));
}

void FakeFelix::deny(const std::string& interface, const IpAddress& source) const {
  load(filter("-A cali-pi-" + interface + " -s " + source.to_string() + " -j DROP\n"), source);
}

void FakeFelix::clear_policy(const std::string& interface) const { load(filter("-F cali-pi-" + interface + "\n")); }

std::uint64_t FakeFelix::packets(const std::string& words) const {
  std::uint64_t sum = 0;
  bool found = false;
  for (const char* save : {"iptables-save", "ip6tables-save"}) {
    std::istringstream rules(must_run({save, "-c"}, {.netns = node_, .environment = {}, .input = {}}));
    for (std::string rule; std::getline(rules, rule);) {
      // [PACKETS:BYTES] -A CHAIN …
      if (rule.starts_with("[") && rule.find(words) != std::string::npos) {
        sum += std::strtoull(rule.c_str() + 1, nullptr, 10);
        found = true;
      }
    }
  }
  if (!found) throw TestError("no rule has the words " + words);
  return sum;
}

void FakeFelix::load(const std::string& rules, const IpAddress& family) const {
  if (!family.is_v6()) {
    must_run({"iptables-restore", "--noflush"}, {.netns = node_, .environment = {}, .input = rules});
  }
  if (!family.is_v4()) {
    must_run({"ip6tables-restore", "--noflush"}, {.netns = node_, .environment = {}, .input = rules});
  }
}

}  // namespace weft::test
