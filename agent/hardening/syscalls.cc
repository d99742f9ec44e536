// SPDX-License-Identifier: Apache-2.0
#include "agent/hardening/syscalls.h"

#include <linux/bpf.h>
#include <linux/netlink.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <initializer_list>
#include <memory>
#include <vector>

namespace weft::agent::hardening {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kInstrumented = true;
#else
constexpr bool kInstrumented = false;
#endif

// clang-format off
constexpr std::array kAllowed{
    // Memory; mappings that are executable are below.
    "brk", "madvise", "membarrier", "mlock", "mlock2", "mremap", "munlock", "munmap",
    // Threads, time and signals of this process.
    "clock_getres", "clock_gettime", "clock_nanosleep", "exit", "exit_group", "futex", "getcpu", "getpid", "getrandom",
    "getrusage", "gettid", "gettimeofday", "nanosleep", "restart_syscall", "rseq", "rt_sigaction", "rt_sigprocmask",
    "rt_sigreturn", "sched_getaffinity", "sched_getparam", "sched_getscheduler", "sched_yield", "set_robust_list", "sigaltstack", "sysinfo", "time",
    // Who and where it is.
    "getcwd", "getegid", "geteuid", "getgid", "getuid", "uname",
    // Files, pins and records.
    "access", "chmod", "close", "dup", "dup2", "dup3", "faccessat", "faccessat2", "fadvise64", "fchmod", "fchmodat",
    "fcntl", "fdatasync", "flock", "fstat", "fstatfs", "fsync", "ftruncate", "getdents64", "lseek", "lstat", "memfd_create",
    "mkdir", "mkdirat", "newfstatat", "open", "openat", "pread64", "pwrite64", "read", "readlink", "readlinkat", "readv",
    "rename", "renameat", "renameat2", "rmdir", "stat", "statfs", "statx", "symlink", "symlinkat", "umask", "unlink",
    "unlinkat", "write", "writev",
    // Waiting.
    "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_wait", "eventfd2", "inotify_add_watch", "inotify_init1",
    "inotify_rm_watch", "pipe2", "poll", "ppoll", "pselect6", "select", "signalfd4", "timerfd_create", "timerfd_gettime",
    "timerfd_settime",
    // Sockets, once they are made.
    "accept", "accept4", "bind", "connect", "getpeername", "getsockname", "getsockopt", "listen", "recvfrom", "recvmmsg",
    "recvmsg", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown",
};

constexpr std::array kFatal{
    // Another program.
    "execve", "execveat", "fork", "vfork",
    // Other processes, and this one's from outside.
    "kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace",
    // The kernel itself.
    "bdflush", "create_module", "delete_module", "finit_module", "init_module", "ioperm", "iopl", "kexec_file_load",
    "kexec_load", "perf_event_open", "reboot", "syslog", "uselib", "userfaultfd",
    // What other limits and views of the machine are made of.
    "acct", "adjtimex", "chroot", "clock_adjtime", "clock_settime", "fsconfig", "fsmount", "fsopen", "fspick", "mount",
    "mount_setattr", "move_mount", "open_by_handle_at", "open_tree", "personality", "pivot_root", "quotactl",
    "quotactl_fd", "setdomainname", "sethostname", "settimeofday", "stime", "swapoff", "swapon", "umount", "umount2",
    "unshare",
    // Files that are devices.
    "mknod", "mknodat",
    // Identity and keys.
    "add_key", "keyctl", "request_key", "setfsgid", "setfsuid", "setgid", "setgroups", "setregid", "setresgid",
    "setresuid", "setreuid", "setuid",
    // The same calls by another way, past this filter.
    "io_uring_enter", "io_uring_register", "io_uring_setup",
};
// clang-format on

constexpr std::uint64_t kWord = 0xffffffff;  // an int: what the rest of the register holds is not looked at

scmp_arg_cmp argument(unsigned index, std::uint64_t mask, std::uint64_t value) {
  return {.arg = index, .op = SCMP_CMP_MASKED_EQ, .datum_a = mask, .datum_b = value};
}

struct Rule {
  const char* name;
  std::vector<scmp_arg_cmp> arguments;
};

/// A thread shares memory with its creator and stays in its namespaces. glibc asks by clone3, whose arguments no filter
/// can read, and takes this one when that fails with ENOSYS.
Rule threads_only() {
  constexpr std::uint64_t kNeeded = CLONE_VM | CLONE_THREAD | CLONE_SIGHAND | CLONE_FILES | CLONE_FS;
  constexpr std::uint64_t kNever = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |
                                   CLONE_NEWPID | CLONE_NEWNET | CLONE_PTRACE;
  return {"clone", {argument(0, kNeeded | kNever, kNeeded)}};
}

/// The calls that are allowed with some arguments alone.
std::vector<Rule> conditional() {
  std::vector<Rule> rules{threads_only(),
                          // Nothing that was written can be run, and no library comes in later.
                          {"mmap", {argument(2, PROT_EXEC, 0)}},
                          {"mprotect", {argument(2, PROT_EXEC, 0)}},
                          {"setns", {argument(1, kWord, CLONE_NEWNET)}},
                          {"socketpair", {argument(0, kWord, AF_UNIX)}},
                          {"prctl", {argument(0, kWord, PR_SET_NAME)}},
                          // Its own signals and limits.
                          {"tgkill", {argument(0, kWord, static_cast<std::uint64_t>(::getpid()))}},
                          {"prlimit64", {argument(0, kWord, 0)}}};
  for (const int family : {AF_UNIX, AF_INET, AF_INET6}) {
    rules.push_back({"socket", {argument(0, kWord, static_cast<std::uint64_t>(family))}});
  }
  for (const int protocol : {NETLINK_ROUTE, NETLINK_SOCK_DIAG}) {
    rules.push_back(
        {"socket", {argument(0, kWord, AF_NETLINK), argument(2, kWord, static_cast<std::uint64_t>(protocol))}});
  }
  for (const std::uint64_t request :
       std::initializer_list<std::uint64_t>{NS_GET_NSTYPE, TCGETS, FIONREAD, FIONBIO, TIOCOUTQ}) {
    rules.push_back({"ioctl", {argument(1, kWord, request)}});
  }
  for (const int command :
       {BPF_MAP_CREATE,       BPF_MAP_LOOKUP_ELEM,  BPF_MAP_UPDATE_ELEM,    BPF_MAP_DELETE_ELEM,
        BPF_MAP_GET_NEXT_KEY, BPF_MAP_LOOKUP_BATCH, BPF_MAP_FREEZE,         BPF_MAP_GET_FD_BY_ID,
        BPF_PROG_LOAD,        BPF_PROG_BIND_MAP,    BPF_PROG_QUERY,         BPF_PROG_GET_FD_BY_ID,
        BPF_OBJ_PIN,          BPF_OBJ_GET,          BPF_OBJ_GET_INFO_BY_FD, BPF_BTF_LOAD,
        BPF_LINK_CREATE,      BPF_LINK_UPDATE,      BPF_LINK_DETACH,        BPF_LINK_GET_FD_BY_ID}) {
    rules.push_back({"bpf", {argument(0, kWord, static_cast<std::uint64_t>(command))}});
  }
  return rules;
}

struct ContextFree {
  void operator()(void* context) const { ::seccomp_release(context); }
};

class Filter {
 public:
  explicit Filter(std::uint32_t otherwise) : otherwise_(otherwise), context_(::seccomp_init(otherwise)) {
    if (!context_) made_ = fail(ErrorCode::kInternal, "make a seccomp filter: out of memory");
    set(SCMP_FLTATR_CTL_TSYNC, 1);
    // The agent runs no foreign code, against which the kernel's measures would be; they are dear up to 5.15.
    set(SCMP_FLTATR_CTL_SSB, 1);
  }

