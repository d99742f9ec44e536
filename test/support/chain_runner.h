// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "tunnel/base/error.h"

/// Runs the plugins of a network configuration list in the way in which container runtimes do: in order for ADD and
/// CHECK, in reverse for DEL, each plugin given name, cniVersion, prevResult and runtimeConfig of the list.
namespace weft::chain {

using Json = nlohmann::ordered_json;

/// What a run is about. Empty texts are passed on empty.
struct Attachment {
  std::string netns;  ///< a path; empty when it is gone (DEL)
  std::string container_id;
  std::string if_name;
};

struct Options {
  std::vector<std::string> plugin_path;   ///< folders of the plugins, the first with the name wins
  std::string cni_args;                   ///< CNI_ARGS, as it is
  Json capability_args = Json::object();  ///< by capability; a plugin gets those that it declares
  std::string cache_dir;                  ///< results of ADD, for CHECK and DEL
  /// GC's list as CONTAINERID/IFNAME; empty optional: the key is left out.
  std::optional<std::vector<std::string>> valid;
};

/// A chain's end: the final result of ADD, or the error document of the plugin that failed.
struct ChainOutcome {
  bool ok = false;
  std::string document;  ///< JSON text; empty for verbs without a result
};

class ChainRunner {
 public:
  /// Errors: kInvalid for a list that is none; the file's errno.
  static Result<ChainRunner> load(const std::string& conflist_path, Options options);

  /// Runs ADD and keeps the result in the cache. When a plugin fails, DEL of the whole list follows, and the outcome is
  /// that plugin's error.
  Result<ChainOutcome> add(const Attachment& attachment) const;
  /// CHECK needs the result of ADD in the cache. Errors: kNotFound without; kUnsupported for lists before 0.4.0.
  Result<ChainOutcome> check(const Attachment& attachment) const;
  /// DEL in reverse order, with the cached result where there is one. The first failure ends it.
  Result<ChainOutcome> del(const Attachment& attachment) const;
  /// GC and STATUS do nothing for lists before 1.1.0, as in runtimes.
  Result<ChainOutcome> gc() const;
  Result<ChainOutcome> status() const;

 private:
  ChainRunner(Json list, Options options) : list_(std::move(list)), options_(std::move(options)) {}

  /// The document of one plugin: its entry of the list and what the runtime adds.
  [[nodiscard]] Json plugin_document(const Json& entry, const std::optional<Json>& prev_result) const;
  Result<ChainOutcome> call_plugin(const Json& document, const char* command, const Attachment& attachment) const;
  Result<ChainOutcome> call_all(const char* command) const;
  [[nodiscard]] std::string version() const;
  [[nodiscard]] std::string cache_path(const Attachment& attachment) const;
  [[nodiscard]] std::optional<Json> cached(const Attachment& attachment) const;
  Result<void> store(const Attachment& attachment, const Json& result) const;

  Json list_;
  Options options_;
};

}  // namespace weft::chain
