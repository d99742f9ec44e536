// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "test/netns/explain_cases.h"
#include "test/netns/mesh_fixture.h"

namespace weft::test {

constexpr int kExitRefused = 5;  ///< of weftctl explain

/// One connection: what was asked, what was said, what came of it.
struct ConnectionCase {
  std::string name;  ///< also what the request carries, to be found on the wire
  Pod* source = nullptr;
  Endpoint to;
  int exit = -1;
  nlohmann::json said;
  Finished really;

  [[nodiscard]] std::string outcome() const { return said.at("outcome"); }
  [[nodiscard]] IpAddress source_address(const IpAddress& like) const {
    return like.is_v4() ? source->address_v4() : source->address_v6();
  }
  [[nodiscard]] bool stays_in_pod(const Endpoint& target) const {
    return target.address == source_address(target.address);
  }
  [[nodiscard]] std::string story() const {
    return name + ": " + source->name() + " to " + to.to_string() + "\nexplained: " + said.dump(2) +
           "\nreally: " + ::testing::PrintToString(really);
  }
};

/// Two nodes with pods of every kind: in the mesh, unhealthy, under a policy that is not known, listed without HBONE,
/// not listed, not wired; a waypoint in the mesh, and a pod that has it; and services over them, with waypoints and
/// without. Each pod serves two ports, the waypoint those of the services too, and its veth is watched.
class ExplainMesh : public ::testing::Test {
 protected:
  static void SetUpTestSuite();
  static void TearDownTestSuite() {
    captures_.clear();
    mesh_.reset();
  }
  void SetUp() override {
    WEFT_NEEDS_ROOT();
    ASSERT_NE(mesh_, nullptr) << "the mesh could not be made";
  }

  /// Pods by their addresses, mostly; services; sometimes the tunnel's own ports, or a port that no service has.
  static ConnectionCase random_case(Dice& dice, std::size_t number);
  static Finished weftctl(int node, std::vector<std::string> arguments);
  /// Asks weftctl on the source's node for all of them, then connects all of them at once.
  static void run_group(std::vector<ConnectionCase>& cases);
  /// Whether some node's access log has the connection as explained at this endpoint: with the same transport,
  /// identity, verdict, deciding policy and dry runs. Connections of one group from one pod to one endpoint are all
  /// alike.
  static bool is_logged(const ConnectionCase& c, const nlohmann::json& endpoint);
  /// On the veth of any pod.
  static bool seen_in_the_clear(const std::string& text);

  static std::unique_ptr<Mesh> mesh_;
  static std::vector<Pod*> pods_;
  static std::vector<std::unique_ptr<Capture>> captures_;  ///< of the node's end of each pod's veth
  static std::size_t log_before_[2];                       ///< the sizes of the nodes' logs before the group

 private:
  static Pod* add(int node, const char* namespace_name, const char* name, PodOptions options);
  static void ask(ConnectionCase& c);
  static std::vector<IpAddress> vips_;
};

}  // namespace weft::test
