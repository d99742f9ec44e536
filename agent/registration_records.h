// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "agent/attachment.h"
#include "tunnel/base/error.h"

namespace weft::agent {

/// The registrations on disk, one JSON file each in RUN/registrations, so that a restarted agent takes its pods up
/// again. RUN is on a tmpfs that a reboot clears; a record of another boot is dropped all the same. Not thread-safe.
class RegistrationRecords {
 public:
  /// Makes the directory, mode 0700. Errors: errno of the directory that cannot be made.
  static Result<RegistrationRecords> open(const std::string& run_dir);

  struct Loaded {
    std::vector<Registration> registrations;
    std::vector<std::string> problems;  ///< one text for each file that was put aside, for the log
  };
  /// All records. A file that cannot be understood is renamed to *.bad and named in `problems`; one of another boot is
  /// deleted.
  Result<Loaded> load() const;
  /// Writes one through a temporary file and a rename.
  Result<void> save(const Registration& registration) const;
  /// No error where there is none.
  Result<void> remove(const cni::AttachmentKey& key) const;

 private:
  explicit RegistrationRecords(std::string directory) : directory_(std::move(directory)) {}
  [[nodiscard]] std::string path_of(const cni::AttachmentKey& key) const;
  std::string directory_;
};

/// The text of a record and back; parse errors name the field.
[[nodiscard]] std::string encode_record(const Registration& registration, const std::string& boot_id);
struct ParsedRecord {
  Registration registration;
  std::string boot_id;
};
Result<ParsedRecord> parse_record(const std::string& text);

}  // namespace weft::agent
