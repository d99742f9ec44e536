// SPDX-License-Identifier: Apache-2.0
#include "test/netns/steady_load.h"

#include <algorithm>

namespace weft::test {
namespace {

constexpr milliseconds kSoon{20'000};
constexpr std::size_t kSomeAnswers = 20;

std::size_t lines_of(const Process& process) {
  const std::string out = process.out();
  return static_cast<std::size_t>(std::ranges::count(out, '\n'));
}

std::string last_of(const Process& process) {
  const std::string out = process.out();
  return out.substr(out.size() - std::min<std::size_t>(out.size(), 400));
}

}  // namespace

void SteadyLoad::request(const Pod& from, const Endpoint& to, bool keep_alive) {
  std::vector<std::string> arguments = {program("weft-testapp"), "get", to.to_string(), "--count", "100000000"};
  if (keep_alive) arguments.emplace_back("--keep-alive");
  requests_.push_back(
      {from.name() + " to " + to.to_string() + (keep_alive ? ", one connection" : ", a connection each"),
       from.start(arguments)});
}

void SteadyLoad::hold(const Pod& from, const Endpoint& to) {
  held_.push_back({from.name() + " holds " + to.to_string(), from.hold(to)});
}

void SteadyLoad::expect_all_go_on(const std::string& when) {
  std::vector<std::size_t> before;
  for (const auto& part : requests_) before.push_back(lines_of(part.process));
  EXPECT_TRUE(eventually(kSoon,
                         [&] {
                           for (std::size_t i = 0; i < requests_.size(); ++i) {
                             Process& process = requests_[i].process;
                             if (process.running() && lines_of(process) < before[i] + kSomeAnswers) return false;
                           }
                           return true;
                         }))
      << when << ": requests hang";
  for (auto* parts : {&requests_, &held_}) {
    for (auto& part : *parts) {
      EXPECT_TRUE(part.process.running()) << when << ": " << part.what << " ended: " << last_of(part.process);
    }
  }
}

std::size_t SteadyLoad::answered() const {
  std::size_t sum = 0;
  for (const auto& part : requests_) sum += lines_of(part.process);
  return sum;
}

void SteadyLoad::stop() {
  requests_.clear();
  held_.clear();
}

}  // namespace weft::test
