// SPDX-License-Identifier: Apache-2.0
/// Two workers with a mesh between them, of which seeds make the kernel's calls fail. WEFT_FAULT_SEED=N plays one seed
/// again, WEFT_FAULT_SEEDS=N that many from 1.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <set>

#include "test/faults/records.h"
#include "tunnel/base/log.h"

namespace weft::test {
namespace {

using testing::AllOf, testing::Contains, testing::Key;

constexpr std::size_t kFlows = 24;
constexpr std::uint64_t kSeeds = 50;
constexpr milliseconds kSoon{30'000};

std::size_t open_descriptors() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

std::uint64_t number_of(const char* variable, std::uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

/// What one seed does.
class SeedRun {
 public:
  SeedRun(const Ground& ground, const ScratchDir& scratch, std::uint64_t seed)
      : ground_(ground),
        log_path_(scratch.path() + "/log"),
        log_before_(read_file(log_path_).size()),
        seed_(seed),
        harm_(seed % 3 == 0 ? Harm::kTransient : Harm::kAny),
        random_(seed ^ 0x5eedULL),
        flows_(ground, seed, kFlows) {}

  void play() {
    const std::size_t before = open_descriptors();
    {
      End client(ground_, End::Role::kClient, seed_, harm_), server(ground_, End::Role::kServer, seed_, harm_);
      client_ = &client;
      server_ = &server;
      sync();
      const std::size_t without_pods = open_descriptors();
      client.begin_faults();
      server.begin_faults();
      for (End* end : {&client, &server}) {
        for (std::uint32_t slot = 1; slot <= end->pods(); ++slot) end->add_pod(slot);
      }
      play_flows();
      client.end_faults();
      server.end_faults();
      check_that_it_serves();
      for (End* end : {&client, &server}) {
        for (std::uint32_t slot = 1; slot <= end->pods(); ++slot) end->remove_pod(slot);
      }
      sync();
      check(open_descriptors() == without_pods, "descriptors are left of the pods: " + std::to_string(without_pods) +
                                                    " before, " + std::to_string(open_descriptors()) + " after");
      check_metrics(client, "outbound");
      check_metrics(server, "inbound");
      for (End* end : {&client, &server}) {
        end->look([&](const FaultInjector& faults) {
          for (const auto& [what, count] : faults.counts()) counts_[what] += count;
          trace_ +=
              std::string("faults at the ") + (end == &client ? "client" : "server") + "'s end:\n" + faults.trace();
        });
      }
    }
    check(open_descriptors() == before, "descriptors are left of the workers");
  }

  [[nodiscard]] const std::vector<std::string>& failures() const { return failures_; }
  [[nodiscard]] const std::map<std::string, std::size_t>& counts() const { return counts_; }
  [[nodiscard]] std::size_t well() const {
    return static_cast<std::size_t>(
        std::ranges::count_if(flows_.all(), [](const Flow& flow) { return flow.client != nullptr && flow.well(); }));
  }
  /// Everything that is known of it.
  [[nodiscard]] std::string story() const {
    return "plan: " + plan_ + "\n" + trace_ + flows_.describe() + "\nlog:\n" + log();
  }

 private:
  void check(bool holds, const std::string& what) {
    if (!holds) failures_.push_back(what);
  }
  [[nodiscard]] std::string log() const { return read_file(log_path_).substr(log_before_); }
  void sync() {
    (void)client_->live();
    (void)server_->live();
  }

  void play_flows() {
    const std::size_t renew_at = 1 + random_() % (kFlows - 2), at = 2 + random_() % (kFlows - 4);
    const std::uint64_t what = random_() % 9;
    const bool ended = flows_.run([&](std::size_t next) {
      if (next == renew_at) renew();
      if (next == at) disturb(what);
      if (next == at + 4 && what == 6) client_->worker().set_state(mesh_state(Policies::kNone));
    });
    check(ended, "the connections do not come to their end");
    // What comes late (from the queue of a listener, or an application's connection whose client has gone) ends too.
    std::vector<std::string> wrong;
    const bool quiet = eventually(kSoon, [&] {
      flows_.step(milliseconds(1));
      return flows_.over() && client_->live().empty() && server_->live().empty() && (wrong = audit()).empty();
    });
    check(quiet || !wrong.empty(), "connections are left: " + std::to_string(client_->live().size()) +
                                       " of the client, " + std::to_string(server_->live().size()) + " of the server");
    failures_.insert(failures_.end(), wrong.begin(), wrong.end());
  }

  [[nodiscard]] std::vector<std::string> audit() const {
    Audit audit{flows_, log(), harm_, denied_, {}, 0};
    for (End* end : {client_, server_}) {
      end->look([&](const FaultInjector& faults) {
        const auto& aborted = faults.aborted();
        audit.taken_back.insert(audit.taken_back.end(), aborted.begin(), aborted.end());
        if (end == server_) audit.nameless_peers = faults.count("getpeername ENOBUFS");
      });
    }
    return violations(audit);
  }

  void renew() {
    plan_ += "certificates renewed; ";
    client_->renew(1);
    server_->renew(1);
  }

  /// What happens once in the middle.
  void disturb(std::uint64_t what) {
    switch (what) {
      case 0:
      case 1: {
        End& end = what == 0 ? *client_ : *server_;
        plan_ += what == 0 ? "client pod removed and added; " : "server pod removed and added; ";
        flows_.disturb();
        end.remove_pod(1);
        const std::string name = what == 0 ? "ns/client" : "ns/server";
        check(std::ranges::none_of(end.live(), [&](const auto& info) { return info.pod == name; }),
              "a removed pod has connections");
        end.add_pod(1);
        break;
      }
      case 2: {
        plan_ += "denied for a moment; ";
        denied_ = true;
        flows_.disturb();
        server_->worker().set_state(mesh_state(Policies::kDeny));
        // Those that wait for their turn are asked when they start.
        check(eventually(kSoon, [&] { return server_->live().empty(); }), "denied connections live on");
        server_->worker().set_state(mesh_state(Policies::kNone));
        (void)server_->live();
        break;
      }
      case 3:
      case 4:
        plan_ += what == 3 ? "client held; " : "server held; ";
        (what == 3 ? client_ : server_)->hold();
        break;
      case 5:
        plan_ += "server pod out of the mesh and in again; ";
        flows_.disturb();
        server_->enrol_again(1);
        break;
      case 6:
        plan_ += "for the client the others leave the mesh, and join it again; ";
        client_->worker().set_state(mesh_state(Policies::kNone, false));
        break;
      default:
        plan_ += "new snapshot; ";
        for (End* end : {client_, server_}) end->worker().set_state(mesh_state(Policies::kAllow));
    }
  }

  /// A connection each way is carried whole, now that nothing fails any more.
  void check_that_it_serves() {
    Flows more = Flows::undisturbed(ground_, kFlows);
    check(more.run([](std::size_t) {}), "a connection afterwards does not come to its end");
    for (const Flow& flow : more.all()) {
      check(flow.client && flow.well(), "a connection afterwards fails:\n" + flow.describe());
    }
    check(eventually(kSoon, [&] { return client_->live().empty() && server_->live().empty(); }),
          "connections afterwards are left");
    // A tunnel that nobody uses goes by itself.
    const auto sockets = [](const End& end) { return end.total("istio_tcp_sockets_open"); };
    check(eventually(kSoon, [&] { return sockets(*client_) == 0 && sockets(*server_) == 0; }),
          "a tunnel has a stream that is no connection's");
  }

  void check_metrics(const End& end, const std::string& direction) {
    const auto total = [&](const char* name) { return static_cast<std::size_t>(end.total(name)); };
    const auto records = records_in(log());
    const auto recorded = static_cast<std::size_t>(
        std::ranges::count_if(records, [&](const Record& record) { return record.at("direction") == direction; }));
    const std::size_t opened = total("istio_tcp_connections_opened_total");
    check(opened == recorded && total("istio_tcp_connections_closed_total") == recorded,
          direction + " connections: " + std::to_string(recorded) + " records, " + std::to_string(opened) +
              " counted as opened, " + std::to_string(total("istio_tcp_connections_closed_total")) + " as closed");
    check(total("istio_tcp_sockets_open") == 0, direction + " sockets are still counted as open");
  }

  const Ground& ground_;
  std::string log_path_;
  std::size_t log_before_;
  std::uint64_t seed_;
  Harm harm_;
  std::mt19937_64 random_;
  Flows flows_;
  End *client_ = nullptr, *server_ = nullptr;
  bool denied_ = false;
  std::string plan_, trace_;
  std::vector<std::string> failures_;
  std::map<std::string, std::size_t> counts_;
};

TEST(FaultySockets, WhateverFailsNothingHangsIsLostOrIsLeft) {
  WEFT_NEEDS_ROOT();
  const ScratchDir scratch;
  ASSERT_TRUE(log::init("info", log::Format::kText, scratch.path() + "/log"));
  const Ground ground;
  const std::uint64_t only = number_of("WEFT_FAULT_SEED", 0);
  const std::uint64_t first = only != 0 ? only : 1, seeds = only != 0 ? 1 : number_of("WEFT_FAULT_SEEDS", kSeeds);
  std::map<std::string, std::size_t> counts;
  std::size_t well = 0;
  for (std::uint64_t seed = first; seed < first + seeds && !HasFailure(); ++seed) {
    SeedRun run(ground, scratch, seed);
    run.play();
    for (const auto& what : run.failures()) ADD_FAILURE() << "seed " << seed << ": " << what;
    if (HasFailure()) std::cerr << "WEFT_FAULT_SEED=" << seed << " plays it again\n" << run.story();
    for (const auto& [what, count] : run.counts()) counts[what] += count;
    well += run.well();
  }
  std::cout << seeds << " seeds from " << first << ", " << well << " of " << seeds * kFlows
            << " connections ended well. Injected:";
  for (const auto& [what, count] : counts) std::cout << ' ' << what << ' ' << count << ',';
  std::cout << '\n';
  if (seeds < kSeeds || HasFailure()) return;
  // The whole variety was there, and not so much of it that nothing came through.
  std::set<std::string> calls;
  for (const auto& [what, count] : counts) calls.insert(what.substr(0, what.find(' ')));
  EXPECT_EQ(calls.size(), static_cast<std::size_t>(Call::kCount));
  EXPECT_THAT(counts,
              AllOf(Contains(Key("recv EAGAIN")), Contains(Key("recv short")), Contains(Key("send EAGAIN")),
                    Contains(Key("send short")), Contains(Key("accept EMFILE")), Contains(Key("send ENOBUFS"))));
  EXPECT_GT(well, seeds * kFlows / 5);
  EXPECT_LT(well, seeds * kFlows);
}

}  // namespace
}  // namespace weft::test
