// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/stat.h>

#include <string>
#include <vector>

#include "tunnel/base/error.h"

/// Files that other programs read at any moment: they see the old content or the new one, also after a power cut.
namespace weft::cni::install {

/// What every name of an unfinished file ends with. No runtime takes such a name for a configuration.
inline constexpr const char* kTemporarySuffix = ".weft-tmp";

struct FileText {
  std::string text;
  struct stat state = {};  ///< of the moment before the text was read
};

/// The names in a folder that are not folders, sorted bytewise as runtimes sort. Errors: of opendir(2).
Result<std::vector<std::string>> list_files(const std::string& folder);

/// A regular file, whole. Errors: of open(2) and read(2), kInvalid for more than 1 MiB and for what is no regular file.
Result<FileText> read_text(const std::string& path);

/// Puts `text` in the place of the file that `old` was read from, with that one's mode, owner and SELinux label; a
/// symbolic link stays and its target is replaced. Errors: kUnavailable when the file changed since `old` was read
/// (nothing is lost: the other's content stands), else of the system calls, and then nothing has changed.
Result<void> replace_text(const std::string& path, const std::string& text, const FileText& old);

/// Makes a file that is not there, or overwrites it, with mode and owner of `like`. Errors: of the system calls.
Result<void> write_text(const std::string& path, const std::string& text, const struct stat& like);

/// Removes a file and makes that last. A file that is not there is fine.
Result<void> remove_file(const std::string& path);

/// Copies the program at `from` to `to` unless it is there already, byte for byte and executable. True when it was
/// written. Errors: of the system calls; the old program stays then.
Result<bool> copy_program(const std::string& from, const std::string& to);

/// Removes what an earlier run that was killed left half-written. Never fails: there is the next time.
void remove_leftovers(const std::string& folder);

}  // namespace weft::cni::install
