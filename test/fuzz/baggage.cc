// SPDX-License-Identifier: Apache-2.0
/// What a peer says of itself, which goes into labels and logs; and what is said of a workload with odd names.
#include <algorithm>
#include <array>
#include <tuple>

#include "test/fuzz/fuzz.h"
#include "tunnel/hbone/headers.h"

namespace weft::fuzz {
namespace {

constexpr std::size_t kMaxValue = 256;
constexpr std::array<std::string_view, 4> kTypes = {"deployment", "cronjob", "pod", "job"};

auto fields(const hbone::PeerDescription& d) {
  return std::tie(d.cluster, d.namespace_name, d.workload_name, d.workload_type, d.canonical_name, d.canonical_revision,
                  d.region, d.zone);
}

state::Workload workload_of(const hbone::PeerDescription& said) {
  state::Workload w;
  w.cluster_id = said.cluster;
  w.namespace_name = said.namespace_name;
  w.workload_name = said.workload_name;
  w.workload_type = said.workload_type;
  w.canonical_name = said.canonical_name;
  w.canonical_revision = said.canonical_revision;
  w.locality.region = said.region;
  w.locality.zone = said.zone;
  return w;
}

std::string header_of(const state::Workload& workload) {
  std::string header = hbone::baggage(workload);
  require(is_printable(header) && header.find_first_of(" \"\\;") == std::string::npos, "baggage can stand in a header",
          header);
  return header;
}

void read(std::string_view input) {
  const auto said = hbone::parse_baggage(input);
  std::apply(
      [&](const auto&... value) {
        (require(is_printable(value) && value.size() <= kMaxValue, "a value fits logs and labels", value), ...);
      },
      fields(said));
  require(said.workload_name.empty() == said.workload_type.empty(), "a workload's name comes with its type", input);
  require(said.workload_type.empty() || std::ranges::find(kTypes, said.workload_type) != kTypes.end(),
          "a workload's type is a known one", said.workload_type);
  const auto again = hbone::parse_baggage(header_of(workload_of(said)));
  require(fields(again) == fields(said), "baggage written again says the same", input);
}

/// Names of the configuration are anything.
void written(std::string_view input) {
  state::Workload w;
  for (std::string* into : {&w.cluster_id, &w.namespace_name, &w.workload_name, &w.canonical_name,
                            &w.canonical_revision, &w.locality.region, &w.locality.zone}) {
    *into = take_line(input).substr(0, 1000);
  }
  w.workload_type = kTypes[w.cluster_id.size() % kTypes.size()];
  const auto fit = [](const std::string& value) {
    return is_printable(value) && value.size() <= kMaxValue ? value : std::string();
  };
  hbone::PeerDescription expected{fit(w.cluster_id),      fit(w.namespace_name), fit(w.workload_name),
                                  w.workload_type,        fit(w.canonical_name), fit(w.canonical_revision),
                                  fit(w.locality.region), fit(w.locality.zone)};
  if (expected.workload_name.empty()) expected.workload_type.clear();
  const std::string header = header_of(w);
  if (header.size() > 8192) return;  // more than a reader takes
  require(fields(hbone::parse_baggage(header)) == fields(expected), "a workload's baggage is read as its names",
          header);
}

}  // namespace

void one_input(std::string_view input) {
  read(input);
  written(input);
}

}  // namespace weft::fuzz
