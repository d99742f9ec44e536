// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "tunnel/base/error.h"

/// What the files of Netlink share; for nobody else.
namespace weft::cni::detail {

/// A libnl object that its own function frees.
template <auto Free>
struct Freer {
  template <class T>
  void operator()(T* object) const {
    Free(object);
  }
};
template <class T, auto Free>
using Owned = std::unique_ptr<T, Freer<Free>>;

/// The failing half for a negative status of libnl.
[[nodiscard]] Failure netlink_failure(int status, const std::string& what);

}  // namespace weft::cni::detail
