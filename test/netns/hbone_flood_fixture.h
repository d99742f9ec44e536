// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "test/netns/hbone_raw_peer.h"
#include "test/netns/mesh_fixture.h"

namespace weft::test {

/// What the agent that is attacked has spent and said.
struct AgentUse {
  double cpu_seconds = 0;  ///< user and system
  std::size_t memory_bytes = 0, log_bytes = 0;
};

/// Calls `work` again and again on a thread of its own until it goes. What `work` throws is the test's failure.
class Repeated {
 public:
  explicit Repeated(std::function<void()> work);
  Repeated(const Repeated&) = delete;
  Repeated& operator=(const Repeated&) = delete;
  ~Repeated();
  [[nodiscard]] int rounds() const { return rounds_; }

 private:
  std::function<void()> work_;
  std::atomic<bool> stop_ = false;
  std::atomic<int> rounds_ = 0;
  std::thread thread_;
};

/// A hostile peer in the pod `outside` attacks the pod db, whose agent is node 2's. Beside it the pod client, on the
/// other node, holds one connection to db and one to web2 through all cases.
class MeshHboneFlood : public MeshTest {
 protected:
  static constexpr std::uint16_t kHbone = 15008;
  static constexpr std::uint16_t kClosedPort = 9;
  static constexpr milliseconds kAnswer{1000};  ///< an honest request's bound
  /// What one tunnel may write into the log: its own end, and some requests that were refused.
  static constexpr std::size_t kLogPerTunnel = 16U << 10;

  static void SetUpTestSuite();
  static void TearDownTestSuite();
  void SetUp() override;
  /// The attack is over: the connections that were held live, the agent is idle, and its memory is bounded.
  void TearDown() override;

  [[nodiscard]] static std::string target(std::uint16_t port = Pod::kPort) { return db->v4(port).to_string(); }
  /// A TLS context with a certificate of the mesh's own CA.
  [[nodiscard]] static SSL_CTX* context() { return context_.get(); }
  /// A tunnel of the hostile peer that the agent has accepted; throws where it has not.
  [[nodiscard]] static std::unique_ptr<RawPeer> dial(RawPeer::Options options = {});

  [[nodiscard]] static AgentUse use();
  [[nodiscard]] static double violations(const std::string& kind);
  /// An honest request to the pod that is attacked and one to its neighbour are answered in time.
  static void expect_untouched_beside();
  /// Repeats `attack` on tunnel after tunnel. Each must be cut for `kind`, be counted so once and named in the log
  /// once, while honest requests are answered and the agent spends little on each.
  void expect_limited(const std::string& kind, const std::function<void(RawPeer&)>& attack,
                      RawPeer::Options options = {}, std::size_t log_per_tunnel = kLogPerTunnel);
  /// The agent has nothing to do any more.
  static void expect_idle();

 private:
  static hbone::OpenSslPtr<SSL_CTX> context_;
  static std::optional<Process> held_db_, held_web2_;
  AgentUse before_;
};

}  // namespace weft::test
