// SPDX-License-Identifier: Apache-2.0
#include "test/support/chain_runner.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <sstream>

#include "test/support/chain_runner_process.h"

namespace weft::chain {
namespace {

std::string text_of(const Json& value, const char* key) {
  const auto it = value.is_object() ? value.find(key) : value.end();
  return it != value.end() && it->is_string() ? it->get<std::string>() : std::string();
}

Result<std::string> read_file(const std::string& path) {
  std::ifstream file(path);
  if (!file) return fail_errno(errno != 0 ? errno : ENOENT, "read " + path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

/// The document for a failure that the plugin itself did not put into words.
std::string own_error(const std::string& message) {
  return Json{{"cniVersion", "1.0.0"}, {"code", 999}, {"msg", message}, {"details", ""}}.dump();
}

/// The runtimeConfig of a plugin: the arguments of the capabilities that it declares.
Json runtime_config(const Json& entry, const Json& capability_args) {
  Json config = Json::object();
  const auto declared = entry.find("capabilities");
  if (declared == entry.end() || !declared->is_object()) return config;
  for (const auto& [capability, on] : declared->items()) {
    if (on == Json(true) && capability_args.contains(capability)) config[capability] = capability_args[capability];
  }
  return config;
}

}  // namespace

Result<ChainRunner> ChainRunner::load(const std::string& conflist_path, Options options) {
  auto text = read_file(conflist_path);
  if (!text) return Failure(std::move(text.error()));
  Json list = Json::parse(*text, nullptr, false);
  const bool usable = list.is_object() && !text_of(list, "name").empty() && list.contains("plugins") &&
                      list["plugins"].is_array() && !list["plugins"].empty();
  if (!usable) {
    return fail(ErrorCode::kInvalid, conflist_path + ": expected a JSON object with name and a list of plugins");
  }
  for (const Json& entry : list["plugins"]) {
    const std::string type = text_of(entry, "type");
    if (type.empty() || type.find('/') != std::string::npos) {
      return fail(ErrorCode::kInvalid, conflist_path + ": each plugin needs a type, the name of its program");
    }
  }
  return ChainRunner(std::move(list), std::move(options));
}

std::string ChainRunner::version() const {
  const std::string version = text_of(list_, "cniVersion");
  return version.empty() ? "0.2.0" : version;
}

Json ChainRunner::plugin_document(const Json& entry, const std::optional<Json>& prev_result) const {
  Json document = entry;
  document["name"] = list_["name"];
  document["cniVersion"] = version();
  if (Json config = runtime_config(entry, options_.capability_args); !config.empty())
    document["runtimeConfig"] = config;
  if (prev_result) document["prevResult"] = *prev_result;
  return document;
}

Result<ChainOutcome> ChainRunner::call_plugin(const Json& document, const char* command,
                                              const Attachment& attachment) const {
  const std::string type = text_of(document, "type");
  std::string program;
  std::string path;
  for (const auto& folder : options_.plugin_path) {
    path += (path.empty() ? "" : ":") + folder;
    if (program.empty() && ::access((folder + "/" + type).c_str(), X_OK) == 0) program = folder + "/" + type;
  }
  if (program.empty()) return fail(ErrorCode::kNotFound, "find the plugin " + type + " in CNI_PATH " + path);
  std::vector<std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (!std::string_view(*entry).starts_with("CNI_")) environment.emplace_back(*entry);
  }
  environment.insert(environment.end(),
                     {std::string("CNI_COMMAND=") + command, "CNI_CONTAINERID=" + attachment.container_id,
                      "CNI_NETNS=" + attachment.netns, "CNI_IFNAME=" + attachment.if_name,
                      "CNI_ARGS=" + options_.cni_args, "CNI_PATH=" + path});
  auto ran = run_plugin(program, environment, document.dump());
  if (!ran) return Failure(std::move(ran.error()));
  if (ran->exit_status == 0) return ChainOutcome{true, std::move(ran->output)};
  if (const Json error = Json::parse(ran->output, nullptr, false); error.is_object()) {
    return ChainOutcome{false, error.dump()};
  }
  return ChainOutcome{false, own_error(type + " ended with status " + std::to_string(ran->exit_status) +
                                       " and no error document: " + ran->output)};
}

Result<ChainOutcome> ChainRunner::add(const Attachment& attachment) const {
  std::optional<Json> result;
  for (const Json& entry : list_["plugins"]) {
    auto outcome = call_plugin(plugin_document(entry, result), "ADD", attachment);
    Json parsed = outcome && outcome->ok ? Json::parse(outcome->document, nullptr, false) : Json();
    if (parsed.is_object()) {
      result = std::move(parsed);
      continue;
    }
    // What was done already goes again; the failure that is told is the first one.
    (void)del(attachment);
    if (!outcome || !outcome->ok) return outcome;
    return ChainOutcome{false, own_error(text_of(entry, "type") + " succeeded without a result")};
  }
  if (auto stored = store(attachment, *result); !stored) {
    (void)del(attachment);
    return Failure(std::move(stored.error()));
  }
  return ChainOutcome{true, result->dump()};
}

Result<ChainOutcome> ChainRunner::check(const Attachment& attachment) const {
  if (version() < "0.4.0") return fail(ErrorCode::kUnsupported, "lists of version " + version() + " have no CHECK");
  if (const auto disabled = list_.find("disableCheck"); disabled != list_.end() && *disabled == Json(true)) {
    return ChainOutcome{true, {}};
  }
  const auto result = cached(attachment);
  if (!result) return fail(ErrorCode::kNotFound, "find the result of ADD in " + cache_path(attachment));
  for (const Json& entry : list_["plugins"]) {
    auto outcome = call_plugin(plugin_document(entry, result), "CHECK", attachment);
    if (!outcome || !outcome->ok) return outcome;
  }
  return ChainOutcome{true, {}};
}

Result<ChainOutcome> ChainRunner::del(const Attachment& attachment) const {
  // Before 0.4.0 DEL is told no result.
  const auto result = version() < "0.4.0" ? std::optional<Json>() : cached(attachment);
  const Json& plugins = list_["plugins"];
  for (auto entry = plugins.rbegin(); entry != plugins.rend(); ++entry) {
    auto outcome = call_plugin(plugin_document(*entry, result), "DEL", attachment);
    if (!outcome || !outcome->ok) return outcome;
  }
  ::unlink(cache_path(attachment).c_str());
  return ChainOutcome{true, {}};
}

Result<ChainOutcome> ChainRunner::call_all(const char* command) const {
  if (version() < "1.1.0") return ChainOutcome{true, {}};
  for (const Json& entry : list_["plugins"]) {
    Json document = plugin_document(entry, {});
    if (options_.valid && std::string_view(command) == "GC") {
      Json& valid = document["cni.dev/valid-attachments"] = Json::array();
      for (const auto& name : *options_.valid) {
        const auto slash = name.find('/');
        valid.push_back({{"containerID", name.substr(0, slash)},
                         {"ifname", slash == std::string::npos ? "" : name.substr(slash + 1)}});
      }
    }
    auto outcome = call_plugin(document, command, {});
    if (!outcome || !outcome->ok) return outcome;
  }
  return ChainOutcome{true, {}};
}

Result<ChainOutcome> ChainRunner::gc() const { return call_all("GC"); }
Result<ChainOutcome> ChainRunner::status() const { return call_all("STATUS"); }

std::string ChainRunner::cache_path(const Attachment& attachment) const {
  return options_.cache_dir + "/" + text_of(list_, "name") + "-" + attachment.container_id + "-" + attachment.if_name;
}

std::optional<Json> ChainRunner::cached(const Attachment& attachment) const {
  const auto text = read_file(cache_path(attachment));
  if (!text) return {};
  Json record = Json::parse(*text, nullptr, false);
  if (!record.is_object() || !record.contains("result")) return {};
  return record["result"];
}

Result<void> ChainRunner::store(const Attachment& attachment, const Json& result) const {
  const std::string path = cache_path(attachment);
  if (::mkdir(options_.cache_dir.c_str(), 0700) < 0 && errno != EEXIST) {
    return fail_errno(errno, "make the folder of results " + options_.cache_dir);
  }
  const Json record = {{"kind", "cniCacheV1"},         {"containerId", attachment.container_id},
                       {"ifName", attachment.if_name}, {"networkName", list_["name"]},
                       {"netns", attachment.netns},    {"result", result}};
  std::ofstream file(path);
  file << record.dump() << std::flush;
  if (!file) return fail_errno(errno, "write the result to " + path);
  return {};
}

}  // namespace weft::chain
