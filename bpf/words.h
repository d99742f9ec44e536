// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string_view>

/// The names of what shared.h numbers. "" for numbers that it does not have.
namespace weft::bpf {

[[nodiscard]] std::string_view program_name(std::size_t program);  ///< of enum weft_program
[[nodiscard]] std::string_view reason_words(std::size_t reason);   ///< of enum weft_reason
[[nodiscard]] std::string_view verdict_of(std::size_t reason);     ///< "pass", "capture" or "drop"

}  // namespace weft::bpf
