// SPDX-License-Identifier: Apache-2.0
#include "test/netns/dns_fixture.h"

#include <sys/socket.h>

#include <algorithm>
#include <ostream>
#include <sstream>

namespace weft::test {

using nlohmann::json;

namespace {

constexpr milliseconds kStartTime{10'000};

PodOptions opted_in(const char* name) {
  PodOptions options;
  options.service_account = name;
  options.annotations = {{"ambient.istio.io/dns-capture", "true"}};
  return options;
}

std::string with_single_blanks(const std::string& line) {
  std::istringstream words(line);
  std::string out;
  for (std::string word; words >> word;) out += (out.empty() ? "" : " ") + word;
  return out;
}

/// A socket that takes what comes and never says anything.
Fd silent_socket(const Netns& netns, const char* address, int type) {
  return run_in(netns, [&] {
    const Endpoint at{IpAddress::parse(address).value(), 53};
    const auto name = at.to_sockaddr();
    Fd fd(::socket(at.address.is_v4() ? AF_INET : AF_INET6, type | SOCK_CLOEXEC, 0));
    if (!fd || ::bind(fd.get(), name.get(), name.length) < 0) throw TestError("bind " + at.to_string());
    if (type == SOCK_STREAM && ::listen(fd.get(), 64) < 0) throw TestError("listen " + at.to_string());
    return fd;
  });
}

}  // namespace

std::vector<std::string> Dug::data() const {
  std::vector<std::string> out;
  for (const auto& record : records) {
    std::istringstream words(record);
    std::string word;
    for (int i = 0; i < 4; ++i) words >> word;
    std::getline(words >> std::ws, word);
    out.push_back(word);
  }
  std::ranges::sort(out);
  return out;
}

void PrintTo(const Dug& dug, std::ostream* out) {
  *out << "dig: status " << dug.status << ", " << dug.rcode << ", flags " << dug.flags << ", " << dug.bytes
       << " bytes, " << dug.edns;
  for (const auto& record : dug.records) *out << "\n  " << record;
}

Dnsmasq::Dnsmasq(const Netns& netns, const std::vector<IpAddress>& addresses, const std::vector<std::string>& records) {
  std::vector<std::string> command{"dnsmasq",          "--keep-in-foreground",  "--no-resolv", "--no-hosts",
                                   "--no-poll",        "--conf-file=/dev/null", "--user=root", "--pid-file=",
                                   "--log-facility=-", "--edns-packet-max=1232"};
  if (!addresses.empty()) command.insert(command.end(), {"--bind-interfaces", "--except-interface=lo"});
  for (const auto& address : addresses) command.push_back("--listen-address=" + address.to_string());
  command.insert(command.end(), records.begin(), records.end());
  process_ = std::make_unique<Process>(Process::start(command, {.netns = &netns, .environment = {}, .input = {}}));
  if (!process_->wait_for_output("started", kStartTime)) throw TestError("dnsmasq does not start: " + process_->err());
}

std::unique_ptr<Mesh> DnsTest::mesh_;
std::vector<std::unique_ptr<Dnsmasq>> DnsTest::resolvers_;
std::vector<Fd> DnsTest::silent_;
Pod *DnsTest::client_, *DnsTest::other_, *DnsTest::plain_, *DnsTest::web1_, *DnsTest::web2_;
std::map<std::string, DnsTest::Addresses> DnsTest::vips_;

void DnsTest::SetUpTestSuite() {
  if (!is_root()) return;
  auto made = std::make_unique<Mesh>();
  const Netns& node1 = made->node(1).netns();
  for (const char* address : {kLinkLocal, kSilent4, kNobody})
    node1.ip(std::string("addr add ") + address + "/32 dev lo");
  node1.ip(std::string("addr add ") + kSilent6 + "/128 dev lo nodad");
  client_ = &made->add_pod(1, "shop", "client", opted_in("client"));
  other_ = &made->add_pod(1, "bank", "other", opted_in("other"));
  plain_ = add_serving_pod(*made, 1, "shop", "plain", true);
  web1_ = add_serving_pod(*made, 1, "shop", "web1", true);
  web2_ = add_serving_pod(*made, 2, "shop", "web2", true);

  const auto service = [&](const char* namespace_name, const char* name, const json& more = json::object()) {
    const auto [v4, v6] = made->add_service(namespace_name, name, 80, Pod::kPort, {web1_, web2_}, more);
    vips_[name] = {v4, v6};
  };
  service("shop", "web");
  service("bank", "web-of-bank", {{"hostname", "web.bank.svc.cluster.local"}});
  service("bank", "hidden", {{"visibility", "Namespace"}});
  service("shop", "pods", {{"vips", json::array()}});
  service("shop", "wild", {{"hostname", "*.wild.example.com"}});
  service("shop", "api", {{"hostname", "api.example.com"}});
  service("shop", "auto", {{"hostname", "auto.example.com"}, {"vips", {"/240.240.0.7", "/2001:2::7"}}});
  service("shop", "mine", {{"hostname", "both.example.com"}});
  service("bank", "theirs", {{"hostname", "both.example.com"}});
  service("shop", "without", {{"hostname", "without.example.com"}, {"vips", json::array()}});
  service("shop", "four", {{"hostname", "four.example.com"}, {"vips", {"/192.0.2.44"}}});
  service("shop", "six", {{"hostname", "six.example.com"}, {"vips", {"/2001:db8::66"}}});
  service("shop", "many", {{"vips", json::array()}});
  std::vector<json> workloads{{{"uid", "weftt//Pod/shop/sick"},
                               {"name", "sick"},
                               {"namespace", "shop"},
                               {"workloadIps", {"192.0.2.66"}},
                               {"status", "Unhealthy"},
                               {"services", {{"shop/pods.shop.svc.cluster.local", {{"80", 80}}}}}}};
  for (int i = 1; i <= 60; ++i) {
    workloads.push_back({{"uid", "weftt//Pod/shop/many-" + std::to_string(i)},
                         {"name", "many-" + std::to_string(i)},
                         {"namespace", "shop"},
                         {"workloadIps", {"198.18.7." + std::to_string(i), "2001:db8:7::" + std::to_string(i)}},
                         {"services", {{"shop/many.shop.svc.cluster.local", {{"80", 80}}}}}});
  }
  made->set_workloads(workloads);

  std::vector<std::string> records{"--local=/test/", "--local=/local/", "--local=/com/",
                                   // What the mesh knows better.
                                   "--host-record=web.shop.svc.cluster.local,198.51.100.9,2001:db8:9::9",
                                   "--host-record=without.example.com,198.51.100.10",
                                   "--host-record=real.ext.test,198.51.100.80,2001:db8::80",
                                   "--txt-record=web.shop.svc.cluster.local,of the resolver",
                                   "--srv-host=_http._tcp.web.shop.svc.cluster.local,web.shop.svc.cluster.local,80"};
  for (int i = 0; i < 40; ++i)
    records.push_back("--txt-record=big.ext.test," + std::string(200, static_cast<char>('a' + i % 26)));
  const Node& node2 = made->node(2);
  resolvers_.push_back(
      std::make_unique<Dnsmasq>(node2.netns(), std::vector{node2.address_v4(), node2.address_v6()}, records));
  resolvers_.push_back(std::make_unique<Dnsmasq>(
      node1, std::vector{at(kLinkLocal)},
      std::vector<std::string>{"--local=/test/", "--host-record=near.ext.test,198.51.100.20"}));
  for (const char* address : {kSilent4, kSilent6}) {
    silent_.push_back(silent_socket(node1, address, SOCK_DGRAM));
    silent_.push_back(silent_socket(node1, address, SOCK_STREAM));
  }
  mesh_ = std::move(made);
}

void DnsTest::TearDownTestSuite() {
  silent_.clear();
  resolvers_.clear();
  vips_.clear();
  mesh_.reset();
}

void DnsTest::SetUp() {
  WEFT_NEEDS_ROOT();
  ASSERT_NE(mesh_, nullptr) << "the mesh could not be made";
  logs_.mark(*mesh_);
}

void DnsTest::TearDown() {
  if (HasFailure() && mesh_) logs_.tell(*mesh_);
}

Dug DnsTest::dig(const Pod& pod, const IpAddress& server, const std::string& name, const std::string& type,
                 const std::vector<std::string>& more) {
  std::vector<std::string> command{"dig",     "-r",     "@" + server.to_string(),
                                   "-q",      name,     "-t",
                                   type,      "+noall", "+comments",
                                   "+answer", "+stats", "+time=4",
                                   "+tries=1"};
  command.insert(command.end(), more.begin(), more.end());
  const Finished finished = run(command, {.netns = &pod.netns(), .environment = {}, .input = {}});
  Dug dug;
  dug.status = finished.status;
  std::istringstream lines(finished.out);
  for (std::string line; std::getline(lines, line);) {
    const auto behind = [&](const std::string& mark, const std::string& end) {
      const auto begin = line.find(mark);
      if (begin == std::string::npos) return std::string();
      const auto from = begin + mark.size();
      return line.substr(from, line.find(end, from) - from);
    };
    if (line.empty()) continue;
    if (line[0] != ';') {
      dug.records.push_back(with_single_blanks(line));
    }
    if (auto rcode = behind("status: ", ","); !rcode.empty()) dug.rcode = rcode;
    if (auto flags = behind(";; flags: ", ";"); !flags.empty() && line.starts_with(";; flags")) dug.flags = flags;
    if (line.starts_with("; EDNS:")) dug.edns = line;
    if (auto bytes = behind("MSG SIZE  rcvd: ", "\n"); !bytes.empty()) dug.bytes = std::stoul(bytes);
  }
  return dug;
}

double DnsTest::counted(const std::string& name, const std::vector<std::string>& labels) {
  return metric(node1().metrics(), name, labels);
}

std::vector<std::string> DnsTest::texts(const Addresses& addresses, bool v4) {
  std::vector<std::string> out;
  for (const auto& address : addresses) {
    if (address.is_v4() == v4) out.push_back(address.to_string());
  }
  std::ranges::sort(out);
  return out;
}

}  // namespace weft::test
