// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <spdlog/spdlog.h>

#include <string>
#include <string_view>

#include "tunnel/base/error.h"

namespace weft::log {

/// How lines are written. Text is `time level message key=value …`; JSON is one object a line with the same content.
enum class Format { kText, kJson };

/// Sets the process-wide logger: level is one of error, warn, info, debug, trace, off; `file` empty means stderr (never
/// stdout, which belongs to the CNI result). Errors: kInvalid for an unknown level, errno of the file that cannot be
/// opened. Call it once, before threads start; the level may be changed later with set_level from any thread.
Result<void> init(std::string_view level, Format format, const std::string& file);
Result<void> set_level(std::string_view level);
[[nodiscard]] std::string level();

/// Logging itself, from any thread. Message texts read `what happened key=value key=value`; values with spaces are put
/// in quotes by the caller with quote(). error: an operator must act; warn: degraded; info: life cycle and one access
/// line per connection.
template <class... Args>
void error(spdlog::format_string_t<Args...> text, Args&&... args) {
  spdlog::error(text, std::forward<Args>(args)...);
}
template <class... Args>
void warn(spdlog::format_string_t<Args...> text, Args&&... args) {
  spdlog::warn(text, std::forward<Args>(args)...);
}
template <class... Args>
void info(spdlog::format_string_t<Args...> text, Args&&... args) {
  spdlog::info(text, std::forward<Args>(args)...);
}
template <class... Args>
void debug(spdlog::format_string_t<Args...> text, Args&&... args) {
  spdlog::debug(text, std::forward<Args>(args)...);
}
template <class... Args>
void trace(spdlog::format_string_t<Args...> text, Args&&... args) {
  spdlog::trace(text, std::forward<Args>(args)...);
}

/// The value in double quotes with `"`, `\` and control characters escaped, for use behind `key=`.
[[nodiscard]] std::string quote(std::string_view value);

}  // namespace weft::log
