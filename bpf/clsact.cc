// SPDX-License-Identifier: Apache-2.0
#include "bpf/clsact.h"

#include <bpf/libbpf.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <climits>
#include <string_view>

#include "bpf/libbpf_log.h"
#include "bpf/netns_scope.h"

namespace weft::bpf::clsact {
namespace {

// The first priority there is. Filters of one priority are told apart by the handle, and the newest runs first; the
// handle must be nobody else's (Cilium uses 1 with this priority), or we would replace theirs.
constexpr std::uint32_t kPriority = 1;
constexpr std::uint32_t kHandle = 0x77656674;  // "weft"

bpf_tc_hook hook_of(std::uint32_t ifindex, bool ingress) {
  bpf_tc_hook hook{};
  hook.sz = sizeof hook;
  hook.ifindex = static_cast<int>(ifindex);
  hook.attach_point = ingress ? BPF_TC_INGRESS : BPF_TC_EGRESS;
  return hook;
}

bpf_tc_opts filter_options() {
  bpf_tc_opts options{};
  options.sz = sizeof options;
  options.handle = kHandle;
  options.priority = kPriority;
  return options;
}

/// In the device's netns. 0 or a negative errno.
int put(std::uint32_t ifindex, bool ingress, int program) {
  bpf_tc_hook hook = hook_of(ifindex, ingress);
  const int created = bpf_tc_hook_create(&hook);
  if (created != 0 && created != -EEXIST) return created;
  bpf_tc_opts options = filter_options();
  options.prog_fd = program;
  options.flags = BPF_TC_F_REPLACE;
  return bpf_tc_attach(&hook, &options);
}

std::string text_of(const Record& r) {
  return "clsact:" + std::to_string(r.ifindex) + (r.ingress ? ":in:" : ":out:") + std::to_string(r.netns_inode) + ":" +
         r.netns_path;
}

std::string link_target(const std::string& path) {
  std::array<char, PATH_MAX> text{};
  const ssize_t length = ::readlink(path.c_str(), text.data(), text.size());
  return length > 0 ? std::string(text.data(), static_cast<std::size_t>(length)) : std::string();
}

Result<Record> record_of(const Place& place) {
  Record record{place.ifindex, place.hook->ingress, 0, {}};
  if (place.netns < 0) return record;
  struct stat st {};
  if (::fstat(place.netns, &st) != 0) return fail_errno(errno, "look at the pod's netns descriptor");
  record.netns_inode = st.st_ino;
  record.netns_path = link_target("/proc/self/fd/" + std::to_string(place.netns));
  return record;
}

/// Into the netns of a record. kNotFound: it is gone, or cannot be found again.
Result<NetnsScope> enter_netns(const Record& record) {
  if (record.netns_inode == 0) return NetnsScope::enter(-1);
  const Fd netns(::open(record.netns_path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat st {};
  if (!netns || ::fstat(netns.get(), &st) != 0 || st.st_ino != record.netns_inode) {
    return fail(ErrorCode::kNotFound, "the netns of a filter is not at " + record.netns_path + " any more");
  }
  return NetnsScope::enter(netns.get());
}

bool is_gone(int error) { return error == -ENOENT || error == -ENODEV || error == -EINVAL; }

/// The program in our filter of a device of this netns; 0: there is none.
Result<std::uint32_t> query(std::uint32_t ifindex, bool ingress) {
  const LibbpfLog log;
  const bpf_tc_hook hook = hook_of(ifindex, ingress);
  bpf_tc_opts options = filter_options();
  if (const int error = bpf_tc_query(&hook, &options); error != 0) {
    if (is_gone(error)) return 0U;
    return fail_errno(-error, "ask for the filter on ifindex " + std::to_string(ifindex) + log.text());
  }
  return options.prog_id;
}

}  // namespace

std::optional<Record> read_record(const std::string& pin) {
  const std::string text = link_target(pin);
  std::string_view rest = text;
  const auto take = [&rest] {
    const auto colon = rest.find(':');
    const std::string_view field = rest.substr(0, colon);
    rest.remove_prefix(colon == std::string_view::npos ? rest.size() : colon + 1);
    return field;
  };
  const auto number = [](std::string_view field, auto& into) {
    const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), into);
    return error == std::errc() && end == field.data() + field.size();
  };
  Record record;
  if (take() != "clsact" || !number(take(), record.ifindex)) return std::nullopt;
  record.ingress = take() == "in";
  if (!number(take(), record.netns_inode)) return std::nullopt;
  record.netns_path = rest;
  return record;
}

Result<void> attach(const Place& place, int program) {
  auto record = record_of(place);
  if (!record) return Failure(record.error());
  {
    auto scope = NetnsScope::enter(place.netns);
    if (!scope) return Failure(scope.error());
    const LibbpfLog log;
    if (const int error = put(place.ifindex, place.hook->ingress, program); error != 0) {
      return fail_errno(-error, "attach " + place.text() + " by clsact (does the device exist?)" + log.text());
    }
  }
  const auto known = read_record(place.pin);
  if (known && known->ifindex == record->ifindex && known->netns_inode == record->netns_inode) return {};
  ::unlink(place.pin.c_str());
  if (::symlink(text_of(*record).c_str(), place.pin.c_str()) != 0) {
    return fail_errno(errno, "record " + place.text() + " at " + place.pin);
  }
  return {};
}

Result<void> detach(const std::string& pin, const Record& record) {
  {
    auto scope = enter_netns(record);
    if (!scope && scope.error().code != ErrorCode::kNotFound) return Failure(scope.error());
    const LibbpfLog log;
    const bpf_tc_hook hook = hook_of(record.ifindex, record.ingress);
    const bpf_tc_opts options = filter_options();
    if (const int error = scope ? bpf_tc_detach(&hook, &options) : 0; error != 0 && !is_gone(error)) {
      return fail_errno(-error, "take the filter off ifindex " + std::to_string(record.ifindex) + log.text());
    }
  }
  if (::unlink(pin.c_str()) != 0 && errno != ENOENT) return fail_errno(errno, "remove " + pin);
  return {};
}

Result<void> update(const Record& record, int program, const Hook& hook) {
  auto scope = enter_netns(record);
  if (!scope) return Failure(scope.error());
  const LibbpfLog log;
  if (const int error = put(record.ifindex, record.ingress, program); error != 0) {
    const std::string text = std::string("update ") + hook.name + " on ifindex " + std::to_string(record.ifindex);
    if (is_gone(error)) return fail(ErrorCode::kNotFound, text + ": the device is gone");
    return fail_errno(-error, text + log.text());
  }
  return {};
}

Result<bool> is_there(const Record& record) {
  auto scope = enter_netns(record);
  if (!scope && scope.error().code == ErrorCode::kNotFound) return false;
  if (!scope) return Failure(scope.error());
  auto id = query(record.ifindex, record.ingress);
  if (!id) return Failure(id.error());
  return *id != 0;
}

Result<std::uint32_t> program_id(const Place& place) {
  auto scope = NetnsScope::enter(place.netns);
  if (!scope) return Failure(scope.error());
  return query(place.ifindex, place.hook->ingress);
}

}  // namespace weft::bpf::clsact
