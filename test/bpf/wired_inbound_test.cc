// SPDX-License-Identifier: Apache-2.0
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "test/bpf/wired.h"
#include "tunnel/base/sys.h"

namespace weft::test {
namespace {

constexpr const char* kUncaptured = "a connection that is not captured";

/// Connections into a pod, and frames past its stack.
class InboundWired : public WiredTest {
 protected:
  /// The agent's connection to the application in the client's name.
  Fd dial_as(const Endpoint& client, std::uint16_t port) {
    Fd fd = socket_in(*a_.netns, a_.address);
    EXPECT_TRUE(sys::set_option(fd.get(), v4() ? SOL_IP : SOL_IPV6, v4() ? IP_TRANSPARENT : IPV6_TRANSPARENT, 1));
    EXPECT_TRUE(capture_->tag_socket(fd.get()));
    EXPECT_TRUE(sys::bind(fd.get(), client.to_sockaddr()));
    must_connect(fd.get(), {a_.address, port});
    return fd;
  }
};
INSTANTIATE_TEST_SUITE_P(Both, InboundWired, ::testing::Combine(::testing::Values(4, 6), ::testing::Bool()),
                         wired_name);

TEST_P(InboundWired, TheAgentSpeaksToTheApplicationAsTheClient) {
  Fd server = serve(*a_.netns, 8080);
  const Endpoint client{f().outside, 20'000};
  Fd agent = dial_as(client, 8080);
  Fd app = must_accept(server.get());
  EXPECT_EQ(*sys::peer_endpoint(app.get()), client);
  expect_talk(agent.get(), app.get());
  EXPECT_GE(counter("from_pod", "a captured connection"), 2U);  // SYN-ACK and answer
  EXPECT_EQ(counter("from_pod", kUncaptured), 0U);
  // The client's SYN from that very port must not come in while the tuple is in use: the pod's answer would go astray.
  vanish(agent);
  must_send(app.get(), "secret");
  EXPECT_EQ(wait_for_error(app.get()), ECONNRESET);
  EXPECT_EQ(counter("from_pod", kUncaptured), 0U);
}

TEST_P(InboundWired, HboneGoesToItsListener) {
  Fd squatter = serve(*a_.netns, 15008);
  Fd client = socket_in(*netns_, a_.address);
  must_connect(client.get(), {a_.address, 15008});
  Fd agent = must_accept(hbone_.get());
  EXPECT_TRUE(nobody_waits(squatter.get()));
  EXPECT_EQ(*sys::peer_endpoint(agent.get()), *sys::local_endpoint(client.get()));
  must_send(client.get(), "hello");
  EXPECT_EQ(must_receive(agent.get(), 5), "hello");
  ASSERT_TRUE(capture_->tag_socket(agent.get()));
  expect_talk(agent.get(), client.get());
  hbone_.reset();
  Fd late = socket_in(*netns_, a_.address);
  EXPECT_EQ(connect_error(late.get(), {a_.address, 15008}, milliseconds(200)), ETIMEDOUT);
  EXPECT_GE(counter("to_pod", "the agent does not listen"), 1U);
  EXPECT_TRUE(nobody_waits(squatter.get()));
}

TEST_P(InboundWired, PlaintextGoesWhereThePodSays) {
  Fd server = serve(*a_.netns, 8080);
  {
    Fd client = socket_in(*b_.netns, b_.address);
    must_connect(client.get(), {a_.address, 8080});
    Fd app = must_accept(server.get());
    expect_talk(client.get(), app.get());
  }
  set_pod(a_, 0, true, bpf::InboundPlaintext::kCheck);
  {
    Fd client = socket_in(*b_.netns, b_.address);
    must_connect(client.get(), {a_.address, 8080});
    Fd agent = must_accept(plaintext_.get());
    EXPECT_EQ(*sys::local_endpoint(agent.get()), (Endpoint{a_.address, 8080}));
    EXPECT_EQ(sys::peer_endpoint(agent.get())->address, b_.address);
    ASSERT_TRUE(capture_->tag_socket(agent.get()));
    expect_talk(client.get(), agent.get());
    // And on to the application, at the same time.
    Fd onward = dial_as({b_.address, 20'001}, 8080);
    Fd app = must_accept(server.get());
    expect_talk(onward.get(), app.get());
  }
  set_pod(a_, 0, true, bpf::InboundPlaintext::kDrop);
  Fd client = socket_in(*b_.netns, b_.address);
  EXPECT_EQ(connect_error(client.get(), {a_.address, 8080}, milliseconds(200)), ETIMEDOUT);
  EXPECT_GE(counter("to_pod", "no plaintext into this pod"), 1U);
  EXPECT_EQ(counter("to_pod", "a connection from the node itself"), 0U);
  EXPECT_TRUE(nobody_waits(server.get()));
}

TEST_P(InboundWired, TheNodeItselfPasses) {
  Fd server = serve(*a_.netns, 8080);
  std::uint64_t probes = 0;
  for (const auto inbound : {bpf::InboundPlaintext::kCheck, bpf::InboundPlaintext::kDrop}) {
    set_pod(a_, 0, true, inbound);
    Fd probe = socket_in(*netns_, a_.address);
    must_connect(probe.get(), {a_.address, 8080});
    Fd app = must_accept(server.get());
    expect_talk(probe.get(), app.get());
    EXPECT_EQ(counter("to_pod", "a connection from the node itself"), ++probes);
  }
}

TEST_P(InboundWired, ANeighbourOnTheBridgeIsNotTheNode) {
  // a and b on one bridge: b's socket is still the frame's when it reaches a's host side.
  Fd server = serve(*a_.netns, 8080);
  netns_->ip("link add br0 type bridge");
  netns_->ip("link set br0 up");
  for (const char* port : {"vetha", "vethb"}) netns_->ip(std::string("link set ") + port + " master br0");
  const std::string bits = v4() ? "/32" : "/128";
  b_.netns->ip((v4() ? "-4" : "-6") + std::string(" route add ") + a_.address.to_string() + bits + " dev eth0");
  a_.netns->ip((v4() ? "-4" : "-6") + std::string(" route add ") + b_.address.to_string() + bits + " dev eth0");
  Fd client = socket_in(*b_.netns, b_.address);
  must_connect(client.get(), {a_.address, 8080});  // so the bridge works
  Fd app = must_accept(server.get());
  set_pod(a_, 0, true, bpf::InboundPlaintext::kDrop);
  Fd again = socket_in(*b_.netns, b_.address);
  EXPECT_EQ(connect_error(again.get(), {a_.address, 8080}, milliseconds(200)), ETIMEDOUT);
  EXPECT_GE(counter("to_pod_host", "a connection from elsewhere than the node"), 2U);
  EXPECT_EQ(counter("to_pod_host", "a connection from the node itself, recorded"), 0U);
}

TEST_P(InboundWired, ThePodsTalkToItselfIsUntouched) {
  Fd server = serve(*a_.netns, 8080);
  set_pod(a_, 0, true, bpf::InboundPlaintext::kDrop);
  ASSERT_TRUE(capture_->set_destinations({{&a_.address, 1}, {}}));
  for (const int mark : {0, 0x1000}) {
    Fd client = socket_in(*a_.netns, a_.address);
    ASSERT_TRUE(sys::set_option(client.get(), SOL_SOCKET, SO_MARK, mark));
    must_connect(client.get(), {a_.address, 8080});
    Fd app = must_accept(server.get());
    expect_talk(client.get(), app.get());
  }
}

TEST_P(InboundWired, FramesPastTheStackMeetTheGuard) {
  const Fd raw = run_in(*a_.netns, [] { return Fd(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0)); });
  ASSERT_TRUE(raw);
  const auto send = [&](const Frame& frame, std::uint16_t said) {
    const auto bytes = frame.bytes();
    sockaddr_ll to{};
    to.sll_family = AF_PACKET;
    to.sll_protocol = htons(said);
    to.sll_ifindex = static_cast<int>(a_.target.ifindex);
    EXPECT_EQ(::sendto(raw.get(), bytes.data(), bytes.size(), 0, reinterpret_cast<sockaddr*>(&to), sizeof to),
              static_cast<ssize_t>(bytes.size()));
  };
  const auto grows = [&](const char* program, const char* reason, std::uint64_t to) {
    return eventually(milliseconds(5000), [&] { return counter(program, reason) == to; });
  };
  const Frame syn{.source = a_.address, .destination = f().mesh};
  // The sender may call the frame what it likes; from_pod reads it.
  send(syn, ETH_P_ARP);
  EXPECT_TRUE(grows("from_pod", "a new connection to the mesh", 1));
  ASSERT_TRUE(sys::set_option(raw.get(), SOL_PACKET, PACKET_QDISC_BYPASS, 1));
  send(syn, ETH_P_ARP);
  EXPECT_TRUE(grows("guard", "plaintext into the mesh past the agent", 1));
  Frame tagged = syn;
  for (std::uint64_t tags = 1; tags <= 3; ++tags) {
    tagged.vlan_tags.push_back(tags == 2 ? 0x88a8 : 0x8100);
    send(tagged, ETH_P_8021Q);
  }
  // The kernel takes the outer tag into the packet's description: three tags become one there and two in the frame.
  EXPECT_TRUE(grows("guard", "a VLAN tag", 3));
  Frame foreign = syn;
  foreign.source = b_.address;
  send(foreign, ETH_P_IP);
  EXPECT_TRUE(grows("guard", "a source that is not the pod's", 1));
  Frame hbone = syn;
  hbone.destination_port = 15008;
  send(hbone, ETH_P_IP);
  EXPECT_TRUE(eventually(milliseconds(5000), [&] { return counter("guard", "nothing against it") >= 1; }));
  EXPECT_EQ(counter("guard", "plaintext into the mesh past the agent"), 1U);
}

TEST_P(InboundWired, VlanDevicesAreNoWayOut) {
  const std::vector<std::string> add{"ip",   "-n",    a_.netns->name(), "link", "add", "link", "eth0",
                                     "name", "eth0v", "type",           "vlan", "id",  "5"};
  if (!weft::test::run(add).ok()) GTEST_SKIP() << "this kernel has no VLAN devices";
  a_.netns->ip("link set eth0v up");
  const std::string v = v4() ? "-4 " : "-6 ";
  a_.netns->ip(v + "route add " + f().mesh.to_string() + " dev eth0v src " + a_.address.to_string());
  a_.netns->ip(v + "neigh add " + f().mesh.to_string() + " lladdr 02:00:00:00:00:01 dev eth0v");
  Fd app = socket_in(*a_.netns, a_.address);
  EXPECT_EQ(connect_error(app.get(), {f().mesh, 80}, milliseconds(200)), ETIMEDOUT);
  EXPECT_GE(counter("from_pod", "a VLAN tag"), 1U);  // the guard's counts IPv6 housekeeping of the new device too
}

}  // namespace
}  // namespace weft::test
