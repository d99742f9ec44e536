// SPDX-License-Identifier: Apache-2.0
#include "agent/text_file.h"

#include <cerrno>
#include <fstream>
#include <sstream>

namespace weft::agent {

Result<std::string> read_text_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail_errno(errno, "open " + path);
  std::ostringstream text;
  text << file.rdbuf();
  if (file.bad()) return fail_errno(EIO, "read " + path);
  return text.str();
}

}  // namespace weft::agent
