// SPDX-License-Identifier: Apache-2.0
#include "test/netns/steady_load.h"

#include <algorithm>
#include <sstream>

namespace weft::test {
namespace {

constexpr milliseconds kSoon{20'000};
constexpr std::size_t kSomeAnswers = 20, kBytesOfAnswer = 100;

std::size_t lines_of(const Process& process) {
  const std::string out = process.out();
  return static_cast<std::size_t>(std::ranges::count(out, '\n'));
}

std::string last_of(const Process& process) {
  const std::string out = process.out();
  return out.substr(out.size() - std::min<std::size_t>(out.size(), 400)) + process.err();
}

/// The sockets of the pod that have to do with the destination, as ss lists them.
std::string sockets_of(const Pod& from, const Endpoint& to) {
  const SpawnOptions inside = {.netns = &from.netns(), .environment = {}, .input = {}};
  std::istringstream all(run({"ss", "-Htan"}, inside).out);
  std::string found;
  for (std::string line; std::getline(all, line);) {
    if (line.find(to.to_string()) != std::string::npos && !line.starts_with("TIME-WAIT")) found += line + "\n";
  }
  return found;
}

}  // namespace

void SteadyLoad::request(const Pod& from, const Endpoint& to, bool keep_alive) {
  std::vector<std::string> arguments = {program("weft-testapp"), "get", to.to_string(), "--count", "100000000",
                                        // A machine with other work is no failure.
                                        "--connect-timeout", "30", "--timeout", "30", "--every", std::to_string(every_),
                                        "--interval", std::to_string(pause_s_)};
  if (keep_alive) arguments.emplace_back("--keep-alive");
  std::string what = from.name() + " to " + to.to_string() + (keep_alive ? ", one connection" : ", a connection each");
  requests_.push_back({.from = &from, .to = to, .what = std::move(what), .process = from.start(arguments)});
}

std::string SteadyLoad::hold(const Pod& from, const Endpoint& to) {
  std::string what = from.name() + " holds " + to.to_string();
  held_.push_back({.from = &from, .to = to, .what = std::move(what), .process = from.hold(to, {"--timeout", "30"})});
  return field(held_.back().process.out(), "own");
}

std::string SteadyLoad::all_kinds(const Pod& from, const Endpoint& to) {
  for (const bool keep_alive : {true, false}) request(from, to, keep_alive);
  return hold(from, to);
}

void SteadyLoad::expect_all_go_on(const std::string& when) {
  const std::size_t more = kBytesOfAnswer * std::max<std::size_t>(1, kSomeAnswers / static_cast<std::size_t>(every_));
  for (auto& part : requests_) part.target = part.process.out_size() + more;
  const auto hangs = [](Part& part) { return part.process.running() && part.process.out_size() < part.target; };
  if (!eventually(kSoon, [&] { return std::ranges::none_of(requests_, hangs); })) {
    for (auto& part : requests_) {
      if (!hangs(part)) continue;
      ADD_FAILURE() << when << ": " << part.what << " hangs after " << last_of(part.process) << "its sockets:\n"
                    << sockets_of(*part.from, part.to);
    }
  }
  for (auto* parts : {&requests_, &held_}) {
    for (auto& part : *parts) {
      EXPECT_TRUE(part.process.running()) << when << ": " << part.what << " ended: " << last_of(part.process);
    }
  }
}

std::size_t SteadyLoad::answered() const {
  std::size_t sum = 0;
  for (const auto& part : requests_) sum += lines_of(part.process);
  return sum * static_cast<std::size_t>(every_);
}

void SteadyLoad::stop() {
  requests_.clear();
  held_.clear();
}

}  // namespace weft::test
