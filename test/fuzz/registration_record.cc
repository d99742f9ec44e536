// SPDX-License-Identifier: Apache-2.0
/// The registrations on disk, which an agent that was killed may have written by half, and another version whole.
#include <algorithm>
#include <tuple>

#include "agent/registration_records.h"
#include "test/fuzz/fuzz.h"

namespace weft::fuzz {
namespace {

auto fields(const agent::Registration& r) {
  return std::tie(r.key, r.netns_path, r.netns_id.inode, r.netns_id.cookie, r.pod_namespace, r.pod_name, r.pod_uid,
                  r.addresses, r.annotations, r.ifindex, r.host_ifindex, r.slot, r.workload_uid, r.registered_at,
                  r.enrolled, r.secondary);
}

/// Whatever a pod is called, its record can be read again.
void written(std::string_view input) {
  agent::Registration r;
  for (std::string* into :
       {&r.key.container_id, &r.key.if_name, &r.netns_path, &r.pod_namespace, &r.pod_name, &r.workload_uid}) {
    *into = take_line(input);
  }
  if (r.key.container_id.empty() || r.key.if_name.empty()) return;
  r.annotations.emplace("name", std::string(input));
  require(agent::parse_record(agent::encode_record(r, "boot")).has_value(), "a record of any names can be read", input);
}

}  // namespace

void one_input(std::string_view input) {
  written(input);
  const auto read = agent::parse_record(std::string(input));
  if (!read) return require_error(read.error(), "record: ");
  const agent::Registration& r = read->registration;
  require(std::ranges::all_of(r.addresses, &IpAddress::valid), "addresses that were read are set", input);
  const std::string text = agent::encode_record(r, read->boot_id);
  const auto again = agent::parse_record(text);
  require(again && again->boot_id == read->boot_id && fields(again->registration) == fields(r),
          "a record written again is the same", text);
  require(agent::encode_record(again->registration, again->boot_id) == text, "a record has one spelling", text);
  // An agent that was killed while it wrote.
  require(!agent::parse_record(text.substr(0, text.size() / 2)), "half a record is none", text);
}

}  // namespace weft::fuzz
