// SPDX-License-Identifier: Apache-2.0
#include "test/netns/hardening_rights.h"

#include <sys/utsname.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <sstream>

#include "test/support/netns.h"

namespace weft::test {
namespace {

using agent::hardening::Capability;

/// As setpriv(1) writes it.
std::string short_name(const Capability& capability) {
  std::string name(capability.name + sizeof "CAP_" - 1);
  std::ranges::transform(name, name.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return name;
}

}  // namespace

bool every(const Capability& /*capability*/) { return true; }
bool kept(const Capability& capability) { return capability.use == agent::hardening::Use::kRun; }

std::string hex_mask(const ChosenCapabilities& chosen) {
  unsigned long mask = 0;
  for (const auto& capability : agent::hardening::capabilities()) {
    if (chosen(capability)) mask |= 1UL << capability.number;
  }
  char text[20];
  std::snprintf(text, sizeof text, "%016lx", mask);
  return text;
}

std::vector<std::string> with_only(const ChosenCapabilities& chosen) {
  std::string set = "-all";
  for (const auto& capability : agent::hardening::capabilities()) {
    if (chosen(capability)) set += ",+" + short_name(capability);
  }
  return {"setpriv", "--inh-caps", "-all", "--bounding-set", set};
}

std::string status_of(const std::string& path, const std::string& name) {
  std::istringstream lines(read_file(path));
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(name + ":")) return line.substr(line.find_first_not_of(" \t", name.size() + 1));
  }
  return "";
}

bool maps_are_locked_memory() {
  utsname name{};
  unsigned major = 0, minor = 0;
  return ::uname(&name) == 0 && std::sscanf(name.release, "%u.%u", &major, &minor) == 2 &&
         (major < 5 || (major == 5 && minor < 11));
}

}  // namespace weft::test
