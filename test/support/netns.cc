// SPDX-License-Identifier: Apache-2.0
#include "test/support/netns.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <sstream>
#include <vector>

namespace weft::test {
namespace {

namespace fs = std::filesystem;
constexpr const char* kPrefix = "weftt-";
constexpr const char* kNetnsFolder = "/run/netns/";
constexpr const char* kTempFolder = "/tmp/";

[[noreturn]] void fail_with_errno(const std::string& doing) { throw TestError(doing + ": " + std::strerror(errno)); }

std::string own_prefix() { return kPrefix + std::to_string(::getpid()) + "-"; }

/// Names in `folder` that carry the prefix of a test process that no longer lives.
std::vector<std::string> orphans(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename();
    if (!name.starts_with(kPrefix)) continue;
    const long pid = std::strtol(name.c_str() + std::strlen(kPrefix), nullptr, 10);
    if (pid > 0 && ::kill(static_cast<pid_t>(pid), 0) != 0 && errno == ESRCH) names.push_back(name);
  }
  return names;
}

/// Kills every process whose network namespace is the one at `path`, except this one.
void kill_inside(const std::string& path) {
  struct stat wanted {};
  if (::stat(path.c_str(), &wanted) != 0) return;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator("/proc", ignored)) {
    const pid_t pid = static_cast<pid_t>(std::strtol(entry.path().filename().c_str(), nullptr, 10));
    struct stat found {};
    if (pid <= 1 || pid == ::getpid() || ::stat((entry.path() / "ns/net").c_str(), &found) != 0) continue;
    if (found.st_ino == wanted.st_ino && found.st_dev == wanted.st_dev) ::kill(pid, SIGKILL);
  }
}

void remove_netns(const std::string& name) {
  const std::string path = kNetnsFolder + name;
  kill_inside(path);
  ::umount2(path.c_str(), MNT_DETACH);
  ::unlink(path.c_str());
}

/// Takes off every mount below `path`, innermost first, then the folder.
void remove_tree(const std::string& path) {
  std::ifstream mounts("/proc/self/mountinfo");
  std::vector<std::string> points;
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream fields(line);
    std::string id, parent, device, inner_root, point;
    fields >> id >> parent >> device >> inner_root >> point;
    if (point.starts_with(path + "/")) points.push_back(point);
  }
  std::sort(points.rbegin(), points.rend());
  for (const auto& point : points) ::umount2(point.c_str(), MNT_DETACH);
  std::error_code ignored;
  fs::remove_all(path, ignored);
}

void sweep_once() {
  static std::once_flag once;
  std::call_once(once, sweep_leftovers);
}

}  // namespace

bool is_root() { return ::geteuid() == 0; }

void sweep_leftovers() {
  for (const auto& name : orphans(kNetnsFolder)) remove_netns(name);
  for (const auto& name : orphans(kTempFolder)) remove_tree(kTempFolder + name);
}

Netns::Netns(const std::string& name) : name_(own_prefix() + name) {
  sweep_once();
  must_run({"ip", "netns", "add", name_});
  fd_ = Fd(::open(path().c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd_) fail_with_errno("open " + path());
  ip("link set lo up");
}

Netns::~Netns() {
  if (fd_) remove_netns(name_);
}

unsigned long Netns::inode() const {
  struct stat info {};
  if (::fstat(fd_.get(), &info) != 0) fail_with_errno("stat " + path());
  return info.st_ino;
}

std::string Netns::ip(const std::string& arguments) const {
  std::vector<std::string> words{"ip"};
  std::istringstream stream(arguments);
  for (std::string word; stream >> word;) words.push_back(word);
  return must_run(words, {.netns = this, .environment = {}, .input = {}});
}

void Netns::sysctl(const std::string& path, const std::string& value) const {
  run_in(*this, [&] {
    std::ofstream file("/proc/sys/" + path);
    file << value << std::flush;
    if (!file) throw TestError("write " + value + " to sysctl " + path + " in " + name_ + ": refused");
  });
}

void enter(const Netns& netns) {
  if (::setns(netns.fd(), CLONE_NEWNET) != 0) fail_with_errno("enter " + netns.name());
}

void connect_veth(const Netns& a, const std::string& name_in_a, const Netns& b, const std::string& name_in_b) {
  a.ip("link add " + name_in_a + " type veth peer name " + name_in_b + " netns " + b.name());
  a.ip("link set " + name_in_a + " up");
  b.ip("link set " + name_in_b + " up");
}

ScratchDir::ScratchDir() {
  sweep_once();
  std::string pattern = kTempFolder + own_prefix() + "XXXXXX";
  if (::mkdtemp(pattern.data()) == nullptr) fail_with_errno("make " + pattern);
  path_ = pattern;
}

ScratchDir::~ScratchDir() { remove_tree(path_); }

std::string ScratchDir::mount_at(const std::string& name, const char* type) const {
  std::string point = path_ + "/" + name;
  if (::mkdir(point.c_str(), 0700) != 0) fail_with_errno("make " + point);
  if (::mount(type, point.c_str(), type, 0, "mode=0700") != 0)
    fail_with_errno("mount " + std::string(type) + " at " + point);
  return point;
}

std::string ScratchDir::mount_bpffs(const std::string& name) { return mount_at(name, "bpf"); }

std::string ScratchDir::mount_tmpfs(const std::string& name) { return mount_at(name, "tmpfs"); }

std::string ScratchDir::write(const std::string& name, const std::string& text) const {
  const std::string path = path_ + "/" + name;
  fs::create_directories(fs::path(path).parent_path());
  {
    std::ofstream file(path + ".new");
    file << text << std::flush;
    if (!file) throw TestError("write " + path + ": failed");
  }
  fs::rename(path + ".new", path);
  return path;
}

bool kernel_has_tcx() {
  utsname name{};
  int major = 0, minor = 0;
  if (::uname(&name) != 0 || std::sscanf(name.release, "%d.%d", &major, &minor) != 2) {
    throw TestError("uname gives no version");
  }
  return major > 6 || (major == 6 && minor >= 6);
}

std::string read_file(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw TestError("read " + path + ": cannot be opened");
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace weft::test
