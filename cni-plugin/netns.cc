// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/netns.h"

#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>

#include "tunnel/base/sys.h"

namespace weft::cni {

Result<Fd> own_netns() {
  Fd fd(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "open /proc/thread-self/ns/net");
  return fd;
}

Result<Netns> open_netns(const std::string& path) {
  const std::string what = "open the network namespace " + path;
  Netns netns;
  // Without O_NONBLOCK a FIFO in this place would hold the runtime for ever.
  netns.fd.reset(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (!netns.fd) return fail_errno(errno, what);
  if (::ioctl(netns.fd.get(), NS_GET_NSTYPE) != CLONE_NEWNET) {
    return fail(ErrorCode::kInvalid, what + ": it is no network namespace (was it unmounted?)");
  }
  auto own = own_netns();
  if (!own) return Failure(std::move(own.error()));
  struct stat there {};
  struct stat here {};
  if (::fstat(netns.fd.get(), &there) < 0 || ::fstat(own->get(), &here) < 0) return fail_errno(errno, what);
  netns.inode = there.st_ino;
  netns.own = there.st_dev == here.st_dev && there.st_ino == here.st_ino;
  return netns;
}

Result<NetnsScope> NetnsScope::enter(int netns_fd) {
  auto home = own_netns();
  if (!home) return Failure(std::move(home.error()));
  if (auto entered = sys::enter_netns(netns_fd); !entered) {
    entered.error().context = "enter the pod's network namespace (CAP_SYS_ADMIN is needed): " + entered.error().context;
    return Failure(std::move(entered.error()));
  }
  return NetnsScope(std::move(*home));
}

NetnsScope::~NetnsScope() {
  if (!home_) return;
  if (auto back = sys::enter_netns(home_.get()); !back) {
    std::fprintf(stderr, "return to the own network namespace: %s\n", back.error().message().c_str());
    std::abort();
  }
}

}  // namespace weft::cni
