// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fcntl.h>
#include <sched.h>

#include <cerrno>
#include <cstdlib>

#include "tunnel/base/error.h"
#include "tunnel/base/fd.h"

namespace weft::bpf {

/// Puts the calling thread into a network namespace while it lives. A thread that cannot come back would do its later
/// work in a pod's netns: that ends the process.
class NetnsScope {
 public:
  /// `netns` -1: stays where it is.
  static Result<NetnsScope> enter(int netns) {
    NetnsScope scope;
    if (netns < 0) return scope;
    Fd own(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
    if (!own) return fail_errno(errno, "open /proc/thread-self/ns/net (is /proc mounted?)");
    if (::setns(netns, CLONE_NEWNET) != 0) {
      return fail_errno(errno, "enter the pod's network namespace (is it root, and the descriptor one of a netns?)");
    }
    scope.own_ = std::move(own);
    return scope;
  }
  NetnsScope(NetnsScope&&) = default;
  NetnsScope& operator=(NetnsScope&&) = delete;
  ~NetnsScope() {
    if (own_ && ::setns(own_.get(), CLONE_NEWNET) != 0) std::abort();
  }

 private:
  NetnsScope() = default;
  Fd own_;
};

}  // namespace weft::bpf
