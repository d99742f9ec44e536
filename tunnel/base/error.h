// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include <tl/expected.hpp>

namespace weft {

/// What a caller may act on. Everything else is kInternal and is only reported.
enum class ErrorCode {
  kInternal,     ///< something failed that nobody can repair at run time
  kInvalid,      ///< the input is wrong; the same call will fail again
  kNotFound,     ///< the thing named does not exist
  kUnavailable,  ///< a peer or a resource is away; trying again may help
  kUnsupported,  ///< this kernel, build or peer cannot do it
  kDenied,       ///< refused by policy or by permissions
  kTimeout,      ///< the time allowed has passed
  kOverLimit,    ///< a limit of the agent's own: whoever asks has too much already
};

/// One failure: what was tried, on what, why, and the likely cause, in `context`; `errno_value` is 0 where no system
/// call failed. Texts are lower case without a full stop: "connect 10.0.0.7:15008: timed out (is 15008 blocked?)".
struct Error {
  ErrorCode code = ErrorCode::kInternal;
  int errno_value = 0;
  std::string context;

  /// The whole text for a person: the context, then strerror(errno_value) where one is set.
  [[nodiscard]] std::string message() const;
};

/// A value or an Error. Never ignored: the type is [[nodiscard]].
template <class T>
class [[nodiscard]] Result : public tl::expected<T, Error> {
 public:
  using tl::expected<T, Error>::expected;
};

using Failure = tl::unexpected<Error>;

/// Makes the failing half of a Result.
[[nodiscard]] inline Failure fail(ErrorCode code, std::string context) {
  return Failure(Error{code, 0, std::move(context)});
}

/// Makes the failing half of a Result from an errno value (pass errno itself, before anything can change it). The code
/// follows the value: ENOENT and the like become kNotFound, EPERM and EACCES kDenied, ETIMEDOUT kTimeout,
/// ECONNREFUSED and its kin kUnavailable, EOPNOTSUPP and the like kUnsupported, anything else kInternal.
[[nodiscard]] Failure fail_errno(int errno_value, std::string context);

/// Text from outside as an error shows it: no more of it than `max_bytes`, with "?" for what is no printable ASCII.
[[nodiscard]] std::string excerpt(std::string_view text, std::size_t max_bytes = 80);
/// The same in double quotes.
[[nodiscard]] std::string in_quotes(std::string_view text);

}  // namespace weft
