// SPDX-License-Identifier: Apache-2.0
#include "bpf/tcx.h"

#include <bpf/bpf.h>
#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "bpf/netns_scope.h"

namespace weft::bpf::tcx {
namespace {

// Of linux/bpf.h since 6.6; Debian 12's header does not name them.
constexpr std::uint32_t kIngress = 46, kEgress = 47;
constexpr std::uint32_t kBefore = 1U << 3;

/// With kBefore and no other program named: before all others.
int link_first(int program, std::uint32_t ifindex, bool ingress) {
  bpf_attr attr{};
  attr.link_create.prog_fd = static_cast<std::uint32_t>(program);
  attr.link_create.target_ifindex = ifindex;
  attr.link_create.attach_type = ingress ? kIngress : kEgress;
  attr.link_create.flags = kBefore;
  return static_cast<int>(::syscall(SYS_bpf, BPF_LINK_CREATE, &attr, sizeof attr));
}

}  // namespace

Result<bool> create(const Place& place, int program) {
  Fd link;
  {
    auto scope = NetnsScope::enter(place.netns);
    if (!scope) return Failure(scope.error());
    link.reset(link_first(program, place.ifindex, place.hook->ingress));
    if (!link) {
      if (errno == EINVAL) return false;
      if (errno == EEXIST) {
        return fail_errno(errno, "attach " + place.text() + " (is it attached there under another name or root?)");
      }
      return fail_errno(errno, "attach " + place.text() + " (does the device exist?)");
    }
  }
  if (bpf_obj_pin(link.get(), place.pin.c_str()) != 0) {
    return fail_errno(errno, "pin " + place.text() + " at " + place.pin + " (is it a bpffs, and is the pin new?)");
  }
  return true;
}

Result<std::optional<Link>> open(const std::string& pin) {
  Link link;
  link.fd.reset(bpf_obj_get(pin.c_str()));
  if (!link.fd) {
    if (errno == ENOENT) return std::optional<Link>();
    return fail_errno(errno, "open the pinned link " + pin);
  }
  bpf_link_info info{};
  std::uint32_t length = sizeof info;
  if (bpf_obj_get_info_by_fd(link.fd.get(), &info, &length) != 0) {
    return fail_errno(errno, "ask the kernel about the pinned link " + pin);
  }
  link.id = info.id;
  link.program_id = info.prog_id;
  // The kernel's tcx.ifindex; at the same place as xdp.ifindex, which old headers name.
  link.ifindex = info.xdp.ifindex;
  return std::optional<Link>(std::move(link));
}

Result<void> update(const Link& link, int program, const Place& place) {
  const Fd old(bpf_prog_get_fd_by_id(link.program_id));
  if (!old) return fail_errno(errno, "open the old program of " + place.text());
  bpf_link_update_opts options{};
  options.sz = sizeof options;
  options.flags = BPF_F_REPLACE;
  options.old_prog_fd = static_cast<std::uint32_t>(old.get());
  if (bpf_link_update(link.fd.get(), program, &options) != 0) {
    if (errno == ENOLINK) return fail(ErrorCode::kNotFound, "update " + place.text() + ": the device is gone");
    return fail_errno(errno, "update " + place.text());
  }
  return {};
}

Result<void> detach(const Link& link, const std::string& pin) {
  if (link.ifindex == 0) return {};
  if (bpf_link_detach(link.fd.get()) != 0 && errno != ENOLINK) return fail_errno(errno, "detach the link " + pin);
  return {};
}

}  // namespace weft::bpf::tcx
