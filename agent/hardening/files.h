// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "tunnel/base/error.h"

namespace weft::agent::hardening {

/// Of a folder that is the agent's alone (records, pins): it must be this user's, and nobody else may write in it.
/// Where others could only read it they are kept out from now on, with a warning. One that is missing is made later,
/// closed. Errors: kDenied, saying what is too open: what lies there may have been put there by others.
Result<void> close_folder(const std::string& path);

/// Who but root and this user could change this file, or the files of this folder; empty where nobody could, or where
/// it is missing.
[[nodiscard]] std::string who_could_write(const std::string& path);

}  // namespace weft::agent::hardening
