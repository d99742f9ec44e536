// SPDX-License-Identifier: Apache-2.0
#include "bpf/attach.h"

#include <bpf/bpf.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>

#include "bpf/clsact.h"
#include "bpf/hook.h"
#include "bpf/tcx.h"
#include "tunnel/base/fault.h"

namespace weft::bpf {
namespace {

constexpr std::uint32_t kLoopbackIfindex = 1;
/// Of the pin of a link that is about to take a filter's place. bpffs takes no dot.
constexpr const char* kBesideSuffix = "_beside";

std::string folder_of(const std::string& root, const std::string& attachment) { return root + "/links/" + attachment; }

struct Program {
  Fd fd;
  std::uint32_t id = 0;
};

Result<Program> open_program(const std::string& root, const Hook& hook) {
  const std::string path = root + "/programs/" + hook.name;
  Program program;
  program.fd.reset(bpf_obj_get(path.c_str()));
  if (!program.fd)
    return fail_errno(errno, "open the program pinned at " + path + " (has weft-agent run on this node?)");
  bpf_prog_info info{};
  std::uint32_t length = sizeof info;
  if (bpf_obj_get_info_by_fd(program.fd.get(), &info, &length) != 0) {
    return fail_errno(errno, "ask the kernel about the program pinned at " + path);
  }
  program.id = info.id;
  return program;
}

std::vector<Place> places_of(const Target& target) {
  std::vector<Place> places;
  for (const Hook& hook : kHooks) {
    Place place{&hook, folder_of(target.root, target.attachment) + "/" + hook.name, target.ifindex, target.pod_netns};
    if (hook.side == Side::kPodLoopback) place.ifindex = kLoopbackIfindex;
    if (hook.side == Side::kHost) {
      if (target.host_ifindex == 0) continue;
      place.ifindex = target.host_ifindex;
      place.netns = -1;
    }
    places.push_back(std::move(place));
  }
  return places;
}

Result<std::vector<std::string>> entries_of(const std::string& folder) {
  std::vector<std::string> names;
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(folder.c_str()), ::closedir);
  if (!dir) {
    if (errno == ENOENT) return names;
    return fail_errno(errno, "list " + folder);
  }
  while (const dirent* entry = ::readdir(dir.get())) {
    if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
  }
  std::ranges::sort(names);
  return names;
}

/// One call at a time works on an attachment: the plugin and the agent's reconciliation may meet. The lock is on the
/// folder of its pins and ends with the descriptor.
Result<Fd> lock_folder(const std::string& folder) {
  for (;;) {
    Fd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd) return fail_errno(errno, "open " + folder);
    if (::flock(fd.get(), LOCK_EX) != 0) {
      if (errno == EINTR) continue;
      return fail_errno(errno, "lock " + folder);
    }
    // Whoever had it before may have removed the folder, and another may have made it anew.
    struct stat locked {
    }, now{};
    if (::fstat(fd.get(), &locked) == 0 && ::stat(folder.c_str(), &now) == 0 && locked.st_ino == now.st_ino) return fd;
    if (errno == ENOENT) return fail_errno(ENOENT, "open " + folder);
  }
}

/// The folder, made where it is missing, and locked.
Result<Fd> make_and_lock_folder(const std::string& folder) {
  for (;;) {
    if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
      return fail_errno(errno, "make " + folder + " (is bpffs mounted there, and has weft-agent run on this node?)");
    }
    auto locked = lock_folder(folder);
    if (locked || locked.error().errno_value != ENOENT) return locked;
  }
}

bool is_missing(const Error& error) { return error.errno_value == ENOENT || error.errno_value == ENOTDIR; }

