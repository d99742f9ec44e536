// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>

#include "test/support/process.h"
#include "tunnel/base/fd.h"

namespace weft::test {

/// True when the test may make namespaces and load programs. Tests begin with `WEFT_NEEDS_ROOT();`.
[[nodiscard]] bool is_root();
/// Whether the running kernel has TCX links: from 6.6; clsact filters before.
[[nodiscard]] bool kernel_has_tcx();
#define WEFT_NEEDS_ROOT() \
  if (!::weft::test::is_root()) GTEST_SKIP() << "needs root: makes network namespaces"

/// Takes away what killed runs of tests left: namespaces (and the programs in them), mounts and folders that carry the
/// prefix of a test process that is gone. Called by the first Netns or ScratchDir of a process.
void sweep_leftovers();

/// A network namespace with a name in /run/netns, `weftt-PID-NAME`, so that `ip netns` and CNI plugins find it; lo is
/// up. Its end takes it away; programs that still run in it are killed.
class Netns {
 public:
  explicit Netns(const std::string& name);
  Netns(Netns&&) noexcept = default;
  Netns& operator=(Netns&&) noexcept = delete;
  Netns(const Netns&) = delete;
  Netns& operator=(const Netns&) = delete;
  ~Netns();

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] std::string path() const { return "/run/netns/" + name_; }
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] unsigned long inode() const;

  /// Runs `ip ARGUMENTS…` inside and gives its output; the words of `arguments` are separated by spaces.
  std::string ip(const std::string& arguments) const;
  /// Writes a sysctl of this namespace, named with slashes below /proc/sys: "net/ipv4/ip_forward".
  void sysctl(const std::string& path, const std::string& value) const;

 private:
  std::string name_;
  Fd fd_;
};

/// Enters the namespace with the calling thread; throws TestError.
void enter(const Netns& netns);

/// Runs `work` on a thread inside the namespace and gives its result; what it throws is thrown here. Sockets that it
/// opens and returns stay in that namespace.
template <class Work>
auto run_in(const Netns& netns, Work work) -> std::invoke_result_t<Work> {
  using Value = std::invoke_result_t<Work>;
  using Kept = std::conditional_t<std::is_void_v<Value>, bool, Value>;
  std::exception_ptr thrown;
  std::optional<Kept> value;
  std::thread inside([&] {
    try {
      enter(netns);
      if constexpr (std::is_void_v<Value>) {
        work();
        value = true;
      } else {
        value = work();
      }
    } catch (...) {
      thrown = std::current_exception();
    }
  });
  inside.join();
  if (thrown) std::rethrow_exception(thrown);
  if constexpr (!std::is_void_v<Value>) return std::move(*value);
}

/// Joins two namespaces by a veth pair, both ends up.
void connect_veth(const Netns& a, const std::string& name_in_a, const Netns& b, const std::string& name_in_b);

/// A folder below /tmp, `weftt-PID-XXXXXX`, gone with its contents and mounts at the end.
class ScratchDir {
 public:
  ScratchDir();
  ScratchDir(const ScratchDir&) = delete;
  ScratchDir& operator=(const ScratchDir&) = delete;
  ~ScratchDir();
  [[nodiscard]] const std::string& path() const { return path_; }

  /// Mounts a bpffs at path()/NAME and gives its path.
  std::string mount_bpffs(const std::string& name = "bpf");
  /// The same with a tmpfs: what is on disk waits for the disk of a machine that has other work.
  std::string mount_tmpfs(const std::string& name);
  /// Writes a file by rename, so that a watcher never sees half of it; gives its path.
  std::string write(const std::string& name, const std::string& text) const;

 private:
  [[nodiscard]] std::string mount_at(const std::string& name, const char* type) const;
  std::string path_;
};

/// A file's text; throws when it cannot be read.
std::string read_file(const std::string& path);

}  // namespace weft::test
