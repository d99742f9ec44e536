// SPDX-License-Identifier: Apache-2.0
/// One agent takes over from another under load: nobody notices. WEFT_HANDOVERS says how often each node's agent
/// changes in the cases with load (default 3).

#include <algorithm>
#include <csignal>
#include <cstdlib>

#include "agent/handover/takeover.h"
#include "test/netns/steady_load.h"

namespace weft::test {
namespace {

using agent::HandoverChannel;
using agent::Takeover;
using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr milliseconds kSoon{15'000};

class Handover : public ::testing::Test {
 protected:
  void SetUp() override {
    WEFT_NEEDS_ROOT();
    mesh_ = std::make_unique<Mesh>();
    client_ = &mesh_->add_pod(1, "shop", "client");
    web1_ = add_serving_pod(*mesh_, 1, "shop", "web1", true);
    web2_ = add_serving_pod(*mesh_, 2, "shop", "web2", true);
  }
  void TearDown() override {
    if (!mesh_) return;
    for (int index : {1, 2}) {
      const std::string log = mesh_->node(index).log();
      EXPECT_THAT(log, ::testing::Not(HasSubstr("Sanitizer")));
      if (HasFailure()) std::fprintf(stderr, "---- the agents of node %d:\n%s\n", index, log.c_str());
    }
  }

  Node& node(int index) { return mesh_->node(index); }
  void hand_over() {
    for (int index : {1, 2}) node(index).hand_over_agent();
  }
  static json status(Node& node) { return json::parse(node.admin("/status")); }
  static std::uint32_t generation(Node& node) { return status(node).at("generations").back().at("generation"); }
  /// Every agent that was taken over from has ended well.
  bool retired_have_ended() {
    return eventually(kSoon, [this] {
      bool all = true;
      for (int index : {1, 2}) {
        for (auto& agent : node(index).retired_agents()) all = all && agent->wait(milliseconds(0)) == 0;
      }
      return all;
    });
  }
  std::unique_ptr<Mesh> mesh_;
  Pod *client_ = nullptr, *web1_ = nullptr, *web2_ = nullptr;
};

TEST_F(Handover, NobodyNotices) {
  const int handovers = from_environment("WEFT_HANDOVERS", 3);
  SteadyLoad load;
  for (const Pod* web : {web1_, web2_}) {
    for (const Endpoint& to : {web->v4(), web->v6()}) {
      load.request(*client_, to, true);
      load.request(*client_, to, false);
      for (int i = 0; i < 3; ++i) load.hold(*client_, to);
    }
  }
  load.expect_all_go_on("before");
  for (int i = 0; i < handovers; ++i) {
    hand_over();
    load.expect_all_go_on("after a handover");
    ASSERT_FALSE(HasFailure());
  }
  EXPECT_EQ(generation(node(1)), static_cast<std::uint32_t>(handovers) + 1);
  // The first ones live on for what was held before them.
  for (int index : {1, 2}) {
    EXPECT_TRUE(node(index).retired_agents().front()->running());
    const json generations = status(node(index)).at("generations");
    EXPECT_EQ(generations.front().at("generation"), 1) << generations.dump(2);
    EXPECT_GT(generations.front().at("connections"), 0) << generations.dump(2);
  }
  std::printf("  %d handovers of each agent, %zu requests, none failed\n", handovers, load.answered());
  load.stop();
  EXPECT_TRUE(retired_have_ended());
  for (int index : {1, 2}) EXPECT_THAT(status(node(index)).at("generations"), SizeIs(1));
}

/// Fortio's summary of a load that is interrupted: only answers 200, and with kept connections no other than the first.
void expect_untroubled(Process& load, bool keep_alive, int connections) {
  load.signal(SIGINT);
  const Finished ended = load.finish(kSoon);
  const std::string said = ended.out + ended.err;
  EXPECT_TRUE(ended.ok()) << said;
  const auto codes = log_lines(said, 0, {"Code "});
  ASSERT_THAT(codes, SizeIs(1)) << said;
  EXPECT_THAT(codes.front(), HasSubstr("Code 200 : ")) << said;
  EXPECT_THAT(said, HasSubstr(keep_alive ? "Sockets used: " + std::to_string(connections) + " " : "Sockets used: "));
  std::printf("  %s: %s\n", keep_alive ? "kept connections" : "a connection each", codes.front().c_str());
}

/// The same under fortio, whose path WEFT_FORTIO tells.
TEST_F(Handover, FortioNoticesNothing) {
  const char* fortio = std::getenv("WEFT_FORTIO");
  if (fortio == nullptr) GTEST_SKIP() << "WEFT_FORTIO does not say where fortio is";
  constexpr int kConnections = 8;
  const auto load = [&](const Pod& web, bool v6, bool keep_alive) {
    const Endpoint to = v6 ? web.v6() : web.v4();
    return client_->start({fortio, "load", "-quiet", "-timeout", "10s", "-qps", "0", "-t", "0", "-c",
                           std::to_string(kConnections), keep_alive ? "-keepalive=true" : "-keepalive=false",
                           "http://" + to.to_string() + "/"});
  };
  std::vector<std::pair<bool, Process>> loads;
  for (const bool keep_alive : {true, false}) {
    loads.emplace_back(keep_alive, load(*web2_, false, keep_alive));
    loads.emplace_back(keep_alive, load(*web1_, true, keep_alive));
  }
  SteadyLoad beside;
  for (const Pod* web : {web1_, web2_}) {
    for (int i = 0; i < 5; ++i) beside.hold(*client_, i % 2 == 0 ? web->v4() : web->v6());
  }
  beside.request(*client_, web2_->v4(), false);
  const int handovers = from_environment("WEFT_HANDOVERS", 3);
  for (int i = 0; i < handovers; ++i) {
    hand_over();
    beside.expect_all_go_on("after a handover");
    ASSERT_FALSE(HasFailure());
  }
  for (auto& [keep_alive, process] : loads) expect_untroubled(process, keep_alive, kConnections);
}

TEST_F(Handover, WhatIsHeldIsShownAndStaysUnderPolicy) {
  Process held = client_->hold(web2_->v4());
  hand_over();
  const json connections = json::parse(node(2).admin("/connections"));
  ASSERT_THAT(connections, SizeIs(1)) << connections.dump(2);
  EXPECT_EQ(connections[0].at("generation"), 1);
  EXPECT_EQ(connections[0].at("sourceIdentity"), client_->identity());
  // Agents of several generations are between the one that is asked and the connection.
  hand_over();
  EXPECT_THAT(json::parse(node(2).admin("/connections")), SizeIs(1));
  EXPECT_TRUE(held.running());
  const std::vector<std::string> inbound = {"reporter=\"destination\""};
  EXPECT_EQ(metric(node(2).metrics(), "istio_tcp_connections_opened_total", inbound), 1) << "counters go on";
  EXPECT_EQ(metric(node(2).metrics(), "istio_tcp_connections_closed_total", inbound), 0);
  mesh_->set_policy(deny_policy("shop", "no-client", principal(*client_)));
  EXPECT_TRUE(held.wait(kSoon).has_value()) << "a policy that comes after the handover ends it";
  EXPECT_TRUE(retired_have_ended());
  EXPECT_EQ(metric(node(2).metrics(), "istio_tcp_connections_opened_total", inbound), 1);
  EXPECT_EQ(metric(node(2).metrics(), "istio_tcp_connections_closed_total", inbound), 1);
}

TEST_F(Handover, WhatIsHeldIsCutWhenItsCertificateIsRevokedLater) {
  Process held = client_->hold(web2_->v4()), other = web1_->hold(web2_->v4());
  const json certificates = json::parse(node(1).admin("/certificates"));
  const auto own =
      std::ranges::find_if(certificates, [this](const json& one) { return one.at("identity") == client_->identity(); });
  ASSERT_NE(own, certificates.end()) << certificates.dump(2);
  hand_over();
  must_run({program("weftctl"), "ca", "revoke", mesh_->ca_dir(), "--serial", own->at("serial").get<std::string>()});
  EXPECT_TRUE(held.wait_for_output("ended how=reset", kSoon)) << held.out();
  // Both have the list; whose turn came first has cut the tunnel.
  Process &first = *node(1).retired_agents().front(), &second = *node(2).retired_agents().front();
  EXPECT_TRUE(first.wait_for_output("CRL in force ", kSoon));
  EXPECT_TRUE(second.wait_for_output("CRL in force ", kSoon));
  EXPECT_TRUE(eventually(kSoon, [&] {
    const std::string cut = "HBONE tunnel cut ";
    return first.err().find(cut) != std::string::npos || second.err().find(cut) != std::string::npos;
  }));
  EXPECT_TRUE(other.running()) << other.out();
  EXPECT_THAT(client_->get(web2_->v4()), IsAnswer("web2", client_->address_v4()));
  other.kill();
  EXPECT_TRUE(retired_have_ended());
}

TEST_F(Handover, APodThatGoesTakesItsOldConnectionsAlong) {
  Pod& brief = *add_serving_pod(*mesh_, 2, "shop", "brief", true);
  Process held = client_->hold(brief.v4());
  Process other = client_->hold(web2_->v4());
  hand_over();
  mesh_->remove_pod(brief);
  EXPECT_TRUE(held.wait(kSoon).has_value());
  EXPECT_TRUE(other.running()) << other.out();
  EXPECT_TRUE(eventually(kSoon, [&] { return json::parse(node(2).admin("/connections")).size() == 1; }));
}

TEST_F(Handover, AddAndDelWorkAcrossIt) {
  hand_over();
  Pod& late = *add_serving_pod(*mesh_, 1, "shop", "late", true);
  EXPECT_THAT(client_->get(late.v4()), IsAnswer("late", client_->address_v4()));
  EXPECT_TRUE(mesh_->chain("check", late).ok());
  EXPECT_TRUE(mesh_->chain("check", *client_).ok());
  mesh_->remove_pod(late);
  EXPECT_TRUE(retired_have_ended());
}

TEST_F(Handover, GoesToMoreWorkersAndToFewer) {
  SteadyLoad load;
  load.request(*client_, web2_->v4(), false);
  for (const char* workers : {"4", "1", "3"}) {
    SCOPED_TRACE(workers);
    for (int index : {1, 2}) node(index).hand_over_agent({"--workers", workers});
    load.expect_all_go_on("with other workers");
    const Finished checked = mesh_->chain("check", *client_);
    EXPECT_TRUE(checked.ok()) << checked.out << checked.err;
  }
}

TEST_F(Handover, ASuccessorThatDiesBeforeItHasEverythingChangesNothing) {
  SteadyLoad load;
  load.request(*client_, web1_->v4(), false);
  load.expect_all_go_on("before");
  const std::string path = node(1).run_dir() + "/handover.sock";
  for (int i = 0; i < 3; ++i) {
    auto begun = Takeover::begin(path, "0.0.0");
    ASSERT_TRUE(begun) << begun.error().message();
    ASSERT_TRUE(begun->has_value());
    EXPECT_THAT((*begun)->welcome().identities, SizeIs(2));
    if (i == 0) continue;  // it goes before it asks
    auto estate = (*begun)->hold();
    ASSERT_TRUE(estate) << estate.error().message();
    EXPECT_FALSE(estate->listeners.empty());
    EXPECT_THAT(estate->sockets, SizeIs(4)) << "registration, admin, metrics, ready";
  }
  load.expect_all_go_on("after a successor that died");
  EXPECT_EQ(generation(node(1)), 1U);
  EXPECT_TRUE(mesh_->chain("check", *client_).ok()) << "and it takes requests of weft-cni again";
  EXPECT_THAT(node(1).log(), HasSubstr("handover did not come about, this agent goes on"));
  // The next one may still take over.
  node(1).hand_over_agent();
  EXPECT_EQ(generation(node(1)), 2U);
}

TEST_F(Handover, OneThatCannotStartOrSpeaksOtherwiseIsRefused) {
  const std::string path = node(1).run_dir() + "/handover.sock";
  auto channel = HandoverChannel::connect(path, kSoon);
  ASSERT_TRUE(channel) << channel.error().message();
  ASSERT_TRUE(channel->send({{"ask", "handover"}, {"protocol", 99}, {"version", "9.9"}, {"pid", 1}}, {}, kSoon));
  auto answer = channel->receive(kSoon);
  ASSERT_TRUE(answer) << answer.error().message();
  EXPECT_THAT(answer->body.value("refused", ""), HasSubstr("protocol 1 of the handover, not 99"));
  // A CA that cannot be read ends the new agent and not the old one.
  EXPECT_THROW(node(1).hand_over_agent({"--ca-dir", "/nowhere"}), TestError);
  EXPECT_THAT(client_->get(web1_->v4()), IsAnswer("web1", client_->address_v4()));
  EXPECT_EQ(generation(node(1)), 1U);
}

TEST_F(Handover, TheOldOneEndsAtItsLimitOrAtTheSecondSignal) {
  Process held = client_->hold(web1_->v4());
  node(1).hand_over_agent({"--handover-timeout-ms", "300"});
  node(1).hand_over_agent();
  auto& retired = node(1).retired_agents();
  EXPECT_EQ(retired[1]->wait(kSoon), 0) << "it had nothing to carry";
  retired[0]->signal(SIGTERM);
  EXPECT_TRUE(retired[0]->wait_for_output("a second signal ends them", kSoon));
  EXPECT_TRUE(held.running());
  retired[0]->signal(SIGTERM);
  EXPECT_EQ(retired[0]->wait(kSoon), 0);
  EXPECT_TRUE(held.wait(kSoon).has_value());

  Process again = client_->hold(web1_->v4());
  node(1).hand_over_agent({"--handover-timeout-ms", "300"});
  EXPECT_TRUE(again.running());
  Process limited = client_->hold(web1_->v4());
  node(1).hand_over_agent();
  EXPECT_EQ(retired[3]->wait(kSoon), 0);
  EXPECT_TRUE(limited.wait(kSoon).has_value());
  EXPECT_TRUE(again.running()) << "of the one before, which has no limit";
}

TEST_F(Handover, ASuccessorThatIsKilledLeavesTheOldConnections) {
  Process held = client_->hold(web2_->v4());
  hand_over();
  node(1).kill_agent();
  node(2).kill_agent();
  EXPECT_TRUE(held.running());
  node(1).start_agent();
  node(2).start_agent();
  EXPECT_THAT(client_->get(web2_->v4()), IsAnswer("web2", client_->address_v4()));
  EXPECT_TRUE(held.running()) << held.out();
  EXPECT_EQ(generation(node(1)), 1U) << "counted from the last start from nothing";
}

}  // namespace
}  // namespace weft::test
