// SPDX-License-Identifier: Apache-2.0
#include "bpf/words.h"

#include <array>

#include "bpf/shared.h"

namespace weft::bpf {
namespace {

constexpr std::array<std::string_view, WEFT_PROGRAMS> kPrograms{"from_pod", "deliver", "to_pod", "to_pod_host",
                                                                "guard"};
constexpr std::array<std::string_view, WEFT_REASONS> kReasons{
#define WEFT_X(upper, lower, words) words,
    WEFT_PASS_REASONS(WEFT_X) WEFT_CAPTURE_REASONS(WEFT_X) WEFT_DROP_REASONS(WEFT_X)
#undef WEFT_X
};

}  // namespace

std::string_view program_name(std::size_t program) { return program < kPrograms.size() ? kPrograms[program] : ""; }

std::string_view reason_words(std::size_t reason) { return reason < kReasons.size() ? kReasons[reason] : ""; }

std::string_view verdict_of(std::size_t reason) {
  if (reason >= WEFT_REASONS) return "";
  if (reason >= WEFT_FIRST_DROP) return "drop";
  return reason >= WEFT_FIRST_CAPTURE ? "capture" : "pass";
}

}  // namespace weft::bpf
