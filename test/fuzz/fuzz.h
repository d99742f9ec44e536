// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "tunnel/base/error.h"

/// What the fuzz targets share (CONTRIBUTING.md, "Fuzzing"). A target is one file that defines one_input().
namespace weft::fuzz {

/// Does all that there is to do with one input. Ends the process where a property does not hold.
void one_input(std::string_view input);

/// Says which property is broken and by what, and ends the process: libFuzzer keeps the input then.
[[noreturn]] void broken(const char* property, std::string_view found);
inline void require(bool holds, const char* property, std::string_view found = {}) {
  if (!holds) broken(property, found);
}

/// What every text for people must be that something refused is answered with: it names `subject`, is one line of
/// printable text, and stays short whatever the input was.
inline constexpr std::size_t kMaxErrorText = 1024;
void require_text(std::string_view text, std::string_view subject = {});
void require_error(const Error& error, std::string_view subject = {});

/// Whether it has bytes from 0x20 to 0x7e alone.
[[nodiscard]] bool is_printable(std::string_view text);

/// Cuts the text up to the next newline, or its end, off the front of `rest`.
[[nodiscard]] std::string_view take_line(std::string_view& rest);
/// Cuts one byte off the front; 0 where there is none.
[[nodiscard]] std::uint8_t take_byte(std::string_view& rest);

}  // namespace weft::fuzz
