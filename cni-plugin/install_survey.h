// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cni-plugin/install_files.h"
#include "cni-plugin/json.h"

/// What the folder of network configurations looks like, and what there is to do about it.
namespace weft::cni::install {

/// A change of one file.
struct Edit {
  std::string file;
  std::optional<std::string> text;  ///< nothing: remove it
  std::optional<FileText> old;      ///< what it was made from; nothing for a list of ours, which nobody else edits
  struct stat like = {};            ///< mode and owner, where there is no `old`
};

struct Survey {
  /// The file that the runtime would take without us: the first valid one by name. Empty when there is none.
  std::string primary;
  /// Where our entry belongs: the primary itself, or the list of ours that stands before a lone configuration.
  std::string target;
  bool in_place = false;       ///< the target has the wanted entry, last, once
  bool had_entry = false;      ///< the target has an entry of ours, right or wrong
  std::optional<Edit> wanted;  ///< makes in_place true; nothing when it is, or when nothing can be done
  std::vector<Edit> stale;     ///< takes entries of ours out of everything else; to be done after `wanted`
  /// Why the entry cannot be put anywhere: no valid configuration, or one that it cannot work in. Empty otherwise.
  std::string obstacle;
  std::vector<std::string> skipped;         ///< invalid files that sort before the primary, each with its reason
  std::vector<std::string> cilium_backups;  ///< what Cilium renamed (cni.exclusive), `*.cilium_bak`
  bool cilium_primary = false;
};

/// Looks at the folder; changes nothing. Errors: the folder cannot be read.
Result<Survey> survey(const std::string& conf_dir, const Json& entry);

/// What takes us out of the folder: entries out of all lists, Cilium's backups included, and lists of ours. Nothing for
/// a folder that is not there. `unreadable` gets a line for each file that mentions us but is no valid list.
struct Removal {
  std::vector<Edit> edits;
  std::vector<std::string> unreadable;
};
Result<Removal> survey_removal(const std::string& conf_dir);

/// Makes one change. Errors: as replace_text; kUnavailable asks for a new survey.
Result<void> apply(const std::string& conf_dir, const Edit& edit);

}  // namespace weft::cni::install
