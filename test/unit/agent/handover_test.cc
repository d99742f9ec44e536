// SPDX-License-Identifier: Apache-2.0
/// The messages of a handover, and what becomes of it when the other side lies, is silent or goes.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "agent/handover/metrics_merge.h"
#include "agent/handover/predecessors.h"
#include "agent/handover/server.h"
#include "agent/handover/takeover.h"
#include "test/unit/agent/fakes.h"

namespace weft::agent {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr milliseconds kTime{5'000};

std::pair<HandoverChannel, HandoverChannel> channels() {
  int ends[2] = {-1, -1};
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
  return {HandoverChannel(Fd(ends[0])), HandoverChannel(Fd(ends[1]))};
}

Fd some_file(const std::string& content) {
  Fd file(::memfd_create("weft-unit", MFD_CLOEXEC));
  EXPECT_EQ(::write(file.get(), content.data(), content.size()), static_cast<ssize_t>(content.size()));
  return file;
}

std::string content_of(const Fd& file) {
  std::string text(64, '\0');
  const ssize_t n = ::pread(file.get(), text.data(), text.size(), 0);
  text.resize(static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
  return text;
}

TEST(HandoverChannel, CarriesShortAndLongBodiesWithDescriptors) {
  const auto [a, b] = channels();
  const Fd file = some_file("x");
  for (const std::size_t size : {1UL, 20'000UL, 5'000'000UL}) {
    const json body = {{"text", std::string(size, 'a')}};
    ASSERT_TRUE(a.send(body, {file.get(), file.get()}, kTime));
    auto got = b.receive(kTime);
    ASSERT_TRUE(got) << got.error().message();
    EXPECT_EQ(got->body, body);
    ASSERT_THAT(got->fds, SizeIs(2));
    EXPECT_EQ(content_of(got->fds[1]), "x");
    EXPECT_NE(::fcntl(got->fds[1].get(), F_GETFD) & FD_CLOEXEC, 0);
  }
}

TEST(HandoverChannel, SaysWhenTheOtherSideIsSilentOrGoneOrTalksNonsense) {
  auto [a, b] = channels();
  EXPECT_EQ(b.receive(milliseconds(1)).error().code, ErrorCode::kTimeout);
  ASSERT_EQ(::send(a.fd(), "[1]", 3, 0), 3);
  EXPECT_EQ(b.receive(kTime).error().code, ErrorCode::kInvalid);
  ASSERT_EQ(::send(a.fd(), "{", 1, 0), 1);
  EXPECT_EQ(b.receive(kTime).error().code, ErrorCode::kInvalid);
  { const HandoverChannel gone = std::move(a); }
  EXPECT_EQ(b.receive(kTime).error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(b.send({{"a", 1}}, {}, kTime).error().code, ErrorCode::kUnavailable);
}

TEST(HandoverMessages, TheEstateArrivesAsItWasSent) {
  const auto [a, b] = channels();
  Estate sent;
  sent.listeners.resize(2);
  for (std::uint32_t slot : {0U, 7U}) {
    for (auto& worker : sent.listeners) worker[slot].push_back({some_file("o"), some_file("h"), some_file("p")});
  }
  sent.listeners[1][7].push_back({some_file("O"), some_file("H"), some_file("P")});
  sent.listeners[1][7][0].dns_v4 = some_file("4");
  sent.listeners[1][7][1].dns_v4 = some_file("44");
  sent.listeners[1][7][1].dns_v6 = some_file("66");
  sent.sockets.push_back({"admin", some_file("admin")});
  sent.predecessors.push_back(
      {{.number = 4, .version = "1.2", .pid = 99, .started = {}, .load = {.connections = 3, .tunnels = 1}},
       some_file("channel")});
  ASSERT_TRUE(send_estate(a, sent, kTime));
  auto got = receive_estate(b, kTime);
  ASSERT_TRUE(got) << got.error().message();
  ASSERT_THAT(got->listeners, SizeIs(2));
  EXPECT_THAT(got->listeners[0].at(7), SizeIs(1));
  ASSERT_THAT(got->listeners[1].at(7), SizeIs(2));
  EXPECT_EQ(content_of(got->listeners[1].at(7)[0].outbound), "o");
  EXPECT_EQ(content_of(got->listeners[1].at(7)[1].inbound_hbone), "H");
  EXPECT_EQ(content_of(got->listeners[1].at(7)[1].inbound_plaintext), "P");
  EXPECT_EQ(content_of(got->listeners[1].at(7)[0].dns_v4), "4");
  EXPECT_FALSE(got->listeners[1].at(7)[0].dns_v6) << "a kernel without IPv6";
  EXPECT_EQ(content_of(got->listeners[1].at(7)[1].dns_v4), "44");
  EXPECT_EQ(content_of(got->listeners[1].at(7)[1].dns_v6), "66");
  EXPECT_FALSE(got->listeners[0].at(7)[0].dns_v4) << "a pod whose DNS is its own";
  ASSERT_THAT(got->sockets, SizeIs(1));
  EXPECT_EQ(content_of(got->sockets[0].fd), "admin");
  ASSERT_THAT(got->predecessors, SizeIs(1));
  EXPECT_EQ(got->predecessors[0].generation.number, 4U);
  EXPECT_EQ(got->predecessors[0].generation.load.connections, 3U);
}

TEST(HandoverMessages, AConnectionArrivesWithTheCertificateOfItsTunnel) {
  proxy::ConnectionInfo sent;
  sent.pod = "shop/web";
  sent.direction = "outbound";
  sent.source = Endpoint::parse("10.0.0.5:40000").value();
  sent.hbone = Endpoint::parse("10.0.1.9:15008").value();
  sent.peer_serial = "0AFF";
  sent.peer_valid_until = std::chrono::system_clock::from_time_t(1'800'000'000);
  const json body = to_json(sent);
  EXPECT_EQ(body.at("peerCertificate"), (json{{"serial", "0AFF"}, {"validUntil", "2027-01-15T08:00:00Z"}}));
  EXPECT_EQ(to_json(connection_from(body)), body);
  sent.peer_serial.clear();
  EXPECT_FALSE(to_json(sent).contains("peerCertificate"));
  EXPECT_EQ(connection_from(to_json(sent)).peer_serial, "");
}

TEST(HandoverMessages, AnEstateOfNonsenseIsRefusedOrPassedOver) {
  for (const json& body : {json{{"end", true}}, json{{"listeners", 1}}, json{{"listeners", "x"}, {"worker", 0}},
                           json{{"end", true}, {"workers", "many"}}, json{{"dns", 1}}}) {
    const auto [a, b] = channels();
    ASSERT_TRUE(a.send(body, {}, kTime));
    EXPECT_EQ(receive_estate(b, kTime).error().code, ErrorCode::kInvalid) << body;
  }
  const auto [a, b] = channels();
  const Fd file = some_file("x");
  ASSERT_TRUE(a.send({{"listeners", 1}, {"worker", 100'000'000}}, {file.get(), file.get(), file.get()}, kTime));
  ASSERT_TRUE(a.send({{"fromTheFuture", 1}}, {file.get()}, kTime));
  ASSERT_TRUE(a.send({{"dns", 1}, {"worker", 0}, {"places", {{0, 4}}}}, {file.get()}, kTime)) << "of no listeners";
  ASSERT_TRUE(a.send({{"socket", "none"}}, {}, kTime));
  ASSERT_TRUE(send_estate(a, {}, kTime));
  auto got = receive_estate(b, kTime);
  ASSERT_TRUE(got) << got.error().message();
  EXPECT_THAT(got->listeners, IsEmpty());
  EXPECT_THAT(got->sockets, IsEmpty());
}

/// As metrics_merge.h has them.
json counted(double opened, double open = 2) {
  return {{"opened_total", {{"type", "counter"}, {"help", "h"}, {"values", {{R"({"pod":"a"})", opened}}}}},
          {"open", {{"type", "gauge"}, {"help", "h"}, {"values", {{"{}", open}}}}}};
}

class FakeOwner final : public HandoverOwner {
 public:
  Welcome welcome() override {
    return {.generation = {.number = 2, .version = "0.1", .pid = 5, .started = {}, .load = {}}, .identities = {}};
  }
  Result<Estate> hold() override {
    if (refuse) return fail(ErrorCode::kTimeout, "a worker is busy");
    ++holds;
    return Estate{};
  }
  void go_on() override { ++go_ons; }
  void retire() override { ++retires; }
  json answer(const json& ask) override {
    json answer = to_json(welcome().generation);
    answer["number"] = ask.value("number", 0) - late.exchange(0);
    if (ask.value("ask", "") == "metrics") answer["metrics"] = counted(5);
    answer["connections"] = ask.value("ask", "") == "connections" ? json::array() : json(12);
    last_slot = ask.value("slot", -1);
    return answer;
  }
  std::atomic<bool> refuse{false};
  std::atomic<int> holds{0}, go_ons{0}, retires{0}, late{0}, last_slot{-1};
};

class HandoverTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto started = HandoverServer::start(path_, owner_);
    ASSERT_TRUE(started) << started.error().message();
    server_ = std::move(*started);
  }
  Takeover begin() {
    auto begun = Takeover::begin(path_, "0.2");
    EXPECT_TRUE(begun && begun->has_value());
    return std::move(**begun);
  }
  static bool eventually(const std::function<bool()>& holds) {
    const auto until = Clock::real().now() + kTime;
    while (!holds() && Clock::real().now() < until) std::this_thread::yield();
    return holds();
  }
  test::TemporaryDirectory directory_;
  std::string path_ = directory_.path() + "/handover.sock";
  FakeOwner owner_;
  std::unique_ptr<HandoverServer> server_;
};

TEST_F(HandoverTest, GoesThroughAndAnswersAfterwards) {
  struct stat st {};
  ASSERT_EQ(::stat(path_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777U, 0600U);
  Takeover takeover = begin();
  EXPECT_EQ(takeover.welcome().generation.number, 2U);
  ASSERT_TRUE(takeover.hold());
  ASSERT_TRUE(takeover.retire());
  EXPECT_EQ(owner_.retires, 1);
  // The path is free for the one that took over.
  EXPECT_FALSE(Takeover::begin(path_, "0.2")->has_value());
  Predecessors predecessors;
  predecessors.add(takeover.welcome().generation, takeover.take_channel());
  ASSERT_THAT(predecessors.generations(), SizeIs(1));
  EXPECT_EQ(predecessors.generations()[0].load.connections, 12U);
  predecessors.forget(7);
  EXPECT_EQ(owner_.last_slot, 7);
  // Handed on to a third one, which asks in its place.
  auto handed = predecessors.hand_on();
  ASSERT_THAT(handed, SizeIs(1));
  predecessors.let_go();
  EXPECT_THAT(predecessors.generations(), IsEmpty());
  Predecessors third;
  third.add(handed[0].generation, HandoverChannel(std::move(handed[0].channel)));
  EXPECT_THAT(third.generations(), SizeIs(1));
  server_->stop();
  EXPECT_THAT(third.generations(), IsEmpty()) << "it has ended";
}

TEST_F(HandoverTest, WhatAnAgentCountedOutlivesIt) {
  Takeover takeover = begin();
  ASSERT_TRUE(takeover.hold());
  ASSERT_TRUE(takeover.retire());
  Predecessors predecessors;
  predecessors.add_ended(counted(100, 50));
  predecessors.add(takeover.welcome().generation, takeover.take_channel());
  EXPECT_EQ(predecessors.metrics(), counted(105, 2)) << "an ended agent's gauges say nothing";
  server_->stop(counted(7, 9));
  json counters = counted(107);
  counters.erase("open");
  EXPECT_EQ(predecessors.metrics(), counters);
  EXPECT_EQ(predecessors.ended_metrics(), counters);
}

TEST(HandoverMetrics, AreAddedByLabelsWhateverTheirOrder) {
  using prometheus::ClientMetric;
  using prometheus::MetricType;
  ClientMetric mine;
  mine.label = {{"b", "2"}, {"a", "1"}};
  mine.counter.value = 3;
  std::vector<prometheus::MetricFamily> families = {
      {.name = "x_total", .help = "h", .type = MetricType::Counter, .metric = {mine}}};
  json more = metrics_json(families);
  EXPECT_EQ(more["x_total"]["values"], json({{R"({"a":"1","b":"2"})", 3.0}}));
  more["x_total"]["values"][R"({"a":"9"})"] = 4;
  more["new"] = {{"type", "gauge"}, {"help", "n"}, {"values", {{"{}", 1}}}};
  add_metrics(families, more);
  ASSERT_THAT(families, SizeIs(2));
  ASSERT_THAT(families[0].metric, SizeIs(2));
  EXPECT_EQ(families[0].metric[0].counter.value, 6);
  EXPECT_EQ(families[0].metric[1].counter.value, 4);
  EXPECT_EQ(families[0].metric[1].label[0].value, "9");
  EXPECT_EQ(families[1].metric[0].gauge.value, 1);
}

TEST_F(HandoverTest, ASuccessorThatGoesIsForgotten) {
  { const Takeover takeover = begin(); }
  {
    Takeover takeover = begin();
    ASSERT_TRUE(takeover.hold());
    EXPECT_EQ(owner_.go_ons, 0);
  }
  EXPECT_TRUE(eventually([&] { return owner_.go_ons == 1; }));
  EXPECT_EQ(owner_.holds, 1);
  Takeover takeover = begin();
  ASSERT_TRUE(takeover.hold());
  EXPECT_TRUE(takeover.retire());
}

TEST_F(HandoverTest, AnAgentThatCannotHoldRefuses) {
  owner_.refuse = true;
  Takeover takeover = begin();
  EXPECT_THAT(takeover.hold().error().message(), HasSubstr("a worker is busy"));
  EXPECT_EQ(owner_.retires, 0);
}

TEST_F(HandoverTest, ASecondAgentAtThePathIsRefused) {
  auto second = HandoverServer::start(path_, owner_);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kUnavailable);
  server_->stop();
  EXPECT_NE(::access(path_.c_str(), F_OK), 0) << "nothing is left of one that stopped";
  EXPECT_TRUE(HandoverServer::start(path_, owner_));
}

TEST_F(HandoverTest, StopEndsATakeoverThatIsUnderWay) {
  Takeover takeover = begin();
  ASSERT_TRUE(takeover.hold());
  server_->stop();
  EXPECT_EQ(owner_.go_ons, 1);
  EXPECT_EQ(owner_.retires, 0);
}

TEST(Takeover, NothingRunsWhereNobodyAnswers) {
  const test::TemporaryDirectory directory;
  const std::string path = directory.path() + "/handover.sock";
  auto none = Takeover::begin(path, "0.2");
  ASSERT_TRUE(none);
  EXPECT_FALSE(none->has_value());
  { auto dead = HandoverChannel::listen(path); }
  EXPECT_FALSE(Takeover::begin(path, "0.2")->has_value());
  EXPECT_TRUE(HandoverChannel::listen(path)) << "what a dead agent left is replaced";
}

}  // namespace
}  // namespace weft::agent
