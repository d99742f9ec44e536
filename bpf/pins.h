// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "tunnel/base/error.h"

/// The folder below a bpffs that holds what outlives the agent: root/maps, root/programs, root/links.
namespace weft::bpf::pins {

/// Errors name what is missing: root, a kernel of 5.10 with BTF, a bpffs at `root`; each says how to mend it.
Result<void> check_machine(const std::string& root);
/// Makes the folders that are missing.
Result<void> make_folders(const std::string& root);

/// kUnsupported when the pinned maps have another layout. False: there are none, or nothing was ever written to them.
Result<bool> check_layout(const std::string& root);
/// The size of a pinned map in entries, 0 if it is not there.
Result<std::uint32_t> pinned_size(const std::string& path);

/// Pins a program where another one may be, without a moment without one.
Result<void> replace_program(const std::string& root, const std::string& name, int program);

}  // namespace weft::bpf::pins
