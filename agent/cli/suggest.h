// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace CLI {
class App;
}

namespace weft::cli {

/// The word of `known` that `word` was most likely meant to be: the one with the fewest changed letters, or that it
/// begins; none where all are too far off.
[[nodiscard]] std::optional<std::string> nearest(std::string_view word, const std::vector<std::string>& known);

/// What is wrong with the words of a command line, in words: a sub-command or an option that does not exist, with the
/// nearest that does. Empty where it is something else.
[[nodiscard]] std::string unknown_word(const CLI::App& app, const std::vector<std::string>& arguments);

}  // namespace weft::cli
