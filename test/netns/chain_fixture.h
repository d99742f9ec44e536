// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "test/netns/mesh_fixture.h"

namespace weft::test {

/// The mesh of a suite that runs over one chain of plugins: node 1 has client and web of the mesh and plain1, which is
/// wired and no workload; node 2 has db (namespace bank) of the mesh and plain2. Each serves on Pod::kPort.
struct ChainMesh {
  explicit ChainMesh(const MeshOptions& options);
  Mesh mesh;
  Pod *client, *web, *plain1, *db, *plain2;
};

/// What a suite is about.
struct Ptp {
  static constexpr Primary kPrimary = Primary::kPtp;
  static constexpr std::optional<FakeFelix::HostAction> kFelix{};
};
struct Bridge : Ptp {
  static constexpr Primary kPrimary = Primary::kBridge;
};
struct BridgePortmapBandwidth : Ptp {
  static constexpr Primary kPrimary = Primary::kBridgePortmapBandwidth;
};
struct CalicoDrop {
  static constexpr Primary kPrimary = Primary::kCalico;
  static constexpr std::optional<FakeFelix::HostAction> kFelix = FakeFelix::HostAction::kDrop;
};
struct CalicoAccept {
  static constexpr Primary kPrimary = Primary::kCalico;
  static constexpr std::optional<FakeFelix::HostAction> kFelix = FakeFelix::HostAction::kAccept;
};

/// The part that no chain makes different. A case leaves the mesh as it found it.
class ChainTestBase : public ::testing::Test {
 protected:
  static void set_up(const MeshOptions& options);
  static void TearDownTestSuite() { on_.reset(); }
  void SetUp() override;
  void TearDown() override;  ///< tells what the agents logged in a case that failed

  static std::unique_ptr<ChainMesh> on_;

 private:
  AgentLogs logs_;
};

template <class Chain>
class ChainTest : public ChainTestBase {
 protected:
  static void SetUpTestSuite() {
    MeshOptions options;
    options.primary = Chain::kPrimary;
    options.felix = Chain::kFelix;
    set_up(options);
  }
};

/// Where a pod serves, by IPv4 and IPv6.
[[nodiscard]] std::vector<Endpoint> ends(const Pod& pod, std::uint16_t port = Pod::kPort);
/// The pod's address of the family of `other`.
[[nodiscard]] const IpAddress& own_address(const Pod& pod, const Endpoint& other);
}  // namespace weft::test
