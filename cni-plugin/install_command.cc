// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/install_command.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <iterator>
#include <string_view>

#include "cni-plugin/conf.h"
#include "cni-plugin/install_list.h"
#include "tunnel/base/log.h"

namespace weft::cni::install {
namespace {

constexpr const char* kUsageText =
    R"(usage: weft-cni install --bin-dir DIR --conf-dir DIR [OPTION...]
       weft-cni uninstall --bin-dir DIR --conf-dir DIR [--keep-binary]
       weft-cni --help | --version

Without arguments it is a CNI plugin, called by a container runtime.

install puts the program into --bin-dir and its entry last into the network configuration list of --conf-dir that the
runtime uses. It never makes a network of its own: without a configuration of the primary CNI plugin it waits.
  --bin-dir DIR                  the folder of CNI plugins, e.g. /opt/cni/bin
  --conf-dir DIR                 the folder of network configurations, e.g. /etc/cni/net.d
  --watch                        stay and keep the entry in place; SIGTERM ends it and leaves the entry
  --wait-seconds N               without --watch: wait as long for a network configuration (default 0)
  --ready-file FILE              is there exactly while the entry is in place
  --entry JSON                   the entry (default: the type, and the capability for pod annotations)
  --agent-socket PATH            agentSocket of the entry
  --bpf-root PATH                bpfRoot
  --registration-timeout-ms N    registrationTimeoutMs
  --failure-policy POLICY        failurePolicy: closed or open
  --exclude-namespaces A,B,...   excludeNamespaces
  --unsupported-interface WHAT   unsupportedInterface: fail or pass
  --log-level LEVEL              logLevel of the plugin
  --log-file PATH                logFile of the plugin

uninstall takes the entry out first and removes the program last.
  --keep-binary                  leave the program, for runtimes that end pods with the configuration of their start

exit status: 0 done, 1 failed, 2 wrong usage, 3 no network configuration to put the entry into
)";

/// The options that set a key of the entry.
enum class Kind : std::uint8_t { kText, kNumber, kList };
struct EntryOption {
  std::string_view name;
  const char* key;
  Kind kind;
};
constexpr EntryOption kEntryOptions[] = {
    {"--agent-socket", "agentSocket", Kind::kText},
    {"--bpf-root", "bpfRoot", Kind::kText},
    {"--registration-timeout-ms", "registrationTimeoutMs", Kind::kNumber},
    {"--failure-policy", "failurePolicy", Kind::kText},
    {"--exclude-namespaces", "excludeNamespaces", Kind::kList},
    {"--unsupported-interface", "unsupportedInterface", Kind::kText},
    {"--log-level", "logLevel", Kind::kText},
    {"--log-file", "logFile", Kind::kText},
};

Failure wrong(const std::string& text) { return fail(ErrorCode::kInvalid, text); }

Result<int> whole_number(std::string_view name, const std::string& text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0) {
    return wrong(std::string(name) + " is '" + text + "': expected a whole number");
  }
  return value;
}

