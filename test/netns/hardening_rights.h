// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "agent/hardening/capabilities.h"

namespace weft::test {

using ChosenCapabilities = std::function<bool(const agent::hardening::Capability&)>;
/// Of the list: all, and those that the agent keeps.
bool every(const agent::hardening::Capability& capability);
bool kept(const agent::hardening::Capability& capability);

/// The chosen ones as a status file of /proc shows them.
std::string hex_mask(const ChosenCapabilities& chosen);
/// A program that starts another one with the chosen capabilities of the list alone.
std::vector<std::string> with_only(const ChosenCapabilities& chosen);
/// A line of a status file of /proc, without its name; empty where it has none.
std::string status_of(const std::string& path, const std::string& name);
/// Whether BPF maps count as locked memory here: before Linux 5.11.
bool maps_are_locked_memory();

}  // namespace weft::test
