// SPDX-License-Identifier: Apache-2.0
#include "agent/handover/predecessors.h"

#include <fcntl.h>

#include "agent/handover/metrics_merge.h"
#include "tunnel/base/log.h"

namespace weft::agent {
namespace {

constexpr milliseconds kAnswerTime{1'000};

}  // namespace

void Predecessors::add(Generation generation, HandoverChannel channel) {
  const std::lock_guard lock(mutex_);
  all_.push_back({.generation = std::move(generation), .channel = std::move(channel)});
}

/// Its last words are in the channel still.
void Predecessors::has_ended(Predecessor& predecessor) {
  log::info("agent of an earlier generation has ended generation={} pid={}", predecessor.generation.number,
            predecessor.generation.pid);
  while (auto message = predecessor.channel.receive(milliseconds(0))) {
    if (message->body.contains("farewell")) predecessor.metrics = message->body["farewell"];
  }
  auto added = understood("its metrics", [&] { return add_metrics(ended_, predecessor.metrics, true), true; });
  if (!added) log::warn("what it counted is lost error={}", log::quote(added.error().message()));
}

nlohmann::json Predecessors::metrics() {
  ask_all({{"ask", "metrics"}},
          [](Predecessor& predecessor, const nlohmann::json& answer) { predecessor.metrics = answer.at("metrics"); });
  const std::lock_guard lock(mutex_);
  nlohmann::json sum = ended_;
  for (const auto& predecessor : all_) add_metrics(sum, predecessor.metrics, false);
  return sum;
}

void Predecessors::add_ended(const nlohmann::json& metrics) {
  const std::lock_guard lock(mutex_);
  auto added = understood("the metrics of ended agents", [&] { return add_metrics(ended_, metrics, true), true; });
  if (!added) log::warn("what they counted is lost error={}", log::quote(added.error().message()));
}

nlohmann::json Predecessors::ended_metrics() {
  const std::lock_guard lock(mutex_);
  return ended_;
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
    while (answer && answer->body.value("number", std::uint64_t{0}) != questions_) {
      if (answer->body.contains("farewell")) current->metrics = answer->body["farewell"];
      answer = current->channel.receive(kAnswerTime);
    }
    if (answer) {
      if (auto taken = understood("its answer", [&] { return take(*current, answer->body), true; }); !taken)
        log::warn("agent of generation {} error={}", current->generation.number, log::quote(taken.error().message()));
    } else if (answer.error().code == ErrorCode::kUnavailable) {
      has_ended(*current);
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
