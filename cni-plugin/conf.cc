// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/conf.h"

#include <sys/un.h>

#include <algorithm>

namespace weft::cni {
namespace {

constexpr int kMaxTimeoutMs = 60'000;

/// Reads our keys one by one and collects what is wrong with them.
class KeyReader {
 public:
  KeyReader(const Json& document, std::vector<std::string>& problems) : document_(document), problems_(problems) {}

  void path(const char* key, std::string& out, std::size_t max_bytes) {
    const Json* found = member(document_, key);
    if (found == nullptr) return;
    const std::string text = text_member(document_, key);
    if (text.empty() || text.front() != '/' || text.size() > max_bytes || text.find('\0') != std::string::npos) {
      return bad(key, *found, "an absolute path of at most " + std::to_string(max_bytes) + " bytes");
    }
    out = text;
  }

  /// One of a few words; `choices` are the words in the order of the values.
  template <class T>
  void choice(const char* key, T& out, std::initializer_list<std::pair<const char*, T>> choices) {
    const Json* found = member(document_, key);
    if (found == nullptr) return;
    const std::string text = text_member(document_, key);
    std::string expected;
    for (const auto& [word, value] : choices) {
      if (text == word) {
        out = value;
        return;
      }
      expected += (expected.empty() ? "" : ", ") + std::string(word);
    }
    bad(key, *found, "one of " + expected);
  }

  void milliseconds(const char* key, int& out) {
    const Json* found = member(document_, key);
    if (found == nullptr) return;
    const auto value = found->is_number_integer() ? found->get<std::int64_t>() : 0;
    if (value < 1 || value > kMaxTimeoutMs) {
      return bad(key, *found, "a whole number of milliseconds from 1 to " + std::to_string(kMaxTimeoutMs));
    }
    out = static_cast<int>(value);
  }

  void names(const char* key, std::vector<std::string>& out) {
    const Json* found = member(document_, key);
    if (found == nullptr) return;
    std::vector<std::string> names;
    const auto is_name = [](const Json& entry) {
      return entry.is_string() && !entry.get_ref<const std::string&>().empty();
    };
    if (!found->is_array() || !std::ranges::all_of(*found, is_name)) return bad(key, *found, "a list of namespaces");
    for (const Json& entry : *found) names.push_back(entry.get_ref<const std::string&>());
    out = std::move(names);
  }

 private:
  void bad(const char* key, const Json& found, const std::string& expected) {
    problems_.push_back(std::string(key) + " is " + shown(found) + ": expected " + expected);
  }

