// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "tunnel/dns/query.h"

namespace weft::dns {

/// The addresses of one name: both families are asked for at once. Where one family has come with addresses, the other
/// is waited for only a little longer. One thread.
class Lookup final : public loop::Deferred {
 public:
  /// `done` is called once, never from within start(); what it destroys this by is the loop's defer_delete.
  Lookup(loop::EventLoop& loop, const QuerySettings& settings, const std::vector<Endpoint>& servers,
         const std::string& name, Query::Done done);
  void start();

 private:
  void on_done(std::optional<Outcome>& which, Outcome outcome);
  void finish();

  Query v4_, v6_;
  std::optional<Outcome> v4_outcome_, v6_outcome_;
  Query::Done done_;
  bool finished_ = false;
  loop::Timer other_;
};

/// One outcome of those of the two families, of which those that have not come are none.
[[nodiscard]] Outcome combine(const std::optional<Outcome>& v4, const std::optional<Outcome>& v6);

}  // namespace weft::dns
