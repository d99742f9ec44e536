// SPDX-License-Identifier: Apache-2.0
// The whole chain in the hands of a runtime: {weft-chain, cnitool} x {ptp, bridge, fakecalico, ptp+bandwidth} x
// versions of the list x {STATUS, ADD, CHECK, DEL, DEL again, GC}. Debian's reference plugins speak versions up
// to 1.0.0; those of build/tools (scripts/test builds them) all of them.
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <ostream>

#include "test/conformance/fixture.h"

namespace weft::test {
namespace {

using testing::HasSubstr;

enum class Runtime : std::uint8_t { kWeftChain, kCnitool };
struct Cell {
  Runtime runtime;
  std::string chain, version;
};
std::string name_of(const Cell& cell) {
  std::string name = cell.runtime == Runtime::kCnitool ? "cnitool_" : "weftchain_";
  name += cell.chain + "_" + cell.version;
  std::ranges::replace(name, '.', '_');
  return name;
}
void PrintTo(const Cell& cell, std::ostream* out) { *out << name_of(cell); }

std::vector<Cell> all_cells() {
  std::vector<Cell> cells;
  for (const auto runtime : {Runtime::kWeftChain, Runtime::kCnitool}) {
    for (const char* chain : {"ptp", "bridge", "fakecalico", "ptp_bandwidth"}) {
      for (const char* version : {"0.3.1", "0.4.0", "1.0.0", "1.1.0"}) cells.push_back({runtime, chain, version});
    }
  }
  return cells;
}

constexpr const char* kNetwork = "matrix";

class MatrixTest : public PodTest, public testing::WithParamInterface<Cell> {
 protected:
  void SetUp() override {
    WEFT_OWN();
    if (const std::string missing = missing_program(); !missing.empty()) {
      GTEST_SKIP() << missing << " is not built: scripts/test builds it where Go 1.21 or later is installed";
    }
    PodTest::SetUp();
    if (IsSkipped()) return;
    host_->ip(std::string("link del ") + kHostSide);  // the chain makes the interface
    for (const Netns* netns : {host_.get(), pod_.get()}) netns->sysctl("net/ipv6/conf/default/accept_dad", "0");
    load_programs();
    conflist_ = dir_->write("conf/matrix.conflist", cni::to_text(list()));
    std::filesystem::create_directories(dir_->path() + "/var/cni");
    before_ = traces();
  }

  [[nodiscard]] static bool by_cnitool() { return GetParam().runtime == Runtime::kCnitool; }
  [[nodiscard]] static const std::string& chain_name() { return GetParam().chain; }
  [[nodiscard]] static const std::string& version() { return GetParam().version; }
  [[nodiscard]] static bool has_check() { return version() >= "0.4.0"; }
  [[nodiscard]] static bool has_gc_and_status() { return version() >= "1.1.0"; }

  /// Where the reference plugins are.
  [[nodiscard]] static std::string plugins() {
    return by_cnitool() || has_gc_and_status() ? WEFT_GO_TOOLS : "/usr/lib/cni";
  }
  [[nodiscard]] static std::string missing_program() {
    std::vector<std::string> programs;
    for (const char* name : {"ptp", "bridge", "host-local", "bandwidth"}) programs.push_back(plugins() + "/" + name);
    if (by_cnitool()) programs.push_back(WEFT_GO_TOOLS "/cnitool");
    for (const auto& program : programs) {
      if (::access(program.c_str(), X_OK) != 0) return program;
    }
    return {};
  }

