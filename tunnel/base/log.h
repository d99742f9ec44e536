// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/core.h>

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
[[nodiscard]] Format format();

enum class Severity { kError, kWarn, kInfo, kDebug, kTrace };

/// Whether lines of this severity are written now; for callers that have work to do before they can log.
[[nodiscard]] bool enabled(Severity severity);

namespace detail {
/// Formats and writes. Not a template, so that one file alone compiles the formatting library: it took three quarters
/// of the time of every file that logs.
void write(Severity severity, fmt::string_view text, fmt::format_args args);
}  // namespace detail

/// Logging itself, from any thread. Message texts read `what happened key=value key=value`; values with spaces are put
/// in quotes by the caller with quote(). error: an operator must act; warn: degraded; info: life cycle and one access
/// line per connection.
template <class... Args>
void error(fmt::format_string<Args...> text, Args&&... args) {
  detail::write(Severity::kError, text, fmt::make_format_args(args...));
}
template <class... Args>
void warn(fmt::format_string<Args...> text, Args&&... args) {
  detail::write(Severity::kWarn, text, fmt::make_format_args(args...));
}
template <class... Args>
void info(fmt::format_string<Args...> text, Args&&... args) {
  detail::write(Severity::kInfo, text, fmt::make_format_args(args...));
}
template <class... Args>
void debug(fmt::format_string<Args...> text, Args&&... args) {
  detail::write(Severity::kDebug, text, fmt::make_format_args(args...));
}
template <class... Args>
void trace(fmt::format_string<Args...> text, Args&&... args) {
  detail::write(Severity::kTrace, text, fmt::make_format_args(args...));
}

/// Writes a record that is made of fields where the format is JSON: `members` are those of a JSON object without its
/// braces, one at least, and come behind its time and level. From any thread.
void write_members(Severity severity, std::string_view members);

/// The value in double quotes with `"`, `\` and control characters escaped, for use behind `key=`.
[[nodiscard]] std::string quote(std::string_view value);

}  // namespace weft::log
