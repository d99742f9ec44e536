// SPDX-License-Identifier: Apache-2.0
#include "bpf/libbpf_log.h"

#include <bpf/libbpf.h>

#include <array>
#include <cstdarg>
#include <cstdio>

#include "tunnel/base/log.h"

namespace weft::bpf {
namespace {

// A verifier log may have megabytes; its end tells the reason.
constexpr std::size_t kMaxText = 8192;

thread_local std::string* current = nullptr;

int print(libbpf_print_level level, const char* format, std::va_list arguments) {
  if (level == LIBBPF_DEBUG) return 0;
  std::va_list again;
  va_copy(again, arguments);
  const int length = std::vsnprintf(nullptr, 0, format, again);
  va_end(again);
  if (length <= 0) return 0;
  std::string line(static_cast<std::size_t>(length) + 1, '\0');
  std::vsnprintf(line.data(), line.size(), format, arguments);
  line.pop_back();
  if (current != nullptr) {
    current->append(line);
  } else {
    while (!line.empty() && line.back() == '\n') line.pop_back();
    log::warn("libbpf message={}", log::quote(line));
  }
  return length;
}

}  // namespace

LibbpfLog::LibbpfLog() {
  libbpf_set_print(print);
  current = &lines_;
}

LibbpfLog::~LibbpfLog() { current = nullptr; }

std::string LibbpfLog::text() const {
  if (lines_.empty()) return {};
  std::string out = ": libbpf says: ";
  std::string_view rest = lines_;
  if (rest.size() > kMaxText) {
    out += "... ";
    rest.remove_prefix(rest.size() - kMaxText);
  }
  while (!rest.empty() && rest.back() == '\n') rest.remove_suffix(1);
  for (const char c : rest) {
    if (c == '\n') {
      out += "; ";
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace weft::bpf
