// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tunnel/base/error.h"

namespace weft::control {

/// One node of a parsed YAML document. Aliases share the node that they name, so a tree may be walked in far more steps
/// than it has nodes: whoever walks it counts.
struct YamlNode {
  enum class Kind : std::uint8_t { kNull, kScalar, kSequence, kMap } kind = Kind::kNull;
  bool plain = false;        ///< a scalar written without quotes, so that it may mean a number or a boolean
  int line = 0;              ///< from 1
  std::uint32_t height = 1;  ///< levels of this node and what is in it
  std::string scalar;
  std::vector<std::shared_ptr<const YamlNode>> items;  ///< of a sequence
  struct Entry;
  std::vector<Entry> entries;  ///< of a map, in the order of the text
};
using YamlNodePtr = std::shared_ptr<const YamlNode>;
struct YamlNode::Entry {
  YamlNodePtr key, value;
};

/// What a text may hold at most.
struct YamlLimits {
  std::size_t nodes = 2'000'000;
  std::size_t depth = 64;  ///< aliases followed, so that recursion over the tree is safe
};

/// Parses one YAML (or JSON) document; null for a text without one. A scalar or list with a tag of the document's own,
/// `!Exact x`, is the same as the map `{Exact: x}`. Errors: kInvalid `PATH:LINE: …` for bad syntax, a
/// second document, an alias to what encloses it, an anchor on such a tagged value, or more than `limits` allow.
Result<YamlNodePtr> parse_yaml(const std::string& path, std::string_view text, const YamlLimits& limits = {});

}  // namespace weft::control