/// The pins of the other attachments of the same pod for the same hook. The pod's lo is one for all of them: they share
/// what is attached there.
std::vector<std::string> shared_pins(const std::string& pin) {
  const auto slash = pin.rfind('/');
  const std::string folder = pin.substr(0, slash), name = kHooks.front().name;
  if (!pin.substr(slash + 1).starts_with(name)) return {};
  const auto parent_end = folder.rfind('/');
  const std::string parent = folder.substr(0, parent_end), own = folder.substr(parent_end + 1);
  const std::string pod = own.substr(0, own.find('-') + 1);  // attachment_id() has one '-', behind the container
  std::vector<std::string> pins;
  auto entries = entries_of(parent);
  if (!entries) return pins;
  for (const std::string& entry : *entries) {
    if (entry != own && entry.starts_with(pod)) pins.push_back(parent + "/" + entry + "/" + name);
  }
  return pins;
}

Result<void> remove_pin(const std::string& pin) {
  if (::unlink(pin.c_str()) != 0 && errno != ENOENT) return fail_errno(errno, "remove the pin " + pin);
  return {};
}

/// Takes a link off its device at once: without its pin alone it would stay for a moment, and refuse a new one. A link
/// that another attachment shares stays.
Result<void> remove_link(const std::string& pin) {
  auto link = tcx::open(pin);
  if (!link) return Failure(link.error());
  bool shared = false;
  for (const std::string& other : *link ? shared_pins(pin) : std::vector<std::string>()) {
    auto theirs = tcx::open(other);
    shared = shared || (theirs && *theirs && (*theirs)->id == (*link)->id);
  }
  if (*link && !shared) {
    if (auto done = tcx::detach(**link, pin); !done) return done;
  }
  return remove_pin(pin);
}

Result<void> detach_pin(const std::string& pin) {
  const auto record = clsact::read_record(pin);
  if (!record) return remove_link(pin);
  for (const std::string& other : shared_pins(pin)) {
    const auto theirs = clsact::read_record(other);
    if (theirs && theirs->netns_inode == record->netns_inode) return remove_pin(pin);
  }
  return clsact::detach(pin, *record);
}

/// Pins the link of another attachment of the pod here too. False: there is none.
Result<bool> share_link(const Place& place, const Program& program) {
  for (const std::string& other : shared_pins(place.pin)) {
    if (clsact::read_record(other)) continue;
    auto link = tcx::open(other);
    if (!link) return Failure(link.error());
    if (!*link || (*link)->ifindex != place.ifindex) continue;
    if ((*link)->program_id != program.id) {
      if (auto updated = tcx::update(**link, program.fd.get(), place); !updated) return Failure(updated.error());
    }
    if (bpf_obj_pin((*link)->fd.get(), place.pin.c_str()) != 0) {
      return fail_errno(errno, "pin " + place.text() + " at " + place.pin + " as well as at " + other);
    }
    return true;
  }
  return false;
}

/// True: the hook was not attached before.
Result<bool> attach_hook(const Place& place, const Program& program, bool as_filters) {
  const auto record = clsact::read_record(place.pin);
  if (!record) {
    auto link = tcx::open(place.pin);
    if (!link) return Failure(link.error());
    if (*link && (*link)->ifindex == place.ifindex) {
      if ((*link)->program_id == program.id) return false;
      auto updated = tcx::update(**link, program.fd.get(), place);
      if (updated) return false;
      if (updated.error().code != ErrorCode::kNotFound) return Failure(updated.error());
    }
    if (*link) {
      if (auto removed = remove_link(place.pin); !removed) return Failure(removed.error());
    }
    auto shared = share_link(place, program);
    if (!shared || *shared) return shared;
    if (!as_filters) {
      auto created = tcx::create(place, program.fd.get());
      if (!created || *created) return created;
    }
  }
  if (auto put = clsact::attach(place, program.fd.get()); !put) {
    if (record || !as_filters) return Failure(put.error());
    auto created = tcx::create(place, program.fd.get());
    if (!created || *created) return created;
    return Failure(put.error());
  }
  return !record || record->ifindex != place.ifindex;
}

