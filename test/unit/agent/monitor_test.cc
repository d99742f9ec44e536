// SPDX-License-Identifier: Apache-2.0
/// `weftctl monitor` against an admin API whose events the test makes.
#include <gmock/gmock.h>

#include <atomic>
#include <csignal>
#include <nlohmann/json.hpp>
#include <thread>

#include "test/unit/agent/cli_fixture.h"

namespace weft::cli {
namespace {

using admin::test::refused_event;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

class WeftctlMonitor : public test::WeftctlFixture {
 protected:
  /// Events with these sequence numbers behind the first answer, which only says where it begins.
  void give(std::vector<agent::LoggedEvent> events, std::uint64_t lost = 0) {
    events_ = [events = std::move(events), lost](const agent::EventQuery& query) {
      if (!query.after) return agent::EventAnswer{.next = 10, .lost = 0, .events = {}};
      EXPECT_GE(query.after, 10U);
      if (*query.after > 10) return agent::EventAnswer{.next = *query.after, .lost = 0, .events = {}};
      return agent::EventAnswer{.next = events.back().sequence, .lost = lost, .events = events};
    };
  }
  int monitor(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "monitor");
    return query(std::move(arguments));
  }
};

agent::LoggedEvent captured_event(std::uint64_t sequence) {
  auto event = refused_event(sequence);
  event.pod = "shop/client";
  event.event.program = "from_pod";
  event.event.verdict = "capture";
  event.event.reason = "a new connection to the mesh";
  return event;
}

TEST_F(WeftctlMonitor, PrintsALineAnEvent) {
  give({captured_event(11), refused_event(12)});
  EXPECT_EQ(monitor({"--count", "2"}), kOk) << err_;
  EXPECT_EQ(out_,
            "22:13:20.001500 shop/client              from_pod    capture TCP  10.0.9.9:40000        -> 10.0.0.5:8080  "
            "       SYN  a new connection to the mesh\n"
            "22:13:20.001500 shop/web                 to_pod      drop    TCP  10.0.9.9:40000        -> 10.0.0.5:8080  "
            "       SYN  no plaintext into this pod\n");
  EXPECT_EQ(err_, "");
}

TEST_F(WeftctlMonitor, StopsAtTheCountInTheMiddleOfAnAnswer) {
  give({captured_event(11), refused_event(12), refused_event(13)});
  EXPECT_EQ(monitor({"--count", "1", "-o", "json"}), kOk);
  const json line = json::parse(out_);  // one object alone
  EXPECT_EQ(line.at("sequence"), 11);
  EXPECT_EQ(line.at("pod"), "shop/client");
}

TEST_F(WeftctlMonitor, ShowsWhatWasAskedFor) {
  auto other = refused_event(13);
  other.pod = "shop/web2";
  give({captured_event(11), refused_event(12), other});
  EXPECT_EQ(monitor({"--count", "1", "-o", "json", "--drops", "--pod", "shop/web2"}), kOk);
  EXPECT_EQ(json::parse(out_).at("sequence"), 13);
  EXPECT_EQ(monitor({"--count", "1", "-o", "json", "--drops"}), kOk);
  EXPECT_EQ(json::parse(out_).at("sequence"), 12);
}

TEST_F(WeftctlMonitor, SaysWhatWasLost) {
  give({refused_event(20)}, 9);
  EXPECT_EQ(monitor({"--count", "1"}), kOk);
  EXPECT_EQ(err_, "weftctl: 9 events were lost, they came too fast\n");
}

TEST_F(WeftctlMonitor, AnInterruptIsAnOrderlyEnd) {
  for (const int signal : {SIGINT, SIGTERM}) {
    events_ = [signal](const agent::EventQuery& query) {
      if (query.after) ::kill(::getpid(), signal);
      return agent::EventAnswer{.next = 10, .lost = 0, .events = {}};
    };
    EXPECT_EQ(monitor({}), kOk);
  }
}

TEST_F(WeftctlMonitor, TheAgentThatGoesAwayIsMissed) {
  std::atomic<bool> followed = false;
  events_ = [&](const agent::EventQuery& query) {
    followed = followed || query.after;
    return agent::EventAnswer{.next = 10, .lost = 0, .events = {}};
  };
  int code = kOk;
  std::thread following([&] { code = monitor({}); });
  while (!followed) std::this_thread::yield();
  server_.reset();
  following.join();
  EXPECT_EQ(code, kUnreachable);
  EXPECT_THAT(err_, AllOf(HasSubstr("the agent went away: GET http://127.0.0.1"), HasSubstr("is weft-agent running")));
}

TEST_F(WeftctlMonitor, AnAgentThatStopsIsMissedToo) {
  events_ = [](const agent::EventQuery& query) -> Result<agent::EventAnswer> {
    if (query.after) return fail(ErrorCode::kUnavailable, "follow the events: the agent stops");
    return agent::EventAnswer{.next = 10, .lost = 0, .events = {}};
  };
  EXPECT_EQ(monitor({}), kUnreachable);
  EXPECT_THAT(err_, AllOf(HasSubstr("the agent went away: GET /events?"), HasSubstr(": the agent stops\n")));
}

TEST_F(WeftctlMonitor, SaysWhyItCannotFollow) {
  events_ = [](const agent::EventQuery&) -> Result<agent::EventAnswer> {
    return fail(ErrorCode::kDenied, "follow the events: 4 others do so already, no more can");
  };
  EXPECT_EQ(monitor({}), kFailed);
  EXPECT_THAT(err_, AllOf(HasSubstr("status 429"), HasSubstr("4 others do so already")));
  EXPECT_EQ(monitor({"--pod", "web"}), kUsage);
  EXPECT_THAT(err_, HasSubstr("expected NAMESPACE/NAME"));
  EXPECT_EQ(monitor({"--count", "0"}), kUsage);
}

}  // namespace
}  // namespace weft::cli