  [[nodiscard]] Json list() const {
    const Json ipam = {{"type", "host-local"},
                       {"dataDir", dir_->path() + "/ipam"},
                       {"ranges", {{{{"subnet", "10.78.0.0/24"}}}, {{{"subnet", "fd78::/64"}}}}},
                       {"routes", {{{"dst", "0.0.0.0/0"}}, {{"dst", "::/0"}}}}};
    Json plugins = Json::array();
    if (chain_name() == "bridge") {
      plugins.push_back({{"type", "bridge"}, {"bridge", "weftbr0"}, {"isGateway", true}, {"ipam", ipam}});
    } else if (chain_name() == "fakecalico") {
      plugins.push_back({{"type", "weft-fakecalico"}, {"ipam", ipam}});
    } else {
      plugins.push_back({{"type", "ptp"}, {"ipam", ipam}});
    }
    if (chain_name() == "ptp_bandwidth") {
      plugins.push_back({{"type", "bandwidth"},
                         {"ingressRate", 1'000'000'000},
                         {"ingressBurst", 1'000'000'000},
                         {"egressRate", 1'000'000'000},
                         {"egressBurst", 1'000'000'000}});
    }
    Json own = conf(version());
    own.erase("cniVersion");
    own.erase("name");
    plugins.push_back(own);
    return {{"cniVersion", version()}, {"name", kNetwork}, {"plugins", plugins}};
  }

  /// One verb for the whole list, as the runtime does it.
  [[nodiscard]] Finished runtime(const std::string& verb) const {
    SpawnOptions options;
    options.netns = host_.get();
    const std::string own = std::filesystem::path(plugin_path()).parent_path();
    options.environment = {"CNI_PATH=" + own + ":" + WEFT_BUILD_BIN + ":" + plugins(), "CNI_IFNAME=eth0",
                           "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0",
                           "NETCONFPATH=" + dir_->path() + "/conf"};
    if (by_cnitool()) {
      // Its cache is in /var/lib/cni, which here is a folder of the test.
      return run({"unshare", "--mount", "sh", "-c", R"(mount --bind "$0" /var/lib && exec "$@")", dir_->path() + "/var",
                  WEFT_GO_TOOLS "/cnitool", verb, kNetwork, pod_->path()},
                 options);
    }
    std::vector<std::string> command{
        WEFT_BUILD_BIN "/weft-chain", "--cache", dir_->path() + "/cache", "--valid-none", verb, conflist_};
    if (verb != "gc" && verb != "status") command.insert(command.end(), {pod_->path(), kContainer, "eth0"});
    return run(command, options);
  }

  /// What a chain must take with it: the pod's links, rules and routes, the host's links and routes but a bridge, the
  /// addresses given, and what state() tells.
  [[nodiscard]] std::string traces() const {
    std::string text = state() + pod_->ip("-br link show");
    for (const Json& link : Json::parse(host_->ip("-j link show"))) {
      if (link["ifname"] != "weftbr0") text += "link " + cni::text_member(link, "ifname") + "\n";
    }
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(dir_->path() + "/ipam/" + kNetwork, ignored)) {
      const std::string name = entry.path().filename();
      if (name != "lock" && !name.starts_with("last_reserved_ip")) text += "address " + name + "\n";
    }
    return text;
  }
  /// How often the agent was asked this.
  [[nodiscard]] long asked(cni::Verb verb) const {
    const auto requests = agent_->requests();
    return std::ranges::count_if(requests, [&](const std::string& text) {
      const auto request = cni::parse_request(text);
      return request && request->verb == verb;
    });
  }

  void add() {
    const Finished added = runtime("add");
    ASSERT_EQ(added.status, 0) << added.out << added.err;
    const Json result = Json::parse(added.out, nullptr, false);
    ASSERT_TRUE(result.is_object()) << added.out;
    EXPECT_EQ(result["cniVersion"], version());
    EXPECT_EQ(result["ips"].size(), 2U) << added.out;
    EXPECT_EQ(programs_on(*pod_, "eth0"), 2);
    EXPECT_EQ(programs_on(*pod_, "lo"), 1);
    EXPECT_EQ(programs_on(*host_, host_side()), 2);
    const auto registered = agent_->registrations();
    ASSERT_EQ(registered.size(), 1U);
    EXPECT_EQ(registered.begin()->second, pod_->inode());
  }
  void expect_status() const {
    const Finished status = runtime("status");
    EXPECT_EQ(status.status, 0) << status.out << status.err;
    EXPECT_EQ(asked(cni::Verb::kStatus), has_gc_and_status() ? 1 : 0);
  }
  void expect_failed_add_is_taken_back() const {
    agent_->refuse_all(ErrorCode::kUnavailable, "starting");
    const Finished added = runtime("add");
    EXPECT_NE(added.status, 0);
    EXPECT_THAT(added.out + added.err, HasSubstr("starting"));
    // weft-chain takes it back by itself, as runtimes do; cnitool leaves that to its caller.
    const Finished removed = by_cnitool() ? runtime("del") : added;
    EXPECT_TRUE(!by_cnitool() || removed.ok()) << removed.out << removed.err;
    EXPECT_EQ(traces(), before_) << "after the DEL of an ADD that failed";
    agent_->set_handler({});
  }
  void expect_check() const {
    const std::string wired = traces();
    EXPECT_NE(wired, before_);
    const Finished checked = runtime("check");
    EXPECT_EQ(checked.ok(), has_check()) << checked.out << checked.err;
    EXPECT_THAT(checked.out + checked.err, HasSubstr(has_check() ? "" : "CHECK"));
    EXPECT_EQ(asked(cni::Verb::kCheck), has_check() ? 1 : 0);
    EXPECT_EQ(traces(), wired) << "CHECK changed something";

    pod_->ip("rule del pref 1");
    const Finished broken = runtime("check");
    EXPECT_FALSE(broken.ok());
    EXPECT_THAT(broken.out + broken.err,
                HasSubstr(has_check() ? "the IPv4 rule for the capture mark is missing" : "CHECK"));
  }
  void expect_del_twice() const {
    for (int time = 1; time <= 2; ++time) {
      const auto asked_before = asked(cni::Verb::kUnregister);
      const Finished removed = runtime("del");
      EXPECT_TRUE(removed.ok()) << removed.out << removed.err;
      EXPECT_EQ(removed.out, "");
      EXPECT_EQ(traces(), before_) << "after DEL number " << time;
      EXPECT_EQ(asked(cni::Verb::kUnregister), asked_before + 1);
    }
  }
  void expect_gc() const {
    const std::string wired = traces();
    const Finished collected = runtime("gc");
    EXPECT_TRUE(collected.ok()) << collected.out << collected.err;
    if (by_cnitool()) {
      // It lists nothing as valid, and libcni runs DEL for whatever its cache holds, at every version.
      EXPECT_EQ(traces(), before_) << "after GC";
      return;
    }
    if (has_gc_and_status()) {
      EXPECT_TRUE(agent_->registrations().empty());
      EXPECT_TRUE(attachments().empty());
      EXPECT_EQ(programs_on(*pod_, "eth0") + programs_on(*pod_, "lo"), 0);
    } else {
      EXPECT_EQ(traces(), wired) << "lists of version " << version() << " have no GC";
    }
    EXPECT_TRUE(runtime("del").ok());
    EXPECT_EQ(traces(), before_) << "after GC and DEL";
  }
  [[nodiscard]] std::string host_side() const {
    const Json inside = Json::parse(pod_->ip("-j link show dev eth0")).at(0);
    for (const Json& link : Json::parse(host_->ip("-j link show"))) {
      if (link["ifindex"] == inside["link_index"]) return cni::text_member(link, "ifname");
    }
    return {};
  }

  std::string conflist_, before_;
};

TEST_P(MatrixTest, EveryVerbDoesWhatItsVersionSays) {
  expect_status();
  expect_failed_add_is_taken_back();
  add();
  if (HasFatalFailure()) return;
  expect_check();
  expect_del_twice();
  add();
  if (HasFatalFailure()) return;
  expect_gc();
}

INSTANTIATE_TEST_SUITE_P(Conformance, MatrixTest, testing::ValuesIn(all_cells()),
                         [](const auto& cell) { return name_of(cell.param); });

}  // namespace
}  // namespace weft::test
