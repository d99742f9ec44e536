// SPDX-License-Identifier: Apache-2.0
#include "agent/handover/takeover.h"

#include <unistd.h>

#include "tunnel/base/log.h"

namespace weft::agent {
namespace {

constexpr milliseconds kPatience{10'000};
/// Others may take over at the same moment: then the one to ask is another one.
constexpr int kAttempts = 5;

Result<Welcome> greet(const HandoverChannel& channel, const std::string& version) {
  auto sent = channel.send(
      {{"ask", "handover"}, {"protocol", kHandoverProtocol}, {"version", version}, {"pid", ::getpid()}}, {}, kPatience);
  if (!sent) return Failure(sent.error());
  auto reply = channel.receive(kPatience);
  if (!reply) return Failure(reply.error());
  if (reply->body.contains("refused")) {
    return fail(ErrorCode::kUnsupported,
                "take over from the running agent: " + reply->body.value("refused", std::string("it refuses")));
  }
  return understood("its welcome", [&] { return welcome_from(reply->body); });
}

}  // namespace

Result<std::optional<Takeover>> Takeover::begin(const std::string& path, const std::string& version) {
  for (int attempt = 1;; ++attempt) {
    auto channel = HandoverChannel::connect(path, kPatience);
    if (!channel && channel.error().code == ErrorCode::kNotFound) return std::optional<Takeover>();
    if (!channel) return Failure(channel.error());
    auto welcome = greet(*channel, version);
    if (welcome) return std::optional(Takeover(std::move(*channel), std::move(*welcome)));
    if (welcome.error().code != ErrorCode::kUnavailable || attempt == kAttempts) return Failure(welcome.error());
  }
}

Result<Estate> Takeover::hold() {
  if (auto asked = channel_.send({{"ask", "hold"}}, {}, kPatience); !asked) return Failure(asked.error());
  return receive_estate(channel_, kPatience);
}

Result<void> Takeover::retire() {
  if (auto asked = channel_.send({{"ask", "retire"}}, {}, kPatience); !asked) return asked;
  auto reply = channel_.receive(kPatience);
  // Dead: then it has let go, too.
  if (!reply && reply.error().code != ErrorCode::kUnavailable) return Failure(reply.error());
  if (!reply) log::warn("the agent before this one ended while it handed over");
  return {};
}

}  // namespace weft::agent
