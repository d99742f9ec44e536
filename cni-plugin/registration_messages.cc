// SPDX-License-Identifier: Apache-2.0
#include <limits>

#include "cni-plugin/json.h"
#include "cni-plugin/registration.h"

namespace weft::cni {
namespace {

struct VerbName {
  Verb verb;
  const char* name;
};
constexpr VerbName kVerbs[] = {{Verb::kRegister, "register"},
                               {Verb::kUnregister, "unregister"},
                               {Verb::kCheck, "check"},
                               {Verb::kGc, "gc"},
                               {Verb::kStatus, "status"}};

struct CodeName {
  ErrorCode code;
  const char* name;
};
// The first name of a code is the one that is written.
constexpr CodeName kCodes[] = {{ErrorCode::kUnavailable, "unavailable"}, {ErrorCode::kTimeout, "unavailable"},
                               {ErrorCode::kInvalid, "invalid"},         {ErrorCode::kDenied, "denied"},
                               {ErrorCode::kNotFound, "not-found"},      {ErrorCode::kInternal, "internal"},
                               {ErrorCode::kUnsupported, "unsupported"}};

const char* name_of(ErrorCode code) {
  for (const auto& entry : kCodes) {
    if (entry.code == code) return entry.name;
  }
  return "internal";
}

/// A code that a later agent invents is a failure like any other.
ErrorCode code_named(const std::string& name) {
  for (const auto& entry : kCodes) {
    if (name == entry.name) return entry.code;
  }
  return ErrorCode::kInternal;
}

Failure malformed(const char* message, const std::string& field, const Json* found, const char* expected) {
  return fail(ErrorCode::kInvalid, std::string(message) + ": " + field + " is " +
                                       (found == nullptr ? std::string("missing") : shown(*found)) + ", expected " +
                                       expected);
}

Result<int> read_version(const char* message, const Json& document) {
  const Json* found = member(document, "version");
  if (found == nullptr || !found->is_number_integer() || found->get<std::int64_t>() < 1 ||
      found->get<std::int64_t>() > std::numeric_limits<int>::max()) {
    return malformed(message, "version", found, "a whole number from 1");
  }
  return found->get<int>();
}

/// A text that must be there and not empty.
Result<std::string> read_text(const Json& document, const char* field) {
  const Json* found = member(document, field);
  const auto* text = found == nullptr ? nullptr : found->get_ptr<const Json::string_t*>();
  if (text == nullptr || text->empty()) return malformed("request", field, found, "a text");
  return *text;
}

template <class T>
Result<T> read_number(const Json& document, const char* field) {
  const Json* found = member(document, field);
  if (found == nullptr || !found->is_number_unsigned() || found->get<std::uint64_t>() > std::numeric_limits<T>::max()) {
    return malformed("request", field, found, "a whole number from 0");
  }
  return found->get<T>();
}

Result<AttachmentKey> read_key(const Json& document) {
  auto container_id = read_text(document, "containerId");
  if (!container_id) return Failure(std::move(container_id.error()));
  auto if_name = read_text(document, "ifName");
  if (!if_name) return Failure(std::move(if_name.error()));
  return AttachmentKey{std::move(*container_id), std::move(*if_name)};
}

Json key_document(const AttachmentKey& key) { return {{"containerId", key.container_id}, {"ifName", key.if_name}}; }

Result<std::vector<IpAddress>> read_addresses(const Json& document) {
  const Json* found = member(document, "addresses");
  if (found == nullptr || !found->is_array()) return malformed("request", "addresses", found, "a list of addresses");
  std::vector<IpAddress> addresses;
  for (const Json& entry : *found) {
    const auto* text = entry.get_ptr<const Json::string_t*>();
    if (text == nullptr) return malformed("request", "addresses", &entry, "a list of addresses");
    auto address = IpAddress::parse(*text);
    if (!address) return malformed("request", "addresses", &entry, "a list of addresses");
    addresses.push_back(*address);
  }
  return addresses;
}

Result<void> read_register(const Json& document, Request& request) {
  auto netns = read_text(document, "netns");
  if (!netns) return Failure(std::move(netns.error()));
  request.netns = std::move(*netns);
  request.pod_namespace = text_member(document, "podNamespace");
  request.pod_name = text_member(document, "podName");
  request.pod_uid = text_member(document, "podUid");
  auto addresses = read_addresses(document);
  if (!addresses) return Failure(std::move(addresses.error()));
  request.addresses = std::move(*addresses);
  auto ifindex = read_number<std::uint32_t>(document, "ifindex");
  if (!ifindex) return Failure(std::move(ifindex.error()));
  auto host_ifindex = read_number<std::uint32_t>(document, "hostIfindex");
  if (!host_ifindex) return Failure(std::move(host_ifindex.error()));
  request.ifindex = *ifindex;
  request.host_ifindex = *host_ifindex;
  const Json* annotations = member(document, "annotations");
  if (annotations == nullptr) return {};
  if (!annotations->is_object()) return malformed("request", "annotations", annotations, "an object of texts");
  for (const auto& [name, value] : annotations->items()) {
    if (!value.is_string()) return malformed("request", "annotations", &value, "an object of texts");
    request.annotations.emplace(name, value.template get<std::string>());
  }
  return {};
}

Result<void> read_gc(const Json& document, Request& request) {
  const Json* valid = member(document, "valid");
  // An absent list must never read as an empty one: that would collect every pod.
  if (valid == nullptr || !valid->is_array()) return malformed("request", "valid", valid, "a list of attachments");
  for (const Json& entry : *valid) {
    auto key = read_key(entry);
    if (!key) return Failure(std::move(key.error()));
    request.valid.push_back(std::move(*key));
  }
  return {};
}

Result<void> read_body(const Json& document, Request& request) {
  if (request.verb == Verb::kStatus) return {};
  if (request.verb == Verb::kGc) return read_gc(document, request);
  auto key = read_key(document);
  if (!key) return Failure(std::move(key.error()));
  request.key = std::move(*key);
  if (request.verb == Verb::kRegister) return read_register(document, request);
  if (request.verb == Verb::kCheck) {
    auto inode = read_number<std::uint64_t>(document, "netnsInode");
    if (!inode) return Failure(std::move(inode.error()));
    request.netns_inode = *inode;
  }
  return {};
}

Result<Json> read_document(const char* message, std::string_view text) {
  auto document = parse_json(text);
  if (!document) return fail(ErrorCode::kInvalid, std::string(message) + ": " + document.error().message());
  if (!document->is_object()) return malformed(message, "the document", &*document, "an object");
  return document;
}

}  // namespace

std::string encode(const Request& request) {
  Json document;
  document["version"] = request.version;
  for (const auto& entry : kVerbs) {
    if (entry.verb == request.verb) document["verb"] = entry.name;
  }
  if (request.verb == Verb::kGc) {
    document["valid"] = Json::array();
    for (const auto& key : request.valid) document["valid"].push_back(key_document(key));
  } else if (request.verb != Verb::kStatus) {
    document.update(key_document(request.key));
  }
  if (request.verb == Verb::kRegister) {
    document["netns"] = request.netns;
    document["podNamespace"] = request.pod_namespace;
    document["podName"] = request.pod_name;
    document["podUid"] = request.pod_uid;
    document["addresses"] = Json::array();
    for (const auto& address : request.addresses) document["addresses"].push_back(address.to_string());
    document["ifindex"] = request.ifindex;
    document["hostIfindex"] = request.host_ifindex;
    if (!request.annotations.empty()) document["annotations"] = request.annotations;
  }
  if (request.verb == Verb::kCheck) document["netnsInode"] = request.netns_inode;
  return to_text(document);
}

std::string encode(const Reply& reply) {
  Json document;
  document["version"] = reply.version;
  document["ok"] = !reply.error.has_value();
  if (reply.error) {
    document["code"] = name_of(reply.error->code);
    document["message"] = reply.error->message();
  } else {
    document["enrolled"] = reply.enrolled;
    document["notes"] = reply.notes;
  }
  return to_text(document);
}

Result<Request> parse_request(std::string_view text) {
  auto document = read_document("request", text);
  if (!document) return Failure(std::move(document.error()));
  auto version = read_version("request", *document);
  if (!version) return Failure(std::move(version.error()));
  if (*version > kProtocolVersion) {
    return fail(ErrorCode::kUnsupported, "request: the plugin speaks version " + std::to_string(*version) +
                                             " of the registration protocol, this agent at most " +
                                             std::to_string(kProtocolVersion) + " (upgrade weft-agent first)");
  }
  Request request;
  request.version = *version;
  const std::string verb = text_member(*document, "verb");
  const VerbName* known = nullptr;
  for (const auto& entry : kVerbs) {
    if (verb == entry.name) known = &entry;
  }
  if (known == nullptr) {
    return malformed("request", "verb", member(*document, "verb"), "register, unregister, check, gc or status");
  }
  request.verb = known->verb;
  if (auto body = read_body(*document, request); !body) return Failure(std::move(body.error()));
  return request;
}

Result<Reply> parse_reply(std::string_view text) {
  auto document = read_document("reply", text);
  if (!document) return Failure(std::move(document.error()));
  auto version = read_version("reply", *document);
  if (!version) return Failure(std::move(version.error()));
  Reply reply;
  reply.version = *version;
  const Json* ok = member(*document, "ok");
  if (ok == nullptr || !ok->is_boolean()) return malformed("reply", "ok", ok, "true or false");
  if (!ok->get<bool>()) {
    const std::string message = text_member(*document, "message");
    reply.error = Error{code_named(text_member(*document, "code")), 0, message.empty() ? "no reason given" : message};
    return reply;
  }
  if (*version > kProtocolVersion) {
    return fail(ErrorCode::kUnsupported, "reply: the agent answered in version " + std::to_string(*version) +
                                             " of the registration protocol, this plugin speaks at most " +
                                             std::to_string(kProtocolVersion));
  }
  const Json* enrolled = member(*document, "enrolled");
  reply.enrolled = enrolled != nullptr && enrolled->is_boolean() && enrolled->get<bool>();
  if (const Json* notes = member(*document, "notes"); notes != nullptr && notes->is_array()) {
    for (const Json& note : *notes) {
      if (note.is_string()) reply.notes.push_back(note.get_ref<const std::string&>());
    }
  }
  return reply;
}

}  // namespace weft::cni
