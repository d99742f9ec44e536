// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace weft::bpf {

/// Collects what libbpf says on this thread while it lives, so that an error text can hold it. At most one a thread.
class LibbpfLog {
 public:
  LibbpfLog();
  ~LibbpfLog();
  LibbpfLog(const LibbpfLog&) = delete;
  LibbpfLog& operator=(const LibbpfLog&) = delete;

  /// ": libbpf says: LINES" with the lines joined by "; ", or nothing where libbpf was silent.
  [[nodiscard]] std::string text() const;

 private:
  std::string lines_;
};

}  // namespace weft::bpf
