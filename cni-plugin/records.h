// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "cni-plugin/registration.h"
#include "tunnel/base/error.h"

/// Which network each attachment belongs to. GC names the valid attachments of one network, and a node may have several
/// lists with weft-cni in them: without this, GC of one would take the other's pods out of the mesh.
///
/// Kept as symbolic links below ROOT/records (bpffs has those, and no files), so that they come and go with the pins:
/// the name is bpf::attachment_id(), the target `NETWORK CONTAINERID IFNAME`. Safe between processes: each record is
/// made and removed by one system call.
namespace weft::cni {

struct Record {
  std::string network;
  AttachmentKey key;
  bool operator==(const Record&) const = default;
};

/// True when the record was made, false when an equal one was there already. One of another network is replaced.
Result<bool> write_record(const std::string& root, const Record& record);
/// Never fails because it is already gone.
Result<void> remove_record(const std::string& root, const AttachmentKey& key);
[[nodiscard]] bool has_record(const std::string& root, const AttachmentKey& key);
/// Whether another interface of the same container has one: it shares the netns.
[[nodiscard]] bool has_sibling(const std::string& root, const AttachmentKey& key);
/// All of them; none where the root does not exist. Links that are no records are left out.
Result<std::vector<Record>> read_records(const std::string& root);

}  // namespace weft::cni
