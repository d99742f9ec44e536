// SPDX-License-Identifier: Apache-2.0
#include "tunnel/dns/lookup.h"

#include <algorithm>

namespace weft::dns {
namespace {

/// How long the second family may take longer than the first: some servers never answer questions for AAAA.
constexpr milliseconds kOtherFamily{250};

}  // namespace

Outcome combine(const std::optional<Outcome>& v4, const std::optional<Outcome>& v6) {
  Outcome out;
  out.ttl = std::chrono::seconds::max();
  out.definite = true;
  for (const auto& one : {v4, v6}) {
    if (!one) continue;
    if (!one->addresses.empty()) {
      out.addresses.insert(out.addresses.end(), one->addresses.begin(), one->addresses.end());
      out.ttl = std::min(out.ttl, one->ttl);
      continue;
    }
    // Of two reasons the one that nobody has answered says more.
    if (out.reason.empty() || (out.definite && !one->definite)) out.reason = one->reason;
    out.definite = out.definite && one->definite;
  }
  if (!out.addresses.empty()) {
    // What has not come may well exist: one lost datagram must not hide a family for as long as the other one's TTL.
    out.partial = !v4 || !v6 || !out.definite;
    out.definite = true;
    out.reason.clear();
  }
  return out;
}

Lookup::Lookup(loop::EventLoop& loop, const QuerySettings& settings, const std::vector<Endpoint>& servers,
               const std::string& name, Query::Done done)
    : v4_(loop, settings, servers, name, RecordType::kA,
          [this](Outcome outcome) { on_done(v4_outcome_, std::move(outcome)); }),
      v6_(loop, settings, servers, name, RecordType::kAaaa,
          [this](Outcome outcome) { on_done(v6_outcome_, std::move(outcome)); }),
      done_(std::move(done)),
      other_(loop) {}

void Lookup::start() {
  v4_.start();
  v6_.start();
}

void Lookup::on_done(std::optional<Outcome>& which, Outcome outcome) {
  if (finished_) return;
  which = std::move(outcome);
  if (v4_outcome_ && v6_outcome_) return finish();
  if (!which->addresses.empty()) other_.arm(kOtherFamily, [this] { finish(); });
}

void Lookup::finish() {
  finished_ = true;
  other_.cancel();
  done_(combine(v4_outcome_, v6_outcome_));
}

}  // namespace weft::dns
