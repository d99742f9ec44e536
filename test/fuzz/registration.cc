// SPDX-License-Identifier: Apache-2.0
/// Messages between plugin and agent, in both directions.
#include "cni-plugin/registration.h"

#include <algorithm>
#include <array>

#include "test/fuzz/fuzz.h"

namespace weft::fuzz {
namespace {

using cni::Reply;
using cni::Request;
using cni::Verb;

auto fields(const Request& r) {
  return std::tie(r.version, r.verb, r.key, r.netns, r.pod_namespace, r.pod_name, r.pod_uid, r.addresses, r.annotations,
                  r.ifindex, r.host_ifindex, r.netns_inode, r.valid);
}

void request(std::string_view input) {
  const auto read = cni::parse_request(input);
  if (!read) return require_error(read.error(), "request");
  require(read->version >= 1 && read->version <= cni::kProtocolVersion, "a version that is spoken", input);
  const bool keyed = read->verb == Verb::kRegister || read->verb == Verb::kUnregister || read->verb == Verb::kCheck;
  require(keyed == !read->key.container_id.empty() && keyed == !read->key.if_name.empty(),
          "whose registration it is is said where it must be", input);
  require(std::ranges::all_of(read->addresses, &IpAddress::valid), "addresses that were read are set", input);
  const std::string text = cni::encode(*read);
  const auto again = cni::parse_request(text);
  require(again && fields(*again) == fields(*read), "a request written again is the same", text);
  require(cni::encode(*again) == text, "a request has one spelling", text);
}

void reply(std::string_view input) {
  const auto read = cni::parse_reply(input);
  if (!read) return require_error(read.error(), "reply");
  require(!read->error || !read->error->message().empty(), "a refusal has a text", input);
  const std::string text = cni::encode(*read);
  const auto again = cni::parse_reply(text);
  require(again && again->version == read->version && again->enrolled == read->enrolled &&
              again->notes == read->notes && again->error.has_value() == read->error.has_value(),
          "a reply written again is the same", text);
  if (!read->error) return;
  require(again->error->code == read->error->code && again->error->message() == read->error->message(),
          "a refusal written again is the same", text);
}

/// Whatever a pod is called and whatever has failed: the other side can read what is written.
void written(std::string_view input) {
  Request request;
  request.verb = Verb::kRegister;
  for (std::string* into : {&request.key.container_id, &request.key.if_name, &request.netns, &request.pod_namespace,
                            &request.pod_name, &request.pod_uid, &request.annotations["name"]}) {
    *into = take_line(input);
  }
  if (request.key.container_id.empty() || request.key.if_name.empty() || request.netns.empty()) return;
  require(cni::parse_request(cni::encode(request)).has_value(), "a request of any names can be read", input);
  Reply reply;
  reply.notes = {request.netns, std::string(input)};
  require(cni::parse_reply(cni::encode(reply)).has_value(), "a reply of any notes can be read", input);
  reply.error = Error{ErrorCode::kDenied, 0, std::string(input)};
  const auto refused = cni::parse_reply(cni::encode(reply));
  require(refused && refused->error && refused->error->code == ErrorCode::kDenied, "a refusal stays one", input);
}

}  // namespace

void one_input(std::string_view input) {
  if (input.size() > cni::kMaxMessage) return;  // the transport refuses it
  request(input);
  reply(input);
  written(input);
}

}  // namespace weft::fuzz
