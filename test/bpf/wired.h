// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <tuple>

#include "bpf/attach.h"
#include "test/bpf/fixture.h"

namespace weft::test {

/// A pod that is wired by hand as the plugin does it: veth, routes, rule, sysctls.
struct WiredPod {
  std::unique_ptr<Netns> netns;
  IpAddress address, gateway;
  bpf::Target target;
};

/// Runs a program in the namespace; throws when it fails.
void must_run_in(const Netns& netns, const std::vector<std::string>& arguments);

/// Sockets for people in a hurry. All are non-blocking; the functions wait up to five seconds and throw TestError.
Fd socket_in(const Netns& netns, const IpAddress& like);
/// An empty optional: connected. Otherwise the errno, ETIMEDOUT for silence.
std::optional<int> connect_error(int fd, const Endpoint& to, milliseconds deadline = milliseconds(5000));
void must_connect(int fd, const Endpoint& to);
Fd must_accept(int listener);
bool nobody_waits(int listener);
void must_send(int fd, const std::string& text);
/// What arrives, up to `size` bytes; shorter at the end of the stream. Throws what the socket reports.
std::string must_receive(int fd, std::size_t size);
/// Both ways.
void expect_talk(int a, int b);
/// Closes a TCP socket without a word to its peer, as if its host had vanished.
void vanish(Fd& fd);
/// The socket's pending error once there is one.
int wait_for_error(int fd);

/// A node with two wired and attached pods in both families: `a`, enrolled in slot 0, with all listeners of the agent,
/// and `b`, not enrolled, in slot 1. The test's thread is in the node's netns. Parameters: family, and whether by
/// clsact.
class WiredTest : public CaptureTest, public ::testing::WithParamInterface<std::tuple<int, bool>> {
 protected:
  void SetUp() override;
  bpf::Settings settings() const override;
  [[nodiscard]] const Family& f() const { return family(std::get<0>(GetParam())); }
  [[nodiscard]] bool v4() const { return std::get<0>(GetParam()) == 4; }
  WiredPod wire(const std::string& name, int number);
  void set_pod(const WiredPod& pod, std::uint32_t slot, bool enrolled,
               bpf::InboundPlaintext inbound = bpf::InboundPlaintext::kPass);
  /// A socket of the application that listens in a pod on all addresses.
  Fd serve(const Netns& netns, std::uint16_t port);
  /// A listening socket of the agent in pod a.
  Fd agent_listener(bpf::Listener kind);
  /// A socket in pod a connected to the mesh and the agent's end of it.
  std::pair<Fd, Fd> captured();

  WiredPod a_, b_;
  Fd outbound_, hbone_, plaintext_;
};

std::string wired_name(const ::testing::TestParamInfo<std::tuple<int, bool>>& info);

}  // namespace weft::test
