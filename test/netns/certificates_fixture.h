// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "test/netns/mesh_fixture.h"

namespace weft::test {

/// A mesh of two nodes: client and web1 on the first, db and outside (no workload) on the second.
class CertificatesTest : public ::testing::Test {
 protected:
  static constexpr milliseconds kSoon{15'000};

  /// For SetUpTestSuite.
  static void make_mesh(MeshOptions options);
  static void TearDownTestSuite() { mesh_.reset(); }
  void SetUp() override;
  void TearDown() override;

  static Mesh& mesh() { return *mesh_; }
  static Node& node1() { return mesh_->node(1); }
  static Node& node2() { return mesh_->node(2); }

  /// GET of a path that answers JSON.
  static nlohmann::json ask(const Node& node, const std::string& path);
  /// The entry of /certificates for the pod's identity, from the agent of its node.
  static nlohmann::json certificate_of(const Pod& pod);
  static std::string serial_of(const Pod& pod) { return certificate_of(pod).value("serial", ""); }
  /// Whether it is true of every certificate of both nodes.
  static bool all_certificates(const std::function<bool(const nlohmann::json&)>& is_true);
  /// The entry of /connections for an outbound connection of the pod whose application's end is this.
  static nlohmann::json connection_from(const Pod& pod, const std::string& source);
  /// weftctl, in the node's namespace.
  static Finished weftctl(const Node& node, const std::vector<std::string>& arguments);
  /// weftctl ca ARGUMENTS; throws when it fails.
  static std::string ca(const std::vector<std::string>& arguments);
  /// What the agent of a node logged in this case, the lines with all of these words.
  [[nodiscard]] std::vector<std::string> logged(int node, const std::vector<std::string>& words) const;
  /// No connection of this case ended badly.
  void expect_no_failures() const;

  static std::unique_ptr<Mesh> mesh_;
  static Pod *client, *web1, *db, *outside;

 private:
  AgentLogs logs_;
  std::size_t before_[3] = {};
};

}  // namespace weft::test
