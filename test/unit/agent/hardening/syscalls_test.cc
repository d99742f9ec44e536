// SPDX-License-Identifier: Apache-2.0
#include "agent/hardening/syscalls.h"

#include <gmock/gmock.h>
#include <linux/bpf.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <set>
#include <thread>

#include "test/unit/agent/hardening/forked.h"

namespace weft::agent::hardening {
namespace {

using test::in_child;
using ::testing::HasSubstr;

constexpr int kKilled = 128 + SIGSYS;
/// errno of a call that succeeded.
constexpr int kFine = 0;
constexpr int kNoFilter = 99;

/// What `call` (0 or more, or -1 with errno) ends with in a process under the filter: its errno, kFine, or kKilled.
int under(SeccompMode mode, const std::function<long()>& call) {
  return in_child([&] {
           if (!filter_syscalls(mode)) return kNoFilter;
           errno = 0;
           return call() < 0 ? errno : kFine;
         })
      .status;
}
int enforced(const std::function<long()>& call) { return under(SeccompMode::kEnforce, call); }

/// With arguments that are good for nothing, should it be let through.
long make_call(const char* name) {
  return ::syscall(::seccomp_syscall_resolve_name(name), -1L, -1L, -1L, -1L, -1L, -1L);
}
bool exists_here(const char* name) { return ::seccomp_syscall_resolve_name(name) >= 0; }

TEST(SyscallFilter, NamesEveryCallRightAndOnce) {
  std::set<std::string> seen;
  for (const auto& list : {allowed_syscalls(), fatal_syscalls()}) {
    for (const char* name : list) {
      EXPECT_NE(::seccomp_syscall_resolve_name(name), __NR_SCMP_ERROR) << name;
      EXPECT_TRUE(seen.insert(name).second) << name << " is in the lists twice";
    }
  }
}

TEST(SyscallFilter, EndsTheProcessAtWhatOnlyAnIntruderWants) {
  int tried = 0;
  for (const char* name : fatal_syscalls()) {
    if (!exists_here(name)) continue;
    EXPECT_EQ(enforced([&] { return make_call(name); }), kKilled) << name;
    ++tried;
  }
  EXPECT_GT(tried, 50);
  for (const char* name :
       {"execve", "execveat", "init_module", "open_by_handle_at", "ptrace", "mount", "io_uring_setup"})
    EXPECT_THAT(std::vector<std::string>(fatal_syscalls().begin(), fatal_syscalls().end()), ::testing::Contains(name));
}

TEST(SyscallFilter, RunsNoOtherProgram) {
  char path[] = "/bin/true";
  char* const arguments[] = {path, nullptr};
  const auto run = [&]() -> long { return ::execve(path, arguments, nullptr); };
  EXPECT_EQ(enforced(run), kKilled);
  EXPECT_EQ(under(SeccompMode::kOff, run), 0) << "the control: /bin/true was not run";
  EXPECT_EQ(under(SeccompMode::kLog, run), 0);
}

TEST(SyscallFilter, RefusesWhatItDoesNotKnow) {
  for (const char* name : {"kill",
                           "chown",
                           "fchownat",
                           "link",
                           "linkat",
                           "truncate",
                           "seccomp",
                           "capset",
                           "setpriority",
                           "sched_setscheduler",
                           "pidfd_open",
                           "clone3",
                           "landlock_create_ruleset",
                           "mincore",
                           "shmget",
                           "msgget",
                           "sendfile",
                           "splice",
                           "vmsplice",
                           "getppid"}) {
    if (!exists_here(name)) continue;
    EXPECT_EQ(enforced([&] { return make_call(name); }), ENOSYS) << name;
  }
  EXPECT_EQ(enforced([] { return ::syscall(100'000); }), ENOSYS);
}

TEST(SyscallFilter, LetsDoWhatTheAgentDoes) {
  EXPECT_EQ(enforced([]() -> long { return ::getpid(); }), kFine);
  for (const int family : {AF_UNIX, AF_INET, AF_INET6})
    EXPECT_EQ(enforced([&]() -> long { return ::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0); }), kFine) << family;
  for (const int protocol : {0 /* NETLINK_ROUTE */, 4 /* NETLINK_SOCK_DIAG */})
    EXPECT_EQ(enforced([&]() -> long { return ::socket(AF_NETLINK, SOCK_RAW, protocol); }), kFine) << protocol;
  EXPECT_EQ(enforced([]() -> long { return ::memfd_create("weft", MFD_CLOEXEC); }), kFine);
  EXPECT_EQ(enforced([]() -> long { return ::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC); }), kFine);
  EXPECT_EQ(enforced([]() -> long { return ::sched_yield(); }), kFine);
  EXPECT_EQ(enforced([]() -> long {
              int pair[2];
              return ::socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
            }),
            kFine);
  EXPECT_EQ(enforced([]() -> long {
              rlimit limit{};
              if (::getrlimit(RLIMIT_NOFILE, &limit) < 0) return -1;
              return ::setrlimit(RLIMIT_NOFILE, &limit);
            }),
            kFine);
  EXPECT_EQ(enforced([]() -> long {
              int sum = 0;
              std::thread([&] { sum = 1; }).join();
              return sum == 1 ? 0 : -1;
            }),
            kFine)
      << "no thread";
  EXPECT_EQ(in_child([] {
              if (!filter_syscalls(SeccompMode::kEnforce)) return kNoFilter;
              std::abort();
            }).status,
            128 + SIGABRT);
}

TEST(SyscallFilter, LooksAtArguments) {
  EXPECT_EQ(enforced([]() -> long { return ::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0); }), ENOSYS);
  EXPECT_EQ(enforced([]() -> long { return ::socket(AF_VSOCK, SOCK_STREAM, 0); }), ENOSYS);
  EXPECT_EQ(enforced([]() -> long { return ::socket(AF_NETLINK, SOCK_RAW, 9 /* NETLINK_AUDIT */); }), ENOSYS);
  EXPECT_EQ(enforced([]() -> long { return ::setns(-1, CLONE_NEWNET); }), EBADF);
  for (const int type : {0, CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET | CLONE_NEWNS})
    EXPECT_EQ(enforced([&]() -> long { return ::setns(-1, type); }), ENOSYS) << type;
  for (const int command : {BPF_PROG_ATTACH, BPF_RAW_TRACEPOINT_OPEN, BPF_ENABLE_STATS, BPF_ITER_CREATE})
    EXPECT_EQ(enforced([&] { return ::syscall(SYS_bpf, command, nullptr, 0); }), ENOSYS) << command;
  EXPECT_NE(enforced([] { return ::syscall(SYS_bpf, BPF_MAP_CREATE, nullptr, 0); }), ENOSYS);
  EXPECT_EQ(enforced([] { return ::syscall(SYS_prlimit64, ::getppid(), RLIMIT_NOFILE, nullptr, nullptr); }), ENOSYS);
}

TEST(SyscallFilter, LetsNothingBecomeAProgram) {
  const auto map = [](int protection) {
    return [protection]() -> long {
      return ::mmap(nullptr, 4096, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0;
    };
  };
  EXPECT_EQ(enforced(map(PROT_READ | PROT_WRITE)), kFine);
  EXPECT_EQ(enforced(map(PROT_READ | PROT_EXEC)), ENOSYS);
  EXPECT_EQ(enforced(map(PROT_READ | PROT_WRITE | PROT_EXEC)), ENOSYS);
  EXPECT_EQ(enforced([]() -> long {
              void* page = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
              return ::mprotect(page, 4096, PROT_READ | PROT_EXEC);
            }),
            ENOSYS);
}

TEST(SyscallFilter, MakesThreadsAndNoProcesses) {
  EXPECT_EQ(enforced([] { return ::syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); }), ENOSYS);
  EXPECT_EQ(enforced([] { return ::syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0); }), ENOSYS);
  constexpr long kThread = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD;
  EXPECT_EQ(enforced([&] { return ::syscall(SYS_clone, kThread | CLONE_NEWNET, 0, 0, 0, 0); }), ENOSYS);
  EXPECT_EQ(enforced([]() -> long { return ::fork(); }), ENOSYS) << "by glibc, which takes clone";
}

TEST(SyscallFilter, SignalsNobodyElse) {
  EXPECT_EQ(enforced([] { return ::syscall(SYS_tgkill, ::getppid(), ::getppid(), 0); }), ENOSYS);
  EXPECT_EQ(enforced([] { return ::syscall(SYS_tgkill, ::getpid(), ::gettid(), 0); }), kFine);
}

TEST(SyscallFilter, CannotBeTakenOff) {
  const auto again = [] { return filter_syscalls(SeccompMode::kOff) ? 0 : 1; };
  EXPECT_EQ(in_child([&] { return filter_syscalls(SeccompMode::kEnforce) ? again() : kNoFilter; }).status, 1);
  EXPECT_EQ(in_child(again).status, 0);
}

std::string status_line(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(name + ":\t")) return line.substr(name.size() + 2);
  }
  return "";
}

