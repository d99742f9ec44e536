// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "bpf/hook.h"
#include "tunnel/base/error.h"

/// Filters of the clsact qdisc, for kernels without TCX. A filter belongs to its device and has nothing to pin, so a
/// symbolic link at the pin's place records where it is; bpffs takes any text as the target, and it leads nowhere.
namespace weft::bpf::clsact {

/// "clsact:IFINDEX:in|out:NETNS_INODE:NETNS_PATH"; inode 0 and no path: the host's netns.
struct Record {
  std::uint32_t ifindex = 0;
  bool ingress = false;
  std::uint64_t netns_inode = 0;
  std::string netns_path;
};

/// Empty when `pin` is no record.
std::optional<Record> read_record(const std::string& pin);

/// Puts the filter first on the device, or its program into the filter that is there, and writes the record if it is
/// missing or another's. The qdisc is made if there is none and never taken away: others may use it.
Result<void> attach(const Place& place, int program);
/// Takes off a recorded filter if device and netns still exist, and the record.
Result<void> detach(const std::string& pin, const Record& record);
/// Puts another program into a recorded filter. kNotFound: device or netns are gone, or the netns cannot be found
/// again.
Result<void> update(const Record& record, int program, const Hook& hook);
/// Whether netns, device and filter of a record still exist.
Result<bool> is_there(const Record& record);
/// The program in the filter; 0: there is no filter.
Result<std::uint32_t> program_id(const Place& place);

}  // namespace weft::bpf::clsact