  const Json& document_;
  std::vector<std::string>& problems_;
};

void read_own_keys(const Json& document, Conf& conf) {
  KeyReader reader(document, conf.problems);
  reader.path("agentSocket", conf.agent_socket, sizeof(sockaddr_un::sun_path) - 1);
  reader.path("bpfRoot", conf.bpf_root, 1024);
  reader.milliseconds("registrationTimeoutMs", conf.registration_timeout_ms);
  reader.choice<FailurePolicy>("failurePolicy", conf.failure_policy,
                               {{"closed", FailurePolicy::kClosed}, {"open", FailurePolicy::kOpen}});
  reader.choice<UnsupportedInterface>("unsupportedInterface", conf.unsupported_interface,
                                      {{"fail", UnsupportedInterface::kFail}, {"pass", UnsupportedInterface::kPass}});
  reader.names("excludeNamespaces", conf.exclude_namespaces);
  reader.choice<std::string>(
      "logLevel", conf.log_level,
      {{"error", "error"}, {"warn", "warn"}, {"info", "info"}, {"debug", "debug"}, {"trace", "trace"}, {"off", "off"}});
  reader.path("logFile", conf.log_file, 4000);
}

CniResult<std::vector<AttachmentKey>> read_valid_attachments(const Json& list) {
  const auto malformed = [&](const Json& found) {
    return refuse(Code::kInvalidConfig, "cni.dev/valid-attachments has " + shown(found) +
                                            ": expected a list of objects with containerID and ifname");
  };
  if (!list.is_array()) return malformed(list);
  std::vector<AttachmentKey> keys;
  for (const Json& entry : list) {
    AttachmentKey key{text_member(entry, "containerID"), text_member(entry, "ifname")};
    if (key.container_id.empty() || key.if_name.empty()) return malformed(entry);
    keys.push_back(std::move(key));
  }
  return keys;
}

}  // namespace

bool Conf::excludes(std::string_view pod_namespace) const {
  return std::ranges::find(exclude_namespaces, pod_namespace) != exclude_namespaces.end();
}

std::map<std::string, std::string> understood_annotations(const Json& capability_arguments) {
  std::map<std::string, std::string> found;
  const Json* all = member(capability_arguments, kAnnotationsCapability);
  if (all == nullptr) return found;
  for (const std::string_view name : kUnderstoodAnnotations) {
    const std::string key(name);
    if (const Json* value = member(*all, key.c_str()); value != nullptr && value->is_string()) {
      found.emplace(key, value->get_ref<const std::string&>());
    }
  }
  return found;
}

CniResult<Json> parse_stdin(std::string_view text) {
  auto document = parse_json(text);
  if (!document) {
    return refuse(Code::kDecode, "read the network configuration from stdin: " + document.error().message());
  }
  if (!document->is_object()) {
    return refuse(Code::kDecode, "the network configuration is " + shown(*document) + ": expected a JSON object");
  }
  return std::move(*document);
}

CniResult<std::string> configured_version(const Json& document, Command command) {
  std::string version = "0.1.0";
  if (const Json* found = member(document, "cniVersion"); found != nullptr) {
    if (!found->is_string()) {
      return refuse(Code::kDecode, "cniVersion is " + shown(*found) + ": expected a text like \"1.0.0\"");
    }
    version = found->get_ref<const std::string&>();
  }
  const auto incompatible = [&](const std::string& why) {
    return refuse(Code::kIncompatibleVersion, "cniVersion " + shown(Json(version)) + " " + why,
                  "supported: 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0");
  };
  if (!is_supported(version)) return incompatible("is not supported (an absent one means 0.1.0)");
  if (command == Command::kCheck && (version == "0.3.0" || version == "0.3.1")) {
    return incompatible("has no CHECK: it came with 0.4.0");
  }
  if ((command == Command::kGc || command == Command::kStatus) && version != "1.1.0") {
    return incompatible("has no GC and no STATUS: they came with 1.1.0");
  }
  return version;
}

CniResult<Conf> parse_conf(const Json& document, std::string version, Command command) {
  Conf conf;
  conf.cni_version = std::move(version);
  const Json* name = member(document, "name");
  if (name == nullptr) return refuse(Code::kInvalidConfig, "name is missing: expected the name of the network");
  conf.name = text_member(document, "name");
  if (!is_identifier(conf.name)) {
    return refuse(Code::kInvalidConfig,
                  "name is " + shown(*name) + ": expected a letter or digit, then letters, digits, '_', '.' or '-'");
  }
  read_own_keys(document, conf);
  if (const Json* runtime = member(document, "runtimeConfig")) conf.annotations = understood_annotations(*runtime);
  if (const Json* prev = member(document, "prevResult"); prev != nullptr && command != Command::kDel) {
    if (!prev->is_object()) {
      return refuse(Code::kInvalidConfig, "prevResult is " + shown(*prev) + ": expected an object");
    }
    conf.prev_result = *prev;
  }
  if (!conf.prev_result && (command == Command::kAdd || command == Command::kCheck)) {
    return refuse(Code::kInvalidConfig, "prevResult is missing",
                  "weft-cni makes no interface: put it behind the plugin that does, in a .conflist");
  }
  if (const Json* list = member(document, "cni.dev/valid-attachments"); list != nullptr && command == Command::kGc) {
    auto keys = read_valid_attachments(*list);
    if (!keys) return tl::unexpected<CniError>(std::move(keys.error()));
    conf.valid_attachments = std::move(*keys);
  }
  return conf;
}

}  // namespace weft::cni