TEST(SyscallFilter, HoldsForThreadsThatRunAlready) {
  EXPECT_EQ(in_child([] {
              std::atomic<bool> filtered{false};
              long refused = 0;
              std::thread other([&] {
                while (!filtered) std::this_thread::yield();
                refused = make_call("chown") < 0 ? errno : 0;
              });
              const bool done = filter_syscalls(SeccompMode::kEnforce).has_value();
              filtered = true;
              other.join();
              return done && refused == ENOSYS ? 0 : 1;
            }).status,
            0);
}

TEST(SyscallFilter, OffAndLogAreWhatTheySay) {
  EXPECT_EQ(in_child([] {
              const bool off = filter_syscalls(SeccompMode::kOff).has_value();
              return off && status_line("NoNewPrivs") == "1" && status_line("Seccomp") == "0" ? 0 : 1;
            }).status,
            0);
  EXPECT_EQ(under(SeccompMode::kLog,
                  []() -> long { return ::socket(AF_VSOCK, SOCK_STREAM, 0) < 0 && errno == ENOSYS ? -1 : 0; }),
            kFine);
  EXPECT_EQ(in_child([] {
              const bool log = filter_syscalls(SeccompMode::kLog).has_value();
              return log && status_line("NoNewPrivs") == "1" && status_line("Seccomp") == "2" ? 0 : 1;
            }).status,
            0);
}

TEST(SyscallFilter, ModesHaveNames) {
  for (const auto mode : {SeccompMode::kEnforce, SeccompMode::kLog, SeccompMode::kOff})
    EXPECT_EQ(parse_seccomp_mode(to_text(mode)), mode);
  const auto bad = parse_seccomp_mode("on");
  ASSERT_FALSE(bad);
  EXPECT_THAT(bad.error().message(), HasSubstr("\"on\": expected enforce, log or off"));
}

}  // namespace
}  // namespace weft::agent::hardening
