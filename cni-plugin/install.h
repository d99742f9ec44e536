// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "cni-plugin/json.h"

/// `weft-cni install` and `weft-cni uninstall`: the program in the folder of CNI plugins, and its entry in the list of
/// network configurations that the runtime uses.
namespace weft::cni::install {

struct Options {
  std::string bin_dir, conf_dir;
  Json entry;                ///< ours, as it shall stand in the list
  bool watch = false;        ///< stay, and keep the entry in place
  int wait_seconds = 0;      ///< without watch: how long to wait for a configuration of the primary CNI plugin
  std::string ready_file;    ///< is there exactly while the entry is in place; empty: none
  bool keep_binary = false;  ///< of uninstall
};

/// How the two end.
inline constexpr int kOk = 0;
inline constexpr int kFailed = 1;
inline constexpr int kUsage = 2;
inline constexpr int kNotInPlace = 3;  ///< nothing failed, but there is no list to put the entry into (yet)

/// The program first, then the entry. With `watch` it runs until SIGTERM or SIGINT, which leave everything in place:
/// only uninstall takes the guard away. Logs to stderr; blocks those signals; call it once, from the only thread.
int install(const Options& options);

/// The entry first, the program last; nothing installed is fine.
int uninstall(const Options& options);

}  // namespace weft::cni::install
