// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/install_survey.h"

#include <algorithm>
#include <string_view>

#include "cni-plugin/install_list.h"

namespace weft::cni::install {
namespace {

constexpr std::string_view kCiliumBackup = ".cilium_bak";
constexpr std::string_view kCiliumType = "cilium-cni";
/// The one file that Cilium renames whether it is exclusive or not: its own of earlier versions.
constexpr std::string_view kCiliumLegacy = "05-cilium.conf.cilium_bak";

bool is_list(std::string_view name) { return name.ends_with(".conflist"); }
bool is_configuration(std::string_view name) {
  return is_list(name) || name.ends_with(".conf") || name.ends_with(".json");
}

/// Reads one folder's files into a Survey.
class Surveyor {
 public:
  Surveyor(const std::string& conf_dir, const Json& entry) : conf_dir_(conf_dir), entry_(entry) {}

  Result<Survey> run() {
    auto names = list_files(conf_dir_);
    if (!names) return Failure(names.error());
    for (const auto& name : *names) {
      if (name.ends_with(kCiliumBackup) && name != kCiliumLegacy) found_.cilium_backups.push_back(name);
      if (is_configuration(name)) look_at(name);
    }
    clean_lists_of_ours();
    if (found_.primary.empty() && found_.obstacle.empty()) {
      found_.obstacle = "no network configuration in " + conf_dir_ + " yet: waiting for the primary CNI plugin";
    }
    return std::move(found_);
  }

 private:
  [[nodiscard]] bool decided() const { return !found_.primary.empty(); }

  void look_at(const std::string& name) {
    auto file = read_text(conf_dir_ + "/" + name);
    if (!file) {
      if (file.error().code != ErrorCode::kNotFound) skip(name, file.error().message());
      return;
    }
    if (is_list(name)) {
      look_at_list(name, *file);
    } else if (!decided()) {
      look_at_lone(name, *file);
    }
  }

  void look_at_list(const std::string& name, const FileText& file) {
    auto list = ConfList::parse(file.text);
    if (!list) return skip(name, list.error().message());
    if (is_following_name(name) && !list->follows().empty()) {
      ours_.push_back({name, {}, {}, {}});
    } else if (!decided()) {
      take_list(name, file, *list);
    } else if (list->own_entries() > 0) {
      add_stale(name, file, *list);
    }
  }

  void take_list(const std::string& name, const FileText& file, const ConfList& list) {
    found_.primary = found_.target = name;
    found_.cilium_primary = list.has_plugin(kCiliumType);
    found_.had_entry = list.own_entries() > 0;
    if (auto accepted = list.accepts_entry(); !accepted) return refuse(accepted.error());
    found_.in_place = list.has_entry(entry_);
    if (found_.in_place) return;
    auto text = list.with_entry(entry_);
    if (!text) return refuse(text.error());
    found_.wanted = Edit{name, std::move(*text), file, {}};
  }

  void add_stale(const std::string& name, const FileText& file, const ConfList& list) {
    auto text = list.without_entry();
    if (!text) return skip(name, text.error().message());
    found_.stale.push_back({name, std::move(*text), file, {}});
  }

  void look_at_lone(const std::string& name, const FileText& file) {
    const auto lone = parse_lone(file.text);
    if (!lone) return skip(name, lone.error().message());
    found_.primary = name;
    found_.cilium_primary = text_member(*lone, "type") == kCiliumType;
    auto text = following_list(name, file.text, entry_);
    if (!text) return refuse(text.error());
    found_.target = following_name(name);
    auto present = read_text(conf_dir_ + "/" + found_.target);
    found_.had_entry = present.has_value();
    found_.in_place = present && present->text == *text;
    if (found_.in_place) return;
    // Mode and owner are the followed file's. What else may have this name is no valid list: that would be the primary.
    found_.wanted = Edit{found_.target, std::move(*text), {}, file.state};
  }

  void clean_lists_of_ours() {
    for (auto& edit : ours_) {
      if (edit.file != found_.target) found_.stale.push_back(std::move(edit));
    }
  }

  void refuse(const Error& error) { found_.obstacle = conf_dir_ + "/" + found_.primary + ": " + error.message(); }
  void skip(const std::string& name, const std::string& why) {
    if (!decided()) found_.skipped.push_back(name + ": " + why);
  }

  const std::string& conf_dir_;
  const Json& entry_;
  Survey found_;
  std::vector<Edit> ours_;
};

std::string_view without_backup_suffix(std::string_view name) {
  if (name.ends_with(kCiliumBackup)) name.remove_suffix(kCiliumBackup.size());
  return name;
}

/// What takes us out of one file; nothing when we are not in it.
Result<std::optional<Edit>> removal_of(const std::string& conf_dir, const std::string& name) {
  auto file = read_text(conf_dir + "/" + name);
  if (!file) {
    if (file.error().code == ErrorCode::kNotFound) return std::optional<Edit>();
    return Failure(file.error());
  }
  if (file->text.find(kPluginType) == std::string::npos) return std::optional<Edit>();
  auto list = ConfList::parse(file->text);
  if (!list) return fail(ErrorCode::kInvalid, list.error().message());
  if (is_following_name(without_backup_suffix(name)) && !list->follows().empty()) {
    return std::optional<Edit>(Edit{name, {}, {}, {}});
  }
  if (list->own_entries() == 0) return std::optional<Edit>();
  auto text = list->without_entry();
  if (!text) return Failure(text.error());
  return std::optional<Edit>(Edit{name, std::move(*text), std::move(*file), {}});
}

}  // namespace

Result<Survey> survey(const std::string& conf_dir, const Json& entry) { return Surveyor(conf_dir, entry).run(); }

Result<Removal> survey_removal(const std::string& conf_dir) {
  Removal found;
  auto names = list_files(conf_dir);
  if (!names && names.error().code == ErrorCode::kNotFound) return found;
  if (!names) return Failure(names.error());
  for (const auto& name : *names) {
    // A backup of Cilium's is a configuration again once Cilium is gone.
    if (!is_list(without_backup_suffix(name))) continue;
    auto edit = removal_of(conf_dir, name);
    if (!edit) {
      found.unreadable.push_back(name + ": " + edit.error().message());
    } else if (*edit) {
      found.edits.push_back(std::move(**edit));
    }
  }
  return found;
}

Result<void> apply(const std::string& conf_dir, const Edit& edit) {
  const std::string path = conf_dir + "/" + edit.file;
  if (!edit.text) return remove_file(path);
  if (edit.old) return replace_text(path, *edit.text, *edit.old);
  return write_text(path, *edit.text, edit.like);
}

}  // namespace weft::cni::install
