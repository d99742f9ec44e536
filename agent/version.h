// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace weft::agent {

/// The version that CMakeLists.txt states.
inline constexpr const char* kVersion = WEFT_VERSION;

}  // namespace weft::agent