  void set(scmp_filter_attr attribute, std::uint32_t value) {
    if (!made_) return;
    if (const int error = ::seccomp_attr_set(context_.get(), attribute, value); error != 0) {
      made_ = fail_errno(-error, "prepare a seccomp filter");
    }
  }

  void add(std::uint32_t action, const Rule& rule) {
    const int number = ::seccomp_syscall_resolve_name(rule.name);
    // One that no machine of this library's age has, or what happens anyway.
    if (!made_ || number == __NR_SCMP_ERROR || action == otherwise_) return;
    const auto count = static_cast<unsigned>(rule.arguments.size());
    if (const int error = ::seccomp_rule_add_array(context_.get(), action, number, count, rule.arguments.data());
        error != 0) {
      made_ = fail_errno(-error, std::string("take ") + rule.name + " into a seccomp filter");
    }
  }

  Result<void> load() {
    if (!made_) return made_;
    if (const int error = ::seccomp_load(context_.get()); error != 0) {
      return fail_errno(-error,
                        "put the process under its seccomp filter (was the kernel built without "
                        "CONFIG_SECCOMP_FILTER? --seccomp=off starts without)");
    }
    return {};
  }

 private:
  std::uint32_t otherwise_;
  std::unique_ptr<void, ContextFree> context_;
  Result<void> made_;
};

/// Of its own, because what the main filter refuses is logged, and this is asked for each thread.
Result<void> refuse_clone3() {
  Filter filter(SCMP_ACT_ALLOW);
  filter.add(SCMP_ACT_ERRNO(ENOSYS), {"clone3", {}});
  return filter.load();
}

Result<void> allow_the_needed(bool log_only) {
  const std::uint32_t fatal = log_only ? SCMP_ACT_LOG : SCMP_ACT_KILL_PROCESS;
  Filter filter(log_only ? SCMP_ACT_LOG : SCMP_ACT_ERRNO(ENOSYS));
  filter.set(SCMP_FLTATR_ACT_BADARCH, fatal);
  filter.set(SCMP_FLTATR_CTL_LOG, 1);
  // Before 5.11 the filter runs for each call: a tree instead of a list.
  filter.set(SCMP_FLTATR_CTL_OPTIMIZE, 2);
  for (const char* name : kAllowed) filter.add(SCMP_ACT_ALLOW, {name, {}});
  filter.add(SCMP_ACT_ALLOW, {"clone3", {}});  // the other filter has the say
  for (const Rule& rule : conditional()) filter.add(SCMP_ACT_ALLOW, rule);
  for (const char* name : kFatal) filter.add(fatal, {name, {}});
  return filter.load();
}

}  // namespace

Result<SeccompMode> parse_seccomp_mode(const std::string& text) {
  for (const auto mode : {SeccompMode::kEnforce, SeccompMode::kLog, SeccompMode::kOff}) {
    if (text == to_text(mode)) return mode;
  }
  return fail(ErrorCode::kInvalid, "\"" + text + "\": expected enforce, log or off");
}

const char* to_text(SeccompMode mode) {
  switch (mode) {
    case SeccompMode::kEnforce:
      return "enforce";
    case SeccompMode::kLog:
      return "log";
    case SeccompMode::kOff:
      break;
  }
  return "off";
}

std::span<const char* const> fatal_syscalls() { return kFatal; }
std::span<const char* const> allowed_syscalls() { return kAllowed; }
bool is_instrumented() { return kInstrumented; }

Result<void> filter_syscalls(SeccompMode mode) {
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return fail_errno(errno, "set no_new_privs");
  if (mode == SeccompMode::kOff) return {};
  // This order: the main filter would not let another one in.
  if (auto refused = refuse_clone3(); !refused) return refused;
  return allow_the_needed(mode == SeccompMode::kLog);
}

}  // namespace weft::agent::hardening
