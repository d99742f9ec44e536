// SPDX-License-Identifier: Apache-2.0
/// What the agent takes from itself, seen from outside of it while it works.

#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <optional>
#include <thread>

#include "agent/hardening/syscalls.h"
#include "cni-plugin/registration.h"
#include "test/netns/hardening_rights.h"
#include "test/netns/key_traces.h"
#include "test/netns/mesh_fixture.h"

namespace weft::test {
namespace {

namespace fs = std::filesystem;
namespace hardening = agent::hardening;
using ::testing::HasSubstr;
using Hardening = MeshTest;

constexpr milliseconds kSoon{10'000};
constexpr unsigned kNobody = 65534;

TEST_F(Hardening, TheRunningAgentHasTheDocumentedRightsAndNoOther) {
  ASSERT_TRUE(client->get(db->v4()).ok());
  for (Node* node : {&node1(), &node2()}) {
    int threads = 0;
    for (const auto& task : fs::directory_iterator("/proc/" + std::to_string(node->agent().pid()) + "/task")) {
      const std::string status = task.path().string() + "/status";
      for (const char* set : {"CapPrm", "CapEff", "CapBnd"}) EXPECT_EQ(status_of(status, set), hex_mask(kept)) << set;
      for (const char* set : {"CapInh", "CapAmb"}) EXPECT_EQ(status_of(status, set), "0000000000000000") << set;
      EXPECT_EQ(status_of(status, "NoNewPrivs"), "1");
      EXPECT_EQ(status_of(status, "Seccomp"), "2");
      ++threads;
    }
    EXPECT_GT(threads, 10);
  }
  // The control: these are not what it was started with.
  EXPECT_NE(status_of("/proc/self/status", "CapEff"), hex_mask(kept));
  EXPECT_EQ(status_of("/proc/self/status", "Seccomp"), "0");
}

TEST_F(Hardening, TheRegistrationSocketIsForRootAlone) {
  const std::string socket = node1().socket();
  const std::string folder = fs::path(socket).parent_path();
  EXPECT_EQ(fs::status(socket).permissions(), fs::perms(0600));
  cni::Request request;
  request.verb = cni::Verb::kStatus;
  request.key = {"weftt", "eth0"};
  const auto ask_as = [&](unsigned uid) {
    std::optional<Result<cni::Reply>> reply;
    std::thread([&] {
      // By the system call itself: the C library would change all threads of the test.
      if (uid != 0 && ::syscall(SYS_setresuid, uid, uid, uid) != 0) return;
      reply = cni::call(socket, request, 2'000);
    }).join();
    return reply;
  };
  const auto by_root = ask_as(0);
  ASSERT_TRUE(by_root && *by_root);
  EXPECT_FALSE((*by_root)->error) << (*by_root)->error->message();
  const auto at_the_door = ask_as(kNobody);
  ASSERT_TRUE(at_the_door);
  ASSERT_FALSE(*at_the_door) << "let in by the file's mode";
  EXPECT_EQ(at_the_door->error().code, ErrorCode::kDenied);

  // Even with every door open it is who asks that counts.
  const std::string above = fs::path(folder).parent_path();
  const std::vector<std::pair<std::string, fs::perms>> opened{
      {socket, fs::perms(0666)}, {folder, fs::perms(0755)}, {above, fs::perms(0755)}};
  std::vector<fs::perms> before;
  for (const auto& [path, mode] : opened) {
    before.push_back(fs::status(path).permissions());
    fs::permissions(path, mode);
  }
  const auto inside = ask_as(kNobody);
  for (std::size_t i = 0; i < opened.size(); ++i) fs::permissions(opened[i].first, before[i]);
  ASSERT_TRUE(inside && *inside) << (inside ? inside->error().message() : "not asked");
  ASSERT_TRUE((*inside)->error) << "a process of uid 65534 was answered";
  EXPECT_THAT((*inside)->error->message(), HasSubstr("has uid 65534, only root may ask"));
}

/// Paths below `root` that are not root's, or that others may use.
std::vector<std::string> open_to_others(const std::string& root) {
  std::vector<std::string> open;
  const auto look = [&](const std::string& path) {
    struct stat st {};
    if (::lstat(path.c_str(), &st) != 0 || S_ISLNK(st.st_mode)) return;
    if (st.st_uid != 0 || (st.st_mode & 077U) != 0) open.push_back(path);
  };
  look(root);
  for (const auto& entry : fs::recursive_directory_iterator(root)) look(entry.path());
  return open;
}

TEST_F(Hardening, PinsAndRecordsAreRootsAlone) {
  using ::testing::IsEmpty;
  for (Node* node : {&node1(), &node2()}) {
    const std::string run = mesh().folder().path() + "/" + node->name() + "/run";
    EXPECT_THAT(open_to_others(node->bpf_root()), IsEmpty());
    EXPECT_THAT(open_to_others(run), IsEmpty());
    EXPECT_FALSE(fs::is_empty(node->bpf_root() + "/maps"));
    EXPECT_FALSE(fs::is_empty(run + "/registrations"));
  }
  EXPECT_THAT(open_to_others(mesh().folder().path()), ::testing::Contains(mesh().config_path())) << "the control";
}

TEST_F(Hardening, NobodyLooksIntoTheAgentOrItsDumps) {
  const std::string proc = "/proc/" + std::to_string(node1().agent().pid());
  EXPECT_THAT(read_file(proc + "/limits"), ::testing::ContainsRegex("Max core file size +0 +0 "));
  // Root, but without the right to trace whatever it likes. The control has the agent's capabilities, too.
  const auto open_memory = [](pid_t pid) {
    return run({"setpriv", "--inh-caps", "-all", "--bounding-set", "-sys_ptrace", "dd", "count=0",
                "if=/proc/" + std::to_string(pid) + "/mem"});
  };
  std::vector<std::string> sleep = with_only(kept);
  sleep.insert(sleep.end(), {"sleep", "100"});
  Process other = Process::start(sleep);
  EXPECT_TRUE(eventually(kSoon, [&] { return open_memory(other.pid()).ok(); }));
  EXPECT_EQ(status_of("/proc/" + std::to_string(other.pid()) + "/status", "CapEff"), hex_mask(kept));
  EXPECT_THAT(open_memory(node1().agent().pid()).err, HasSubstr("Permission denied"));
}

/// A certificate is issued anew for a pod that left the mesh and comes back.
void issue_again(Mesh& mesh, Pod& pod, const Node& node) {
  const std::size_t before = node.log().size();
  mesh.set_enrolled(pod, false);
  mesh.set_enrolled(pod, true);
  const std::vector<std::string> issued{"certificate issued", pod.identity()};
  EXPECT_TRUE(eventually(kSoon, [&] { return !log_lines(node.log(), before, issued).empty(); })) << node.log();
}

TEST_F(Hardening, PrivateKeysAreInLockedMemoryAlone) {
  issue_again(mesh(), *client, node1());
  EXPECT_TRUE(eventually(kSoon, [&] { return client->get(db->v4()).ok(); }));
  const KeyTraces traces(mesh().ca_dir() + "/root-key.pem");
  for (Node* node : {&node1(), &node2()}) {
    const auto found = traces.find_in(node->agent().pid());
    EXPECT_THAT(found.in_the_open, ::testing::IsEmpty());
    EXPECT_GT(found.locked, 0) << "the control: the CA's key must be somewhere";
  }
}

TEST_F(Hardening, AKeyOfTheCaThatIsReadWhileItRunsIsInLockedMemoryAlone) {
  const std::string key = mesh().ca_dir() + "/root-key.pem";
  const KeyTraces former(key);
  must_run({program("weftctl"), "ca", "rotate", "prepare", mesh().ca_dir()});
  must_run({program("weftctl"), "ca", "rotate", "activate", "--now", mesh().ca_dir()});
  const KeyTraces traces(key);
  for (Node* node : {&node1(), &node2()}) {
    const pid_t pid = node->agent().pid();
    EXPECT_TRUE(eventually(kSoon, [&] { return traces.find_in(pid).locked > 0 && former.find_in(pid).locked == 0; }));
    EXPECT_THAT(traces.find_in(pid).in_the_open, ::testing::IsEmpty());
    EXPECT_THAT(former.find_in(pid).in_the_open, ::testing::IsEmpty());
  }
}

TEST_F(Hardening, KeysAreToldToNobody) {
  const KeyTraces traces(mesh().ca_dir() + "/root-key.pem");
  EXPECT_EQ(traces.find_in_text(read_file(mesh().ca_dir() + "/root-key.pem")), 1) << "the control";
  const auto weftctl = [](Node& node, const std::vector<std::string>& words) {
    std::vector<std::string> command{program("weftctl")};
    command.insert(command.end(), words.begin(), words.end());
    return run(command, {.netns = &node.netns(), .environment = {}, .input = {}});
  };
  for (Node* node : {&node1(), &node2()}) EXPECT_TRUE(weftctl(*node, {"log-level", "trace"}).ok());
  issue_again(mesh(), *client, node1());
  EXPECT_TRUE(eventually(kSoon, [&] { return client->get(db->v4()).ok() && db->get(client->v6()).ok(); }));
  std::string told;
  for (Node* node : {&node1(), &node2()}) {
    for (const char* path : {"/config_dump", "/certificates", "/pods", "/connections", "/status", "/counters"}) {
      const std::string answer = node->admin(path);
      EXPECT_FALSE(answer.empty()) << path;
      told += answer;
    }
    told += node->metrics() + weftctl(*node, {"certificates"}).out;
    EXPECT_TRUE(weftctl(*node, {"log-level", "reset"}).ok());
    told += node->log();
  }
  EXPECT_THAT(told, HasSubstr("certificate issued"));
  EXPECT_EQ(traces.find_in_text(told), 0);
}

/// The node's end of a pod's namespace may be an empty file of mode 0 that this agent may not even open.
TEST_F(Hardening, ANamespaceThatWentWhileNoAgentRanHoldsNothingUp) {
  Pod& pod = mesh().add_pod(1, "shop", "brief");
  node1().kill_agent();
  ASSERT_EQ(::umount2(pod.netns().path().c_str(), MNT_DETACH), 0);
  fs::permissions(pod.netns().path(), fs::perms::none);
  node1().start_agent();
  EXPECT_THAT(node1().log(), HasSubstr("registered pod is gone pod=shop/brief"));
  EXPECT_TRUE(eventually(kSoon, [&] { return client->get(db->v4()).ok(); }));
  const std::string kept_open = "/proc/self/fd/" + std::to_string(pod.netns().fd());
  ASSERT_EQ(::mount(kept_open.c_str(), pod.netns().path().c_str(), nullptr, MS_BIND, nullptr), 0);
  mesh().remove_pod(pod);
}

}  // namespace
}  // namespace weft::test