/// Of a hook that has a filter. While the kernel makes the link, for milliseconds, both run. to_pod would take the
/// record of a probe the first time and refuse the probe the second: its link begins with `idle`, which does nothing
/// there, and gets the program at the moment when the filter goes. False: the kernel has no TCX.
Result<bool> promote_hook(const Place& place, const Program& program, const Program& idle) {
  // Beside the filter first. What a promotion that was killed has left there is taken up.
  Place beside = place;
  beside.pin += kBesideSuffix;
  auto link = tcx::open(beside.pin);
  if (!link) return Failure(link.error());
  if (!*link) {
    auto made = share_link(beside, program);
    const bool takes_probes = place.hook->side == Side::kPodInterface && place.hook->ingress;
    if (made && !*made) made = tcx::create(beside, (takes_probes ? idle : program).fd.get());
    if (!made || !*made) return made;
    link = tcx::open(beside.pin);
    if (!link) return Failure(link.error());
  }
  if (*link && (*link)->program_id != program.id) {
    if (auto updated = tcx::update(**link, program.fd.get(), place); !updated) return Failure(updated.error());
  }
  if (auto off = detach_pin(place.pin); !off) return Failure(off.error());
  if (::rename(beside.pin.c_str(), place.pin.c_str()) != 0) {
    return fail_errno(errno, "rename " + beside.pin + " to " + place.pin);
  }
  return true;
}

/// What is wrong with a hook, empty if nothing is.
Result<std::string> check_hook(const Place& place, std::uint32_t program) {
  const std::string text = place.text();
  if (clsact::read_record(place.pin)) {
    auto found = clsact::program_id(place);
    if (!found) return Failure(found.error());
    if (*found == 0) return text + ": the filter is gone (was the clsact qdisc deleted?)";
    if (*found != program) return text + ": runs another program than the pinned one";
    return std::string();
  }
  auto link = tcx::open(place.pin);
  if (!link) return Failure(link.error());
  if (!*link) return text + ": not attached";
  if ((*link)->ifindex == 0) return text + ": the device that it was attached to is gone";
  if ((*link)->ifindex != place.ifindex) return text + ": sits on ifindex " + std::to_string((*link)->ifindex);
  if ((*link)->program_id != program) return text + ": runs another program than the pinned one";
  return std::string();
}

/// What keeps a pinned hook from the program, empty if nothing does.
std::string refresh_hook(const std::string& root, const Hook& hook, const std::string& pin) {
  auto program = open_program(root, hook);
  if (!program) return program.error().message();
  Result<void> done;
  if (const auto record = clsact::read_record(pin)) {
    done = clsact::update(*record, program->fd.get(), hook);
    return done ? std::string() : done.error().message();
  }
  auto link = tcx::open(pin);
  if (!link) return link.error().message();
  if (!*link) return {};
  const Place place{&hook, pin, (*link)->ifindex, -1};
  if (place.ifindex != 0) {
    if ((*link)->program_id == program->id) return {};
    done = tcx::update(**link, program->fd.get(), place);
    if (done) return {};
    if (done.error().code != ErrorCode::kNotFound) return done.error().message();
  }
  done = remove_pin(pin);
  return done ? std::string() : done.error().message();
}

}  // namespace

std::string attachment_id(const std::string& container_id, const std::string& if_name) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out;
  const auto append = [&out, kDigits](const std::string& part) {
    for (const char c : part) {
      if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')) {
        out += c;
      } else {
        const auto byte = static_cast<unsigned char>(c);
        out += {'_', kDigits[byte >> 4U], kDigits[byte & 15U]};
      }
    }
  };
  append(container_id);
  out += '-';
  append(if_name);
  return out;
}

