// SPDX-License-Identifier: Apache-2.0
#include "test/kernel/kernel_fixture.h"

#include <sys/socket.h>

#include <filesystem>

#include "bpf/attach.h"
#include "test/netns/attack_cases.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

namespace weft::test {

std::unique_ptr<Mesh> KernelMesh::mesh_;
Pod *KernelMesh::client, *KernelMesh::server, *KernelMesh::outside;

bool kernel_has_netns_cookie() {
  const Fd probe(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  std::uint64_t cookie = 0;
  socklen_t length = sizeof cookie;
  return ::getsockopt(probe.get(), SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &length) == 0;
}

void KernelMesh::SetUpTestSuite() {
  if (!is_root()) return;
  auto made = std::make_unique<Mesh>();
  client = add_serving_pod(*made, 1, "shop", "client", true);
  server = add_serving_pod(*made, 2, "bank", "server", true);
  outside = add_serving_pod(*made, 2, "legacy", "outside", false);
  for (const Pod* pod : {client, server, outside}) {
    if (!has_its_links(*pod)) return;
  }
  mesh_ = std::move(made);
}

void KernelMesh::SetUp() {
  WEFT_NEEDS_ROOT();
  ASSERT_NE(mesh_, nullptr) << "the mesh could not be made";
  logs_.mark(mesh());
}

void KernelMesh::TearDown() {
  if (HasFailure() && mesh_) logs_.tell(mesh());
  if (!HasFailure() && !IsSkipped()) tell_cases_of(*::testing::UnitTest::GetInstance()->current_test_info());
}

std::string KernelMesh::check(Pod& pod) {
  const Finished checked = mesh().chain("check", pod);
  return checked.ok() ? "" : "status " + std::to_string(checked.status) + ": " + checked.out + checked.err;
}

bool KernelMesh::has_its_links(const Pod& pod) {
  return !kernel_has_tcx() ||
         eventually(milliseconds(10'000), [&] { return !std::filesystem::is_symlink(pin(pod, "guard")); });
}

std::string KernelMesh::pin(const Pod& pod, const std::string& hook) {
  return pod.node().bpf_root() + "/links/" + bpf::attachment_id(pod.container_id(), "eth0") + "/" + hook;
}

std::vector<Segment> KernelMesh::plaintext_between(const Capture& capture, const Pod& a, const Pod& b) {
  const auto is = [](const Endpoint& end, const Pod& pod) {
    return end.address == pod.address_v4() || end.address == pod.address_v6();
  };
  return capture.segments([&](const Segment& s) {
    const bool between = (is(s.source, a) && is(s.destination, b)) || (is(s.source, b) && is(s.destination, a));
    return between && s.payload_bytes > 0 && s.source.port != 15008 && s.destination.port != 15008;
  });
}

void KernelMesh::expect_captured(const Pod& from, const Pod& to, bool v6) {
  SCOPED_TRACE(from.name() + " to " + to.name() + (v6 ? " by IPv6" : " by IPv4"));
  const Capture veth(from.node().netns(), from.host_interface());
  const std::string marker = "secret-of-" + from.name();
  const Finished answer = from.get(of(to, v6), {"--marker", marker});
  EXPECT_THAT(answer, IsAnswer(to.name(), v6 ? from.address_v6() : from.address_v4()));
  EXPECT_FALSE(
      veth.segments([](const Segment& s) { return s.destination.port == 15008 && s.payload_bytes > 0; }).empty())
      << "no tunnel was seen";
  EXPECT_TRUE(plaintext_between(veth, from, to).empty());
  EXPECT_FALSE(veth.contains(marker));
  EXPECT_EQ(veth.lost(), 0U);
}

}  // namespace weft::test
