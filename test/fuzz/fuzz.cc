// SPDX-License-Identifier: Apache-2.0
#include "test/fuzz/fuzz.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "tunnel/base/log.h"

namespace weft::fuzz {

void broken(const char* property, std::string_view found) {
  std::fprintf(stderr, "broken property: %s\nby: %s\n", property, log::quote(found.substr(0, 4096)).c_str());
  std::abort();
}

bool is_printable(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return c >= ' ' && c <= '~'; });
}

void require_text(std::string_view text, std::string_view subject) {
  require(!text.empty(), "a refusal has a text");
  require(text.size() <= kMaxErrorText, "a refusal's text is short", text);
  // What is no ASCII may be a name of the user's.
  require(std::ranges::none_of(text, [](unsigned char c) { return c < ' ' || c == 0x7f; }),
          "a refusal's text is one line without control characters", text);
  require(text.find(subject) != std::string_view::npos, "a refusal names its subject", text);
}

void require_error(const Error& error, std::string_view subject) { require_text(error.message(), subject); }

std::string_view take_line(std::string_view& rest) {
  const std::string_view line = rest.substr(0, rest.find('\n'));
  rest.remove_prefix(std::min(line.size() + 1, rest.size()));
  return line;
}

std::uint8_t take_byte(std::string_view& rest) {
  if (rest.empty()) return 0;
  const auto byte = static_cast<std::uint8_t>(rest.front());
  rest.remove_prefix(1);
  return byte;
}

}  // namespace weft::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  weft::fuzz::one_input({reinterpret_cast<const char*>(data), size});
  return 0;
}

// What the code under test logs says nothing here.
extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  if (auto quiet = weft::log::init("off", weft::log::Format::kText, "/dev/null"); !quiet) std::abort();
  return 0;
}
