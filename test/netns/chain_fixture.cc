// SPDX-License-Identifier: Apache-2.0
#include "test/netns/chain_fixture.h"

#include <iostream>

namespace weft::test {

std::unique_ptr<ChainMesh> ChainTestBase::on_;

ChainMesh::ChainMesh(const MeshOptions& options) : mesh(options) {
  const auto add = [&](int node, const char* namespace_name, const char* name, bool enrolled) {
    PodOptions pod_options;
    pod_options.service_account = name;
    pod_options.enrolled = enrolled;
    Pod& pod = mesh.add_pod(node, namespace_name, name, pod_options);
    pod.serve();
    return &pod;
  };
  client = add(1, "shop", "client", true);
  web = add(1, "shop", "web", true);
  plain1 = add(1, "legacy", "plain1", false);
  db = add(2, "bank", "db", true);
  plain2 = add(2, "legacy", "plain2", false);
}

void ChainTestBase::set_up(const MeshOptions& options) {
  if (is_root()) on_ = std::make_unique<ChainMesh>(options);
}

void ChainTestBase::SetUp() {
  WEFT_NEEDS_ROOT();
  ASSERT_NE(on_, nullptr) << "the mesh could not be made";
  log1_ = on_->mesh.node(1).log().size();
  log2_ = on_->mesh.node(2).log().size();
}

void ChainTestBase::TearDown() {
  if (!HasFailure() || !on_) return;
  std::cerr << "---- node1's agent:\n"
            << on_->mesh.node(1).log().substr(log1_) << "---- node2's agent:\n"
            << on_->mesh.node(2).log().substr(log2_);
}

std::vector<Endpoint> ends(const Pod& pod, std::uint16_t port) { return {pod.v4(port), pod.v6(port)}; }

const IpAddress& own_address(const Pod& pod, const Endpoint& other) {
  return other.address.is_v6() ? pod.address_v6() : pod.address_v4();
}

void expect_untouched(const Finished& answer, const std::string& server) {
  EXPECT_TRUE(answer.ok()) << ::testing::PrintToString(answer);
  EXPECT_EQ(field(answer.out, "server"), server);
  EXPECT_EQ(field(answer.out, "client"), field(answer.out, "own"));
}

}  // namespace weft::test