Result<void> attach(const Target& target) {
  const std::string folder = folder_of(target.root, target.attachment);
  const auto lock = make_and_lock_folder(folder);
  if (!lock) return Failure(lock.error());
  std::vector<std::string> created;
  Result<void> result;
  for (const Place& place : places_of(target)) {
    auto program = open_program(target.root, *place.hook);
    if (!program) {
      result = Failure(program.error());
      break;
    }
    auto attached = fault_at(place.hook->name) ? Result<bool>(fail_errno(ENOSPC, "attach " + place.text()))
                                               : attach_hook(place, *program, target.as_filters);
    if (!attached) {
      result = Failure(attached.error());
      break;
    }
    if (*attached) created.push_back(place.pin);
  }
  if (!result) {
    for (const std::string& pin : created) {
      if (auto undone = detach_pin(pin); !undone) result.error().context += "; and " + undone.error().message();
    }
    ::rmdir(folder.c_str());  // stays if older hooks are in it
  }
  return result;
}

Result<bool> promote(const Target& target) {
  const auto lock = lock_folder(folder_of(target.root, target.attachment));
  if (!lock) return Failure(lock.error());
  // deliver looks at marked packets only, and none that comes into the pod has a mark.
  auto idle = open_program(target.root, kHooks.front());
  if (!idle) return Failure(idle.error());
  bool promoted = false;
  for (const Place& place : places_of(target)) {
    if (!clsact::read_record(place.pin)) continue;
    auto program = open_program(target.root, *place.hook);
    if (!program) return Failure(program.error());
    auto done = promote_hook(place, *program, *idle);
    if (!done) return done;
    promoted = promoted || *done;
  }
  return promoted;
}

Result<void> detach(const std::string& root, const std::string& attachment) {
  const std::string folder = folder_of(root, attachment);
  const auto lock = lock_folder(folder);
  if (!lock && is_missing(lock.error())) return {};
  if (!lock) return Failure(lock.error());
  auto pins = entries_of(folder);
  if (!pins) return Failure(pins.error());
  for (const std::string& name : *pins) {
    if (auto done = detach_pin(folder + "/" + name); !done) return done;
  }
  if (::rmdir(folder.c_str()) != 0 && errno != ENOENT) return fail_errno(errno, "remove " + folder);
  return {};
}

Result<std::vector<std::string>> verify(const Target& target) {
  // A promotion that is under way has taken the filter and not yet put the link in its place.
  const auto lock = lock_folder(folder_of(target.root, target.attachment));
  if (!lock && !is_missing(lock.error())) return Failure(lock.error());
  std::vector<std::string> wrong;
  for (const Place& place : places_of(target)) {
    auto program = open_program(target.root, *place.hook);
    if (!program) return Failure(program.error());
    auto text = check_hook(place, program->id);
    if (!text) return Failure(text.error());
    if (!text->empty()) wrong.push_back(std::move(*text));
  }
  return wrong;
}

Result<std::vector<std::string>> refresh(const std::string& root) {
  auto names = attachments(root);
  if (!names) return Failure(names.error());
  std::vector<std::string> wrong;
  for (const std::string& name : *names) {
    for (const Hook& hook : kHooks) {
      std::string text = refresh_hook(root, hook, folder_of(root, name) + "/" + hook.name);
      if (!text.empty()) wrong.push_back(name + ": " + text);
    }
  }
  return wrong;
}

Result<bool> is_alive(const std::string& root, const std::string& attachment) {
  const std::string folder = folder_of(root, attachment);
  const auto lock = lock_folder(folder);
  if (!lock && is_missing(lock.error())) return false;
  if (!lock) return Failure(lock.error());
  for (const Hook& hook : kHooks) {
    const std::string pin = folder + "/" + hook.name;
    if (const auto record = clsact::read_record(pin)) {
      auto there = clsact::is_there(*record);
      if (!there || *there) return there;
      continue;
    }
    auto link = tcx::open(pin);
    if (!link) return Failure(link.error());
    if (*link && (*link)->ifindex != 0) return true;
  }
  return false;
}

Result<std::vector<std::string>> attachments(const std::string& root) { return entries_of(root + "/links"); }

}  // namespace weft::bpf
