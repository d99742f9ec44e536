// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "cni-plugin/json.h"
#include "tunnel/base/error.h"

/// Network configuration lists as text: what is not ours keeps every byte, so that taking the entry out again gives the
/// owner's file back. Pure functions.
namespace weft::cni::install {

inline constexpr const char* kPluginType = "weft-cni";
/// The key by which a list of ours is known; its value is the file that it follows.
inline constexpr const char* kFollowsKey = "weftFollows";

/// One network configuration list (.conflist), valid as libcni understands it.
class ConfList {
 public:
  /// Errors: kInvalid with the reason for which a runtime would refuse the text as well.
  static Result<ConfList> parse(std::string text);

  [[nodiscard]] const std::string& text() const { return text_; }
  /// The file that this list of ours follows; empty for a list of somebody else.
  [[nodiscard]] std::string follows() const { return text_member(document_, kFollowsKey); }
  [[nodiscard]] std::size_t own_entries() const;
  [[nodiscard]] bool has_plugin(std::string_view type) const;
  /// Whether the wanted entry is there, last, and the only one of ours.
  [[nodiscard]] bool has_entry(const Json& entry) const;
  /// Errors: kUnsupported when the plugin could not work in this list: a CNI version that it does not speak, or no
  /// other plugin before it.
  [[nodiscard]] Result<void> accepts_entry() const;

  /// The text with the entry last and no other one of ours; all else byte for byte as it was. Errors: kInternal when
  /// the result, parsed again, is not that (then nothing may be written).
  [[nodiscard]] Result<std::string> with_entry(const Json& entry) const;
  /// The text without any entry of ours. Errors: as with_entry.
  [[nodiscard]] Result<std::string> without_entry() const;

 private:
  ConfList(std::string text, Json document) : text_(std::move(text)), document_(std::move(document)) {}

  std::string text_;
  Json document_;
};

/// The name of the list that stands before the lone configuration `file`: runtimes take the first file by name, and
/// '-' sorts before '.'.
[[nodiscard]] std::string following_name(std::string_view file);
[[nodiscard]] bool is_following_name(std::string_view file);

/// A list of ours for the lone configuration `text` of `file` (one plugin, no list), with the entry behind it. Errors:
/// kInvalid for what a runtime refuses as well, kUnsupported for what cannot be chained.
Result<std::string> following_list(std::string_view file, std::string_view text, const Json& entry);
/// Errors: kInvalid for what a runtime would not take as a lone configuration.
Result<Json> parse_lone(std::string_view text);

}  // namespace weft::cni::install
