// SPDX-License-Identifier: Apache-2.0
#include "agent/handover/predecessors.h"

#include <fcntl.h>

#include "tunnel/base/log.h"

namespace weft::agent {
namespace {

constexpr milliseconds kAnswerTime{1'000};

}  // namespace

void Predecessors::add(Generation generation, HandoverChannel channel) {
  const std::lock_guard lock(mutex_);
  all_.push_back({std::move(generation), std::move(channel)});
}

/// Questions and answers are numbered, so that an answer that came too late is not taken for the next one.
void Predecessors::ask_all(const nlohmann::json& question,
                           const std::function<void(Predecessor&, const nlohmann::json&)>& take) {
  const std::lock_guard lock(mutex_);
  for (auto it = all_.begin(); it != all_.end();) {
    const auto current = it++;
    nlohmann::json numbered = question;
    numbered["number"] = ++questions_;
    auto sent = current->channel.send(numbered, {}, kAnswerTime);
    auto answer = sent ? current->channel.receive(kAnswerTime) : Result<HandoverMessage>(Failure(sent.error()));
    while (answer && answer->body.value("number", std::uint64_t{0}) != questions_)
      answer = current->channel.receive(kAnswerTime);
    if (answer) {
      if (auto taken = understood("its answer", [&] { return take(*current, answer->body), true; }); !taken)
        log::warn("agent of generation {} error={}", current->generation.number, log::quote(taken.error().message()));
    } else if (answer.error().code == ErrorCode::kUnavailable) {
      log::info("agent of an earlier generation has ended generation={} pid={}", current->generation.number,
                current->generation.pid);
      all_.erase(current);
    }
  }
}

std::vector<Generation> Predecessors::generations() {
  std::vector<Generation> list;
  ask_all({{"ask", "status"}}, [&](Predecessor& predecessor, const nlohmann::json& answer) {
    predecessor.generation = generation_from(answer);
    list.push_back(predecessor.generation);
  });
  return list;
}

std::vector<proxy::ConnectionInfo> Predecessors::connections() {
  std::vector<proxy::ConnectionInfo> list;
  ask_all({{"ask", "connections"}}, [&](Predecessor& predecessor, const nlohmann::json& answer) {
    for (const auto& connection : answer.at("connections")) {
      list.push_back(connection_from(connection));
      list.back().generation = predecessor.generation.number;
    }
  });
  return list;
}

void Predecessors::forget(std::uint32_t slot) {
  ask_all({{"ask", "forget"}, {"slot", slot}}, [](Predecessor&, const nlohmann::json&) {});
}

std::vector<NamedPredecessor> Predecessors::hand_on() {
  const std::lock_guard lock(mutex_);
  std::vector<NamedPredecessor> list;
  for (const auto& predecessor : all_) {
    Fd copy(::fcntl(predecessor.channel.fd(), F_DUPFD_CLOEXEC, 0));
    if (copy) list.push_back({predecessor.generation, std::move(copy)});
  }
  return list;
}

void Predecessors::let_go() {
  const std::lock_guard lock(mutex_);
  all_.clear();
}

}  // namespace weft::agent
