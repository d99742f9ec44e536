// SPDX-License-Identifier: Apache-2.0
#include "test/netns/chain_fixture.h"

namespace weft::test {

std::unique_ptr<ChainMesh> ChainTestBase::on_;

ChainMesh::ChainMesh(const MeshOptions& options) : mesh(options) {
  client = add_serving_pod(mesh, 1, "shop", "client", true);
  web = add_serving_pod(mesh, 1, "shop", "web", true);
  plain1 = add_serving_pod(mesh, 1, "legacy", "plain1", false);
  db = add_serving_pod(mesh, 2, "bank", "db", true);
  plain2 = add_serving_pod(mesh, 2, "legacy", "plain2", false);
}

void ChainTestBase::set_up(const MeshOptions& options) {
  if (is_root()) on_ = std::make_unique<ChainMesh>(options);
}

void ChainTestBase::SetUp() {
  WEFT_NEEDS_ROOT();
  ASSERT_NE(on_, nullptr) << "the mesh could not be made";
  logs_.mark(on_->mesh);
}

void ChainTestBase::TearDown() {
  if (HasFailure() && on_) logs_.tell(on_->mesh);
}

std::vector<Endpoint> ends(const Pod& pod, std::uint16_t port) { return {pod.v4(port), pod.v6(port)}; }

const IpAddress& own_address(const Pod& pod, const Endpoint& other) {
  return other.address.is_v6() ? pod.address_v6() : pod.address_v4();
}

}  // namespace weft::test
