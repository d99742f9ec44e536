// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "bpf/hook.h"
#include "tunnel/base/error.h"
#include "tunnel/base/fd.h"

/// TCX links (Linux 6.6 and later): a link holds the program on the device, its pin holds the link.
namespace weft::bpf::tcx {

struct Link {
  Fd fd;
  std::uint32_t id = 0;
  std::uint32_t program_id = 0;
  std::uint32_t ifindex = 0;  ///< 0: the device is gone
};

/// Links a program as the first of its hook and pins the link. False where the kernel has no TCX.
Result<bool> create(const Place& place, int program);
/// Empty when there is no pin.
Result<std::optional<Link>> open(const std::string& pin);
/// Puts another program into a link, without a moment without one. kNotFound: the device is gone.
Result<void> update(const Link& link, int program, const Place& place);

/// Takes a link off its device; its pins stay. Nothing happens where there is no device any more. `pin` is for the
/// error.
Result<void> detach(const Link& link, const std::string& pin);

}  // namespace weft::bpf::tcx
