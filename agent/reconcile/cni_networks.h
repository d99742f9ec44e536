// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>

#include "cni-plugin/conf.h"
#include "tunnel/base/error.h"

namespace weft::agent {

/// The networks whose lists in DIRECTORY (usually /etc/cni/net.d) have weft-cni in them, by name, with the settings of
/// that entry: pods of these networks are to be wired. Files that are no configuration lists are left out; an entry
/// with a bad value has the default for it, and the plugin says so. None where the directory does not exist.
Result<std::map<std::string, cni::Conf>> read_cni_networks(const std::string& directory);

}  // namespace weft::agent
