// SPDX-License-Identifier: Apache-2.0
#include "bpf/pins.h"

#include <bpf/bpf.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <vector>

#include "bpf/shared.h"
#include "tunnel/base/fd.h"

namespace weft::bpf::pins {
namespace {

constexpr unsigned kNeededMajor = 5, kNeededMinor = 10;

Result<void> check_kernel() {
  utsname name{};
  if (::uname(&name) != 0) return fail_errno(errno, "ask for the kernel's version");
  unsigned major = 0, minor = 0;
  if (std::sscanf(name.release, "%u.%u", &major, &minor) != 2) return {};
  if (major < kNeededMajor || (major == kNeededMajor && minor < kNeededMinor)) {
    return fail(ErrorCode::kUnsupported,
                "load the capture programs: this is Linux " + std::string(name.release) + ", 5.10 or later is needed");
  }
  if (::access("/sys/kernel/btf/vmlinux", R_OK) != 0) {
    return fail_errno(errno,
                      "load the capture programs: /sys/kernel/btf/vmlinux is needed, a kernel built with "
                      "CONFIG_DEBUG_INFO_BTF (or /sys is not mounted)");
  }
  return {};
}

/// The folder itself or the nearest one above it that exists.
std::string existing_part(std::string path) {
  while (path.size() > 1 && ::access(path.c_str(), F_OK) != 0) {
    const auto slash = path.rfind('/');
    path = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
    if (path == ".") break;
  }
  return path;
}

Result<Fd> open_map(const std::string& path, bpf_map_info& info) {
  Fd map(bpf_obj_get(path.c_str()));
  if (!map) {
    if (errno == ENOENT) return Fd();
    return fail_errno(errno, "open the pinned map " + path);
  }
  std::uint32_t length = sizeof info;
  if (bpf_obj_get_info_by_fd(map.get(), &info, &length) != 0) {
    return fail_errno(errno, "ask the kernel about the pinned map " + path);
  }
  return map;
}

}  // namespace

Result<void> check_machine(const std::string& root) {
  if (::geteuid() != 0) {
    return fail(ErrorCode::kDenied, "load the capture programs: this needs root, and the user is " +
                                        std::to_string(::geteuid()) +
                                        " (in a container: CAP_BPF and CAP_NET_ADMIN too)");
  }
  if (auto kernel = check_kernel(); !kernel) return kernel;
  const std::string base = existing_part(root);
  struct statfs fs {};
  if (::statfs(base.c_str(), &fs) != 0) return fail_errno(errno, "look at the file system of " + base);
  if (fs.f_type != BPF_FS_MAGIC) {
    return fail(ErrorCode::kUnsupported, "pin below " + root + ": " + base +
                                             " is not on a bpffs (mount -t bpf bpf /sys/fs/bpf; in a container mount "
                                             "the host's /sys/fs/bpf)");
  }
  return {};
}

Result<void> make_folders(const std::string& root) {
  for (const std::string& folder : {root, root + "/maps", root + "/programs", root + "/links"}) {
    if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
      return fail_errno(errno,
                        "make " + folder + " (bpffs takes no dot in a name, and no folder above may be missing)");
    }
  }
  return {};
}

Result<bool> check_layout(const std::string& root) {
  const std::string path = root + "/maps/settings";
  bpf_map_info info{};
  auto map = open_map(path, info);
  if (!map) return Failure(map.error());
  if (!*map) return false;
  // Of whatever size another version's entry is: the layout version comes first in all of them.
  std::vector<std::uint32_t> entry(info.value_size / 4 + 1);
  const std::uint32_t zero = 0;
  if (info.key_size != sizeof zero || bpf_map_lookup_elem(map->get(), &zero, entry.data()) != 0) {
    return fail_errno(errno, "read the layout version from " + path);
  }
  if (entry[0] == 0) return false;
  if (entry[0] != WEFT_LAYOUT_VERSION) {
    return fail(ErrorCode::kUnsupported, "take over the maps below " + root + ": they have layout version " +
                                             std::to_string(entry[0]) + " of another weft-agent, this one has " +
                                             std::to_string(WEFT_LAYOUT_VERSION) +
                                             " (drain the node and remove that folder, or run that version)");
  }
  return true;
}

Result<std::uint32_t> pinned_size(const std::string& path) {
  bpf_map_info info{};
  auto map = open_map(path, info);
  if (!map) return Failure(map.error());
  return info.max_entries;
}

Result<void> replace_program(const std::string& root, const std::string& name, int program) {
  const std::string path = root + "/programs/" + name;
  const std::string fresh = path + "_new";
  ::unlink(fresh.c_str());  // of an agent that died here
  if (bpf_obj_pin(program, fresh.c_str()) != 0) return fail_errno(errno, "pin the program " + fresh);
  if (::rename(fresh.c_str(), path.c_str()) != 0) return fail_errno(errno, "replace the pinned program " + path);
  return {};
}

}  // namespace weft::bpf::pins
