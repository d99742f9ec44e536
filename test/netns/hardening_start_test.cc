// SPDX-License-Identifier: Apache-2.0
/// Starts of the agent with fewer rights, and with files that are open to others.

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "test/netns/hardening_rights.h"
#include "test/netns/mesh_fixture.h"

namespace weft::test {
namespace {

namespace fs = std::filesystem;
namespace hardening = agent::hardening;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr milliseconds kSoon{10'000};
constexpr std::uint16_t kHighPort = 40'000;

/// An agent in a namespace and folders of its own.
class HardeningStart : public ::testing::Test {
 protected:
  void SetUp() override {
    WEFT_NEEDS_ROOT();
    folder_ = std::make_unique<ScratchDir>();
    node_ = std::make_unique<Netns>("start");
    bpf_ = folder_->mount_bpffs();
    folder_->write("mesh.yaml", "workloads: []\n");
    must_run({program("weftctl"), "ca", "init", path("ca")});
  }
  [[nodiscard]] std::string path(const std::string& name) const { return folder_->path() + "/" + name; }

  [[nodiscard]] Process start(std::vector<std::string> launcher = {}, const std::vector<std::string>& more = {}) const {
    const std::vector<std::string> agent{
        program("weft-agent"), "--local-config", path("mesh.yaml"), "--node",    "start",    "--socket", path(socket_),
        "--bpf-root",          bpf_ + "/weft",   "--run-dir",       path("run"), "--ca-dir", path("ca")};
    launcher.insert(launcher.end(), agent.begin(), agent.end());
    launcher.insert(launcher.end(), more.begin(), more.end());
    return Process::start(launcher, {.netns = node_.get(), .environment = {}, .input = {}});
  }
  /// What it says where it must not start.
  [[nodiscard]] std::string refusal(const std::vector<std::string>& launcher = {}) const {
    const Finished ended = start(launcher).finish(kSoon);
    EXPECT_EQ(ended.status, 1);
    EXPECT_FALSE(fs::exists(bpf_ + "/weft/maps/settings")) << "it has begun";
    return ended.err;
  }
  /// Starts it and ends it well; gives its log.
  [[nodiscard]] std::string run_once(const std::vector<std::string>& launcher = {},
                                     const std::vector<std::string>& more = {}) const {
    Process agent = start(launcher, more);
    EXPECT_TRUE(agent.wait_for_output("weft-agent runs", milliseconds(20'000))) << agent.err();
    agent.signal(SIGTERM);
    const Finished ended = agent.finish(milliseconds(20'000));
    EXPECT_TRUE(ended.ok()) << ::testing::PrintToString(ended);
    return ended.err;
  }

  std::unique_ptr<ScratchDir> folder_;
  std::unique_ptr<Netns> node_;
  std::string bpf_;
  std::string socket_ = "run/agent.sock";
};

TEST_F(HardeningStart, WithoutACapabilityItNamesItAndItsPurpose) {
  for (const auto& missing : hardening::capabilities()) {
    // What only old kernels need is asked for there alone.
    if (missing.use == hardening::Use::kStartMemlock && !maps_are_locked_memory()) continue;
    auto launcher = with_only([&](const auto& capability) { return capability.number != missing.number; });
    launcher.insert(launcher.begin(), {"prlimit", "--memlock=65536:65536"});
    EXPECT_THAT(refusal(launcher),
                AllOf(HasSubstr(std::string(missing.name) + " is missing, it is needed to " + missing.purpose),
                      HasSubstr("securityContext.capabilities: " + std::string(missing.name).substr(4) + ")")));
  }
}

TEST_F(HardeningStart, WithAContainersUsualCapabilitiesItNamesAllThatAreMissing) {
  const std::string usual =
      "-all,+chown,+dac_override,+fsetid,+fowner,+mknod,+net_raw,+setgid,+setuid,+setfcap,+setpcap,+net_bind_service,"
      "+sys_chroot,+kill,+audit_write";
  EXPECT_THAT(refusal({"setpriv", "--inh-caps", "-all", "--bounding-set", usual}),
              AllOf(HasSubstr("CAP_SYS_ADMIN is missing"), HasSubstr("CAP_NET_ADMIN is missing"),
                    HasSubstr("CAP_IPC_LOCK is missing")));
}

TEST_F(HardeningStart, WithTheListAloneItStarts) {
  const std::string log = run_once(with_only(every));
  EXPECT_THAT(
      log, HasSubstr("rights dropped capabilities=CAP_SYS_ADMIN,CAP_NET_ADMIN,CAP_NET_BIND_SERVICE seccomp=enforce"));
}

TEST_F(HardeningStart, TheFilterCanBeTakenOff) {
  for (const std::string mode : {"log", "off"}) {
    Process agent = start({}, {"--seccomp", mode});
    ASSERT_TRUE(agent.wait_for_output("weft-agent runs", milliseconds(20'000))) << agent.err();
    const std::string status = "/proc/" + std::to_string(agent.pid()) + "/status";
    EXPECT_EQ(status_of(status, "Seccomp"), mode == "log" ? "2" : "0");
    EXPECT_EQ(status_of(status, "NoNewPrivs"), "1");
    EXPECT_EQ(status_of(status, "CapEff"), hex_mask(kept));
    EXPECT_THAT(agent.err(), HasSubstr("no system call is refused seccomp=" + mode));
  }
}

TEST_F(HardeningStart, FoldersThatOthersMayWriteAreRefused) {
  fs::create_directory(path("run"));
  fs::permissions(path("run"), fs::perms(0777));
  EXPECT_THAT(refusal(),
              HasSubstr("use the folder " + path("run") + ": its group or others may write to it: mode 0777"));
  fs::permissions(path("run"), fs::perms(0700));
  ASSERT_EQ(::chown(path("run").c_str(), 65534, 65534), 0);
  EXPECT_THAT(refusal(), HasSubstr("use the folder " + path("run") + ": it belongs to uid 65534"));
}

TEST_F(HardeningStart, ASocketThatOthersCouldReplaceIsRefused) {
  fs::create_directory(path("open"));
  fs::permissions(path("open"), fs::perms(0777));
  socket_ = "open/agent.sock";
  EXPECT_THAT(refusal(),
              HasSubstr("serve registrations on " + path(socket_) + ": of its folder, its group or others may"));
}

TEST_F(HardeningStart, FoldersThatOthersMayReadAreClosed) {
  for (const std::string& folder : {path("run"), bpf_ + "/weft"}) {
    fs::create_directory(folder);
    fs::permissions(folder, fs::perms(0755));
  }
  const std::string log = run_once();
  for (const std::string& folder : {path("run"), bpf_ + "/weft"}) {
    EXPECT_THAT(log, HasSubstr("folder was open to others, closed path=" + folder + " mode=0755"));
    EXPECT_EQ(fs::status(folder).permissions(), fs::perms(0700));
  }
}

TEST_F(HardeningStart, AKeyThatOthersMayReadIsRefused) {
  fs::permissions(path("ca/root-key.pem"), fs::perms(0644));
  EXPECT_THAT(refusal(), HasSubstr("read the key " + path("ca/root-key.pem") + ": its group or others may use it"));
}

TEST_F(HardeningStart, AConfigurationThatOthersMayWriteIsComplainedOf) {
  fs::permissions(path("mesh.yaml"), fs::perms(0646));
  EXPECT_THAT(run_once(), HasSubstr("others could change the mesh's policies path=" + path("mesh.yaml")));
}

/// Two nodes whose agents had the capabilities of the list, and not one more, from their start.
TEST(HardeningMesh, TheListIsEnoughForAllThatAnAgentDoes) {
  WEFT_NEEDS_ROOT();
  Mesh mesh({.agent_arguments = {"--reconcile-interval-ms", "300"}, .agent_launcher = with_only(every)});
  PodOptions raised;
  // The ports from which applications are called are the administrator's alone in this pod.
  raised.sysctls = {{"net/ipv4/ip_unprivileged_port_start", "32768"}};
  raised.service_account = "high";
  Pod* client = add_serving_pod(mesh, 1, "shop", "client", true);
  Pod* web = add_serving_pod(mesh, 2, "shop", "web", true);
  Pod* outside = add_serving_pod(mesh, 2, "legacy", "outside", false);
  Pod& high = mesh.add_pod(2, "shop", "high", raised);
  high.serve(kHighPort);
  for (const bool v6 : {false, true}) {
    const auto from = v6 ? client->address_v6() : client->address_v4();
    EXPECT_THAT(client->get(v6 ? web->v6() : web->v4()), IsAnswer("web", from));
    EXPECT_THAT(client->get(v6 ? high.v6(kHighPort) : high.v4(kHighPort)), IsAnswer("high", from));
  }
  Process live = outside->hold(web->v4());
  Process held = client->hold(web->v4());
  mesh.set_policy(deny_policy("shop", "nobody", plaintext()));
  EXPECT_TRUE(live.wait_for_output("ended how=reset", kSoon)) << live.out();
  EXPECT_TRUE(held.running());
  mesh.remove_policy("shop", "nobody");

  // What another agent left is taken up, and what is missing is put back.
  mesh.node(2).kill_agent();
  web->netns().ip("rule del pref 1");
  mesh.node(2).start_agent();
  EXPECT_TRUE(
      eventually(kSoon, [&] { return mesh.node(2).log().find("pod mended pod=shop/web") != std::string::npos; }));
  EXPECT_TRUE(eventually(kSoon, [&] { return client->get(web->v4()).ok(); }));
  mesh.remove_pod(high);
  mesh.node(1).stop_agent();
  mesh.node(2).stop_agent();
}

}  // namespace
}  // namespace weft::test
