// SPDX-License-Identifier: Apache-2.0
#include "tunnel/base/error.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace weft {
namespace {

ErrorCode code_of(int errno_value) {
  switch (errno_value) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
    case ESRCH:
      return ErrorCode::kNotFound;
    case EPERM:
    case EACCES:
      return ErrorCode::kDenied;
    case ETIMEDOUT:
      return ErrorCode::kTimeout;
    case ECONNREFUSED:
    case ECONNRESET:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EPIPE:
      return ErrorCode::kUnavailable;
    case EOPNOTSUPP:
    case ENOSYS:
    case EAFNOSUPPORT:
    case EPROTONOSUPPORT:
      return ErrorCode::kUnsupported;
    default:
      return ErrorCode::kInternal;
  }
}

}  // namespace

std::string Error::message() const {
  if (errno_value == 0) return context;
  return context + ": " + ::strerrordesc_np(errno_value);
}

Failure fail_errno(int errno_value, std::string context) {
  return Failure(Error{code_of(errno_value), errno_value, std::move(context)});
}

std::string excerpt(std::string_view text, std::size_t max_bytes) {
  std::string out(text.substr(0, max_bytes));
  std::ranges::replace_if(
      out, [](char c) { return c < ' ' || c > '~'; }, '?');
  return text.size() > max_bytes ? out + "..." : out;
}

std::string in_quotes(std::string_view text) { return "\"" + excerpt(text) + "\""; }

}  // namespace weft
