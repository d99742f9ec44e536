// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/install_list.h"

#include <algorithm>
#include <optional>

#include "cni-plugin/install_scan.h"
#include "cni-plugin/result.h"

namespace weft::cni::install {
namespace {

constexpr std::string_view kFollowingSuffix = "-weft.conflist";

bool is_own(const Json& plugin) { return text_member(plugin, "type") == kPluginType; }

/// Equal whatever the order of keys: other tools sort them.
bool same(const Json& a, const Json& b) {
  return nlohmann::json::parse(to_text(a), nullptr, false) == nlohmann::json::parse(to_text(b), nullptr, false);
}

Failure invalid(const std::string& why) { return fail(ErrorCode::kInvalid, why); }

Result<Json> parse_object(std::string_view text) {
  // Go's parser, which the runtimes use, does not take a byte order mark; ours would.
  if (text.starts_with("\xEF\xBB\xBF")) return invalid("it begins with a byte order mark");
  auto document = parse_json(text);
  if (!document) return document;
  if (!document->is_object()) return invalid("it is " + shown(*document) + ": expected a JSON object");
  if (const Json* version = member(*document, "cniVersion"); version != nullptr && !version->is_string()) {
    return invalid("cniVersion is " + shown(*version) + ": expected a text");
  }
  return document;
}

/// Lists may give several versions to choose from (`cniVersions`, libcni 1.2).
bool has_spoken_version(const Json& document) {
  if (is_supported(text_member(document, "cniVersion"))) return true;
  const Json* versions = member(document, "cniVersions");
  return versions != nullptr && versions->is_array() && std::ranges::any_of(*versions, [](const Json& version) {
           return version.is_string() && is_supported(version.get_ref<const std::string&>());
         });
}

Result<void> check_version(const Json& document) {
  if (has_spoken_version(document)) return {};
  const Json* version = member(document, "cniVersion");
  return fail(ErrorCode::kUnsupported,
              "its cniVersion is " + (version == nullptr ? "missing, which means 0.1.0" : shown(*version)) +
                  ": weft-cni needs 0.3.0 to 1.1.0 to work in a chain (the version is its owner's to choose)");
}

/// What the list must be after the edit.
Json edited(Json document, const std::optional<Json>& entry) {
  Json plugins = Json::array();
  for (const Json& plugin : document["plugins"]) {
    if (!is_own(plugin)) plugins.push_back(plugin);
  }
  if (entry) plugins.push_back(*entry);
  document["plugins"] = std::move(plugins);
  return document;
}

Result<std::string> checked(std::string text, const Json& expected) {
  const auto parsed = parse_json(text);
  if (parsed && *parsed == expected) return text;
  return fail(ErrorCode::kInternal, "edit the list: the result is not the list with the entry changed" +
                                        (parsed ? std::string() : ": " + parsed.error().message()));
}

/// Without the element and the comma that belongs to it.
std::string cut(const std::string& text, const std::vector<Span>& elements, std::size_t index) {
  Span gone = elements[index];
  if (index > 0) {
    gone.begin = elements[index - 1].end;
  } else if (elements.size() > 1) {
    gone.end = elements[1].begin;
  }
  return text.substr(0, gone.begin) + text.substr(gone.end);
}

bool is_own_text(const std::string& text, Span span) {
  const auto plugin = parse_json(span.of(text));
  return plugin && is_own(*plugin);
}

std::string without_own(std::string text) {
  for (;;) {
    const auto elements = plugins_of(text);
    const auto own = std::ranges::find_if(elements, [&](Span span) { return is_own_text(text, span); });
    if (own == elements.end()) return text;
    text = cut(text, elements, static_cast<std::size_t>(own - elements.begin()));
  }
}

/// Behind the last element, on a line of its own where the elements before are.
std::string appended(const std::string& text, const std::string& entry) {
  const Span last = plugins_of(text).back();
  const auto blanks = text.find_last_not_of(" \t\r\n", last.begin - 1) + 1;
  return text.substr(0, last.end) + "," + text.substr(blanks, last.begin - blanks) + entry + text.substr(last.end);
}

}  // namespace

Result<ConfList> ConfList::parse(std::string text) {
  auto document = parse_object(text);
  if (!document) return Failure(document.error());
  const Json* name = member(*document, "name");
  if (name == nullptr || !name->is_string()) return invalid("it has no name");
  const Json* plugins = member(*document, "plugins");
  if (plugins == nullptr || !plugins->is_array() || plugins->empty()) return invalid("it has no list of plugins");
  for (const Json& plugin : *plugins) {
    if (text_member(plugin, "type").empty()) return invalid("it has a plugin without a type: " + shown(plugin));
  }
  // A key given twice would be one thing to us and another to the runtime.
  if (plugins_of(text).size() != plugins->size()) return invalid("it has the key plugins more than once");
  return ConfList(std::move(text), std::move(*document));
}

std::size_t ConfList::own_entries() const {
  return static_cast<std::size_t>(std::ranges::count_if(document_.at("plugins"), is_own));
}

bool ConfList::has_plugin(std::string_view type) const {
  return std::ranges::any_of(document_.at("plugins"),
                             [&](const Json& plugin) { return text_member(plugin, "type") == type; });
}

bool ConfList::has_entry(const Json& entry) const {
  return own_entries() == 1 && same(document_.at("plugins").back(), entry);
}

Result<void> ConfList::accepts_entry() const {
  if (own_entries() == document_.at("plugins").size()) {
    return fail(ErrorCode::kUnsupported, "it has no plugin but weft-cni, which makes no interface");
  }
  return check_version(document_);
}

Result<std::string> ConfList::with_entry(const Json& entry) const {
  if (has_entry(entry)) return text_;
  const Json expected = edited(document_, entry);
  const auto elements = plugins_of(text_);
  // Other settings at the right place: only those change.
  if (own_entries() == 1 && is_own_text(text_, elements.back())) {
    return checked(text_.substr(0, elements.back().begin) + to_text(entry) + text_.substr(elements.back().end),
                   expected);
  }
  const std::string owners = without_own(text_);
  if (plugins_of(owners).empty()) return fail(ErrorCode::kUnsupported, "edit the list: it has no plugin but weft-cni");
  return checked(appended(owners, to_text(entry)), expected);
}

Result<std::string> ConfList::without_entry() const {
  if (own_entries() == 0) return text_;
  return checked(without_own(text_), edited(document_, {}));
}

std::string following_name(std::string_view file) {
  return std::string(file.substr(0, file.rfind('.'))) + std::string(kFollowingSuffix);
}

bool is_following_name(std::string_view file) { return file.ends_with(kFollowingSuffix); }

Result<Json> parse_lone(std::string_view text) {
  auto document = parse_object(text);
  if (!document) return document;
  if (text_member(*document, "type").empty()) {
    return invalid(member(*document, "plugins") == nullptr
                       ? "it has no type"
                       : "it is a list, which runtimes take from files named .conflist only");
  }
  return document;
}

Result<std::string> following_list(std::string_view file, std::string_view text, const Json& entry) {
  auto lone = parse_lone(text);
  if (!lone) return Failure(lone.error());
  if (is_own(*lone)) return fail(ErrorCode::kUnsupported, "it has no plugin but weft-cni, which makes no interface");
  if (auto spoken = check_version(*lone); !spoken) return Failure(spoken.error());
  const std::string name = text_member(*lone, "name");
  if (name.empty()) return fail(ErrorCode::kUnsupported, "it has no name, so that no list can stand for it");
  const auto begin = text.find_first_not_of(" \t\r\n");
  const auto end = text.find_last_not_of(" \t\r\n") + 1;
  std::string list = "{\n  \"cniVersion\": " + to_text(Json(text_member(*lone, "cniVersion"))) +
                     ",\n  \"name\": " + to_text(Json(name)) + ",\n  \"" + kFollowsKey +
                     "\": " + to_text(Json(std::string(file))) + ",\n  \"plugins\": [\n    " +
                     std::string(text.substr(begin, end - begin)) + ",\n    " + to_text(entry) + "\n  ]\n}\n";
  auto made = ConfList::parse(std::move(list));
  if (!made || !made->has_entry(entry)) {
    return fail(ErrorCode::kInternal, "make a list for " + std::string(file) + ": the result is no valid list");
  }
  return made->text();
}

}  // namespace weft::cni::install
