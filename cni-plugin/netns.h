// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "tunnel/base/error.h"
#include "tunnel/base/fd.h"

namespace weft::cni {

/// A network namespace by its path. The inode tells namespaces apart while they live (it is reused afterwards).
struct Netns {
  Fd fd;
  std::uint64_t inode = 0;
  bool own = false;  ///< it is the one that the calling thread is in
};

/// Errors: kNotFound (nothing there), kInvalid (something else, a plain file when the namespace was unmounted).
Result<Netns> open_netns(const std::string& path);

/// Puts the calling thread into a network namespace and, at the end of its life, back. Going back cannot fail while the
/// thread keeps its privileges; if it does the process ends, since anything it did next would hit the wrong namespace.
class NetnsScope {
 public:
  static Result<NetnsScope> enter(int netns_fd);
  NetnsScope(NetnsScope&&) noexcept = default;
  NetnsScope& operator=(NetnsScope&&) = delete;
  ~NetnsScope();

 private:
  explicit NetnsScope(Fd home) : home_(std::move(home)) {}
  Fd home_;
};

/// The calling thread's namespace.
Result<Fd> own_netns();

}  // namespace weft::cni
