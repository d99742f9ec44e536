// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <iosfwd>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "test/support/mesh.h"

namespace weft::test {

/// What the agents of two nodes log in one case.
class AgentLogs {
 public:
  /// The case begins.
  void mark(Mesh& mesh);
  /// To stderr, from there on.
  void tell(Mesh& mesh) const;

 private:
  std::size_t before1_ = 0, before2_ = 0;
};

/// One mesh for all cases of a suite: node 1 has the pods client and web1, node 2 has web2, db (namespace bank) and
/// outside, which is wired and no workload. Each has a service account of its own name and serves on Pod::kPort. A case
/// leaves the mesh as it found it.
class MeshTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite();
  static void TearDownTestSuite();
  void SetUp() override;
  /// Tells what the agents logged in a case that failed.
  void TearDown() override;

  static Mesh& mesh() { return *mesh_; }
  static Node& node1() { return mesh_->node(1); }
  static Node& node2() { return mesh_->node(2); }

  static std::unique_ptr<Mesh> mesh_;
  static Pod *client, *web1, *web2, *db, *outside;

 private:
  AgentLogs logs_;
};

/// A pod with a service account of its own name that serves on Pod::kPort.
Pod* add_serving_pod(Mesh& mesh, int node, const char* namespace_name, const char* name, bool enrolled);

/// Runs a request from the node's own namespace, as the kubelet does.
Finished get_from_node(const Node& node, const Endpoint& to, const std::vector<std::string>& arguments = {});

/// A policy of the namespace in ztunnel's local format. `match` stands in the one rule: {"principals": …}.
nlohmann::json deny_policy(const std::string& namespace_name, const std::string& name, const nlohmann::json& match);
/// The match of one identity of the mesh.
nlohmann::json principal(const Pod& pod);
/// The match of whoever has no identity.
nlohmann::json plaintext();

/// The value behind `key=` in the line of weft-testapp; empty where there is none.
std::string field(const std::string& line, const std::string& key);

/// The value of one counter of Prometheus' text, the sum over all series that carry every one of `labels`
/// (`name="value"`).
double metric(const std::string& text, const std::string& name, const std::vector<std::string>& labels);

/// Lines of `log` from `offset` on that have each of `words`.
std::vector<std::string> log_lines(const std::string& log, std::size_t offset, const std::vector<std::string>& words);

/// An answer of the server named so, who saw a client with this address.
MATCHER_P2(IsAnswer, server, address, "") {
  const auto seen = Endpoint::parse(field(arg.out, "client"));
  return arg.ok() && field(arg.out, "server") == server && seen && seen->address == address;
}

/// The server saw the very socket of the client, port included.
void expect_untouched(const Finished& answer, const std::string& server);

/// For GoogleTest's messages.
void PrintTo(const Finished& finished, std::ostream* out);

}  // namespace weft::test
