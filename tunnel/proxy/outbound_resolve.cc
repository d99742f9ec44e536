// SPDX-License-Identifier: Apache-2.0
/// Outbound's part for endpoints that are known by their names alone.

#include "tunnel/proxy/context.h"
#include "tunnel/proxy/outbound.h"

namespace weft::proxy {

using state::Destination;
using state::NameAnswer;
using telemetry::ResponseFlag;

void Outbound::on_names() {
  if (state_ == State::kResolve) advance();
}

/// True when the destination has its address. Otherwise this waits for it, or has failed.
bool Outbound::resolve(const state::Workload& own) {
  state_ = State::kResolve;
  const std::string what = "resolve " + destination_.hostname + ": ";
  const NameAnswer answer = worker_.node.resolve(destination_.hostname);
  if (answer.kind == NameAnswer::Kind::kPending) return false;
  named_.emplace(Named{destination_.workload, destination_.hostname, {}});
  if (answer.kind == NameAnswer::Kind::kFailed) {
    attempt_failed(ResponseFlag::kConnect, what + answer.reason, Again::kElsewhere);
    return false;
  }
  const auto families = destination_.service && destination_.service->ip_families ? *destination_.service->ip_families
                                                                                  : state::IpFamilies::kDual;
  named_->address =
      state::choose_address(*answer.addresses, original_.address, families, worker_.random(), avoid_address_);
  if (!named_->address.valid()) {
    attempt_failed(
        ResponseFlag::kConnect,
        what + answer.addresses->front().to_string() + " is of no use (loopback, or not the service's family)",
        Again::kElsewhere);
    return false;
  }
  if (!is_told(own, named_->address)) return false;
  destination_ = worker_.state->resolved(own, std::move(destination_), named_->address, worker_.random());
  return take_destination(own);
}

/// Whether the name of the attempt that failed has an address besides the one that was dialled; the next attempt avoids
/// that one.
bool Outbound::has_other_address() {
  if (!named_ || !named_->address.valid()) return false;
  const NameAnswer answer = worker_.node.resolve(named_->hostname);
  if (answer.kind != NameAnswer::Kind::kAddresses || answer.addresses->size() < 2) return false;
  avoid_address_ = named_->address;
  return true;
}

}  // namespace weft::proxy
