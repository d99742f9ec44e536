// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "tunnel/base/error.h"

namespace weft::agent {

/// The whole text of a file. Errors: errno of opening it, EIO.
Result<std::string> read_text_file(const std::string& path);

}  // namespace weft::agent
