// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace weft::cni::install {

/// A part of a text, [begin, end).
struct Span {
  std::size_t begin = 0;
  std::size_t end = 0;
  [[nodiscard]] std::string_view of(std::string_view text) const { return text.substr(begin, end - begin); }
};

/// Where the elements of the top-level array `plugins` stand in a text that is known to be a JSON object; those of all
/// of them when the key is there several times.
[[nodiscard]] std::vector<Span> plugins_of(std::string_view text);

}  // namespace weft::cni::install
