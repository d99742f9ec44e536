// SPDX-License-Identifier: Apache-2.0
#include "agent/reconcile/cni_networks.h"

#include <algorithm>
#include <filesystem>
#include <optional>

#include "agent/text_file.h"

namespace weft::agent {
namespace {

namespace fs = std::filesystem;
using cni::Json;

/// The settings of the entry of weft-cni, if the list has one.
std::optional<cni::Conf> conf_of(const Json& list) {
  const Json* plugins = cni::member(list, "plugins");
  if (plugins == nullptr || !plugins->is_array()) return {};
  const auto ours = std::ranges::find_if(
      *plugins, [](const Json& entry) { return entry.is_object() && cni::text_member(entry, "type") == "weft-cni"; });
  if (ours == plugins->end()) return {};
  Json document = *ours;
  document["name"] = cni::text_member(list, "name");
  // DEL asks for the least: no prevResult.
  auto conf = cni::parse_conf(document, cni::text_member(list, "cniVersion"), cni::Command::kDel);
  if (!conf) return {};
  return std::move(*conf);
}

}  // namespace

Result<std::map<std::string, cni::Conf>> read_cni_networks(const std::string& directory) {
  std::map<std::string, cni::Conf> networks;
  std::error_code error;
  fs::directory_iterator entries(directory, error);
  if (error == std::errc::no_such_file_or_directory) return networks;
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    if (entries->path().extension() != ".conflist") continue;
    auto text = read_text_file(entries->path().string());
    auto list = text ? cni::parse_json(*text) : Result<Json>(Failure(text.error()));
    if (!list || !list->is_object()) continue;
    if (auto conf = conf_of(*list)) networks.insert_or_assign(conf->name, std::move(*conf));
  }
  if (error) return fail_errno(error.value(), "read the network configurations in " + directory);
  return networks;
}

}  // namespace weft::agent
