// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "test/netns/mesh_fixture.h"
#include "test/support/mesh.h"

namespace weft::test {

/// Whether the running kernel tells netns apart by cookies: from 5.14, by asking it.
[[nodiscard]] bool kernel_has_netns_cookie();

/// A mesh for all cases of a suite, as small as it can be, since guests are slow: node 1 has the pod client, node 2 has
/// server, and outside, which is wired and no workload. Both serve. A case leaves the mesh as it found it.
class KernelMesh : public ::testing::Test {
 protected:
  static void SetUpTestSuite();
  static void TearDownTestSuite() { mesh_.reset(); }
  void SetUp() override;
  void TearDown() override;

  static Mesh& mesh() { return *mesh_; }
  static Node& node1() { return mesh_->node(1); }
  static Node& node2() { return mesh_->node(2); }
  static Endpoint of(const Pod& pod, bool v6) { return v6 ? pod.v6() : pod.v4(); }

  /// What the chain's CHECK says of the pod: empty when all is well.
  static std::string check(Pod& pod);
  /// The path of a program's pin, or of the record that stands in its place.
  static std::string pin(const Pod& pod, const std::string& hook);
  /// ADD puts filters on, and the agent makes links of them where the kernel has those: waits for the last one.
  static bool has_its_links(const Pod& pod);
  /// An answer of `to` that came through the mesh: it saw the client's address, and nothing of the request nor of the
  /// answer was in the clear behind the client's veth.
  static void expect_captured(const Pod& from, const Pod& to, bool v6);
  /// TCP payload between the pods beside the tunnel.
  static std::vector<Segment> plaintext_between(const Capture& capture, const Pod& a, const Pod& b);

  static std::unique_ptr<Mesh> mesh_;
  static Pod *client, *server, *outside;

 private:
  AgentLogs logs_;
};

}  // namespace weft::test
