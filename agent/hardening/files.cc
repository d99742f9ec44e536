// SPDX-License-Identifier: Apache-2.0
#include "agent/hardening/files.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "tunnel/base/log.h"

namespace weft::agent::hardening {
namespace {

constexpr mode_t kOthersWrite = S_IWGRP | S_IWOTH;
constexpr mode_t kOthers = S_IRWXG | S_IRWXO;

std::string octal(mode_t mode) {
  char text[8];
  std::snprintf(text, sizeof text, "%04o", static_cast<unsigned>(mode & 07777));
  return text;
}

std::string belongs_to(uid_t uid) { return "it belongs to uid " + std::to_string(uid); }
std::string may_be_written(mode_t mode) { return "its group or others may write to it: mode " + octal(mode); }

}  // namespace

Result<void> close_folder(const std::string& path) {
  struct stat st {};
  if (::stat(path.c_str(), &st) < 0) {
    if (errno == ENOENT) return {};
    return fail_errno(errno, "look at " + path);
  }
  if (!S_ISDIR(st.st_mode)) return fail_errno(ENOTDIR, "use the folder " + path);
  std::string open;
  if (st.st_uid != ::geteuid()) {
    open = belongs_to(st.st_uid);
  } else if ((st.st_mode & kOthersWrite) != 0) {
    open = may_be_written(st.st_mode);
  }
  if (!open.empty()) {
    return fail(ErrorCode::kDenied, "use the folder " + path + ": " + open +
                                        ", so what lies there may not be this agent's (look at it, then chown root and "
                                        "chmod 0700)");
  }
  if ((st.st_mode & kOthers) == 0) return {};
  if (::chmod(path.c_str(), 0700) < 0) return fail_errno(errno, "chmod 0700 " + path);
  log::warn("folder was open to others, closed path={} mode={}", path, octal(st.st_mode));
  return {};
}

std::string who_could_write(const std::string& path) {
  struct stat st {};
  if (::stat(path.c_str(), &st) < 0) return {};
  if (st.st_uid != 0 && st.st_uid != ::geteuid()) return belongs_to(st.st_uid);
  // In a folder with the sticky bit others may make files of their own, but not touch what is there.
  const bool sticky = S_ISDIR(st.st_mode) && (st.st_mode & S_ISVTX) != 0;
  if ((st.st_mode & kOthersWrite) != 0 && !sticky) return may_be_written(st.st_mode);
  return {};
}

}  // namespace weft::agent::hardening
