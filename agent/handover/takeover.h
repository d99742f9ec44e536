// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "agent/handover/messages.h"

namespace weft::agent {

/// The successor's side of a handover, up to the moment when the other agent has let go. One thread. Destroying it
/// before retire() leaves the other agent as it was.
class Takeover {
 public:
  /// Nothing where no agent runs at `path`. Errors: the one that runs refuses, or does not speak.
  static Result<std::optional<Takeover>> begin(const std::string& path, const std::string& version);

  [[nodiscard]] const Welcome& welcome() const { return welcome_; }
  /// The other agent stops accepting and gives what it has; it waits some seconds for retire().
  Result<Estate> hold();
  /// From here on there is no way back: the other agent lets go.
  Result<void> retire();
  /// For what is to be asked of it later.
  [[nodiscard]] HandoverChannel take_channel() { return std::move(channel_); }

 private:
  Takeover(HandoverChannel channel, Welcome welcome) : channel_(std::move(channel)), welcome_(std::move(welcome)) {}
  HandoverChannel channel_;
  Welcome welcome_;
};

}  // namespace weft::agent
