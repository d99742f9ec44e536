// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/records.h"

#include <dirent.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <optional>
#include <sstream>

#include "bpf/attach.h"

namespace weft::cni {
namespace {

std::string folder(const std::string& root) { return root + "/records"; }

std::string path_of(const std::string& root, const AttachmentKey& key) {
  return folder(root) + "/" + bpf::attachment_id(key.container_id, key.if_name);
}

std::optional<std::string> read_link(const std::string& path) {
  char target[PATH_MAX];
  const ssize_t length = ::readlink(path.c_str(), target, sizeof target);
  if (length < 0) return {};
  return std::string(target, static_cast<std::size_t>(length));
}

std::string text_of(const Record& record) {
  return record.network + " " + record.key.container_id + " " + record.key.if_name;
}

std::optional<Record> parse_record(const std::string& text) {
  std::istringstream words(text);
  Record record;
  if (!(words >> record.network >> record.key.container_id >> record.key.if_name)) return {};
  return record;
}

struct DirCloser {
  void operator()(DIR* dir) const { ::closedir(dir); }
};

}  // namespace

Result<bool> write_record(const std::string& root, const Record& record) {
  const std::string path = path_of(root, record.key);
  const std::string what = "record the attachment as " + path;
  if (::mkdir(folder(root).c_str(), 0700) < 0 && errno != EEXIST) {
    return fail_errno(errno, what + " (did weft-agent make " + root + "?)");
  }
  const std::string text = text_of(record);
  if (::symlink(text.c_str(), path.c_str()) == 0) return true;
  if (errno != EEXIST) return fail_errno(errno, what);
  if (read_link(path) == text) return false;
  if (::unlink(path.c_str()) < 0 && errno != ENOENT) return fail_errno(errno, what);
  if (::symlink(text.c_str(), path.c_str()) < 0) return fail_errno(errno, what);
  return true;
}

Result<void> remove_record(const std::string& root, const AttachmentKey& key) {
  const std::string path = path_of(root, key);
  if (::unlink(path.c_str()) < 0 && errno != ENOENT && errno != ENOTDIR) return fail_errno(errno, "remove " + path);
  return {};
}

bool has_record(const std::string& root, const AttachmentKey& key) { return read_link(path_of(root, key)).has_value(); }

bool has_sibling(const std::string& root, const AttachmentKey& key) {
  const std::string own = bpf::attachment_id(key.container_id, key.if_name);
  const std::string container = bpf::attachment_id(key.container_id, {});
  const std::unique_ptr<DIR, DirCloser> dir(::opendir(folder(root).c_str()));
  while (const dirent* entry = dir == nullptr ? nullptr : ::readdir(dir.get())) {
    const std::string_view name = entry->d_name;
    if (name.starts_with(container) && name != own) return true;
  }
  return false;
}

Result<std::vector<Record>> read_records(const std::string& root) {
  std::vector<Record> records;
  const std::unique_ptr<DIR, DirCloser> dir(::opendir(folder(root).c_str()));
  if (dir == nullptr) {
    if (errno == ENOENT || errno == ENOTDIR) return records;
    return fail_errno(errno, "list " + folder(root));
  }
  errno = 0;
  while (const dirent* entry = ::readdir(dir.get())) {
    const auto text = read_link(folder(root) + "/" + entry->d_name);
    auto record = text ? parse_record(*text) : std::optional<Record>();
    if (record) records.push_back(std::move(*record));
    errno = 0;
  }
  if (errno != 0) return fail_errno(errno, "list " + folder(root));
  return records;
}

}  // namespace weft::cni