Json names_of(std::string_view text) {
  Json names = Json::array();
  while (!text.empty()) {
    const auto comma = std::min(text.find(','), text.size());
    names.push_back(std::string(text.substr(0, comma)));
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return names;
}

Json default_entry() {
  Json entry = {{"type", kPluginType}};
  entry["capabilities"] = {{kAnnotationsCapability, true}};
  return entry;
}

Result<Json> entry_of(const std::string& text) {
  auto entry = parse_json(text);
  if (!entry) return wrong("--entry: " + entry.error().message());
  if (!entry->is_object()) return wrong("--entry is " + shown(*entry) + ": expected a JSON object");
  for (const char* key : {"name", "cniVersion", "prevResult", "runtimeConfig"}) {
    if (entry->contains(key)) return wrong("--entry has the key " + std::string(key) + ", which the runtime sets");
  }
  if (!entry->contains("type")) {
    Json typed = {{"type", kPluginType}};
    typed.update(*entry);
    return typed;
  }
  if (text_member(*entry, "type") != kPluginType) {
    return wrong("--entry has the type " + shown((*entry)["type"]) + ": expected \"weft-cni\"");
  }
  return entry;
}

/// By the code that reads the entry at every call of the plugin.
Result<void> check_entry(const Json& entry) {
  Json document = entry;
  document["name"] = "check";
  const auto conf = parse_conf(document, std::string(kLatestVersion), Command::kDel);
  if (!conf) return wrong("the entry: " + conf.error().msg);
  if (conf->problems.empty()) return {};
  std::string text;
  for (const auto& problem : conf->problems) text += (text.empty() ? "" : "; ") + problem;
  return wrong("the entry: " + text);
}

/// Takes the arguments one by one.
class Arguments {
 public:
  explicit Arguments(const std::vector<std::string>& arguments) : arguments_(arguments) {}

  Result<Parsed> parse() {
    Parsed parsed;
    parsed.options.entry = default_entry();
    if (auto named = action(parsed); !named) return Failure(named.error());
    while (parsed.action != Action::kHelp && parsed.action != Action::kVersion && at_ < arguments_.size()) {
      if (auto taken = option(parsed); !taken) return Failure(taken.error());
    }
    if (parsed.action == Action::kHelp || parsed.action == Action::kVersion) return parsed;
    for (auto* folder : {&parsed.options.bin_dir, &parsed.options.conf_dir}) {
      while (folder->size() > 1 && folder->back() == '/') folder->pop_back();
    }
    if (parsed.options.bin_dir.empty()) return wrong("--bin-dir is missing");
    if (parsed.options.conf_dir.empty()) return wrong("--conf-dir is missing");
    parsed.options.entry.update(keys_);
    if (auto good = check_entry(parsed.options.entry); !good) return Failure(good.error());
    return parsed;
  }

 private:
  Result<void> action(Parsed& parsed) {
    const std::string word = arguments_.empty() ? "" : arguments_[at_++];
    if (word == "install") {
      parsed.action = Action::kInstall;
    } else if (word == "uninstall") {
      parsed.action = Action::kUninstall;
    } else if (word == "--version") {
      parsed.action = Action::kVersion;
    } else if (word != "--help" && word != "-h" && word != "help") {
      return wrong("unknown argument '" + word + "'");
    }
    return {};
  }

  Result<void> option(Parsed& parsed) {
    std::string name = arguments_[at_++];
    inline_value_.reset();
    if (const auto equals = name.find('='); name.starts_with("--") && equals != std::string::npos) {
      inline_value_ = name.substr(equals + 1);
      name.resize(equals);
    }
    auto known = common_option(name, parsed);
    if (known && !*known) {
      known = parsed.action == Action::kInstall ? install_option(name, parsed.options)
                                                : uninstall_option(name, parsed.options);
    }
    if (!known) return Failure(known.error());
    if (!*known) return wrong("unknown argument '" + name + "'");
    return {};
  }

  /// These give false for a name that is not theirs.
  Result<bool> common_option(const std::string& name, Parsed& parsed) {
    if (name == "--help" || name == "-h") {
      parsed.action = Action::kHelp;
      return flag(name);
    }
    if (name == "--bin-dir") return text(name, parsed.options.bin_dir);
    if (name == "--conf-dir") return text(name, parsed.options.conf_dir);
    return false;
  }

  Result<bool> uninstall_option(const std::string& name, Options& options) {
    if (name != "--keep-binary") return false;
    options.keep_binary = true;
    return flag(name);
  }

  Result<bool> install_option(const std::string& name, Options& options) {
    if (name == "--watch") {
      options.watch = true;
      return flag(name);
    }
    if (name == "--ready-file") return text(name, options.ready_file);
    if (name == "--wait-seconds") {
      auto seconds = value(name);
      if (!seconds) return Failure(seconds.error());
      auto number = whole_number(name, *seconds);
      if (!number) return Failure(number.error());
      options.wait_seconds = *number;
      return true;
    }
    if (name == "--entry") {
      auto json = value(name);
      if (!json) return Failure(json.error());
      auto entry = entry_of(*json);
      if (!entry) return Failure(entry.error());
      options.entry = std::move(*entry);
      return true;
    }
    return entry_option(name);
  }

  Result<bool> entry_option(const std::string& name) {
    const auto* found = std::ranges::find(kEntryOptions, name, &EntryOption::name);
    if (found == std::end(kEntryOptions)) return false;
    auto given = value(name);
    if (!given) return Failure(given.error());
    if (found->kind == Kind::kNumber) {
      auto number = whole_number(name, *given);
      if (!number) return Failure(number.error());
      keys_[found->key] = *number;
    } else {
      keys_[found->key] = found->kind == Kind::kList ? names_of(*given) : Json(*given);
    }
    return true;
  }

  Result<std::string> value(const std::string& name) {
    if (inline_value_) return *inline_value_;
    if (at_ == arguments_.size()) return wrong(name + " needs a value");
    return arguments_[at_++];
  }

  Result<bool> text(const std::string& name, std::string& out) {
    auto given = value(name);
    if (!given) return Failure(given.error());
    if (given->empty()) return wrong(name + " is empty");
    out = std::move(*given);
    return true;
  }

  Result<bool> flag(const std::string& name) const {
    if (inline_value_) return wrong(name + " takes no value");
    return true;
  }

  const std::vector<std::string>& arguments_;
  std::size_t at_ = 0;
  std::optional<std::string> inline_value_;
  Json keys_ = Json::object();
};

}  // namespace

Result<Parsed> parse_arguments(const std::vector<std::string>& arguments) { return Arguments(arguments).parse(); }

int run_command_line(int argc, char** argv, const char* version) {
  auto parsed = parse_arguments(std::vector<std::string>(argv + 1, argv + argc));
  if (!parsed) {
    std::fprintf(stderr, "weft-cni: %s\n\n%s", parsed.error().message().c_str(), kUsageText);
    return kUsage;
  }
  (void)log::init("info", log::Format::kText, "");
  switch (parsed->action) {
    case Action::kInstall:
      return install(parsed->options);
    case Action::kUninstall:
      return uninstall(parsed->options);
    case Action::kVersion:
      std::printf("weft-cni %s\n", version);
      return kOk;
    case Action::kHelp:
      std::fputs(kUsageText, stdout);
      return kOk;
  }
  return kUsage;
}

}  // namespace weft::cni::install
