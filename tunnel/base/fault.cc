// SPDX-License-Identifier: Apache-2.0
#include "tunnel/base/fault.h"

#ifdef WEFT_FAULT_INJECTION
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <string_view>

namespace weft {

bool fault_at(const char* point) {
  const char* setting = std::getenv("WEFT_FAULT");
  if (setting == nullptr) return false;
  const std::string_view text(setting);
  const auto colon = text.find(':');
  if (text.substr(0, colon) != point || colon == std::string_view::npos) return false;
  const std::string_view action = text.substr(colon + 1);
  if (action == "kill") ::raise(SIGKILL);
  while (action == "hang") ::pause();
  return action == "fail";
}

}  // namespace weft
#endif
