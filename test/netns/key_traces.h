// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace weft::test {

/// What betrays private keys: the one in a file, in every form in which programs keep it, and any P-256 key at all as
/// PEM or DER.
class KeyTraces {
 public:
  /// Throws TestError where the file holds no P-256 key.
  explicit KeyTraces(const std::string& key_path);

  struct Found {
    int locked = 0;  ///< in memory that is locked and in no dump
    std::vector<std::string> in_the_open;
  };
  /// In the memory of a process of which the test may see everything.
  [[nodiscard]] Found find_in(pid_t pid) const;
  /// How often in a text, such as a log.
  [[nodiscard]] int find_in_text(const std::string& text) const;

 private:
  struct Trace {
    std::string what, bytes;
  };
  std::vector<Trace> in_memory_, in_text_;
};

}  // namespace weft::test
