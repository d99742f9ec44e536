// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "test/netns/attack_packet.h"
#include "test/netns/attack_raw.h"
#include "test/support/capture.h"
#include "test/support/mesh.h"

namespace weft::test {

/// What the capture programs have counted on a node so far, by the agent's metrics.
std::uint64_t packets(const Node& node, const std::string& program, const std::string& reason);

/// The numbers of open descriptors of a process.
std::size_t open_descriptors(pid_t pid);

/// Two nodes with real agents. On the first: the attacker (in the mesh), a neighbour (in the mesh) and a control, wired
/// but outside the mesh, whose same packets pass and so prove that an attack is one. On the second: the victim (in the
/// mesh) and a pod outside the mesh. Both serve. The wire between the nodes and the attacker's veth are watched.
class AttackTest : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;
  /// Sysctls of the attacker and the victim, set before their ADD.
  [[nodiscard]] virtual std::vector<std::pair<std::string, std::string>> attacker_sysctls() const { return {}; }
  [[nodiscard]] virtual std::vector<std::pair<std::string, std::string>> victim_sysctls() const { return {}; }

  [[nodiscard]] Mesh& mesh() { return *mesh_; }
  [[nodiscard]] Pod& attacker() { return *attacker_; }
  [[nodiscard]] Pod& neighbour() { return *neighbour_; }
  [[nodiscard]] Pod& control() { return *control_; }
  [[nodiscard]] Pod& victim() { return *victim_; }
  [[nodiscard]] Pod& outside() { return *outside_; }
  [[nodiscard]] Process& victim_app() { return *victim_app_; }
  [[nodiscard]] Node& node(int index) { return mesh_->node(index); }
  [[nodiscard]] Capture& wire() { return *wire_; }
  /// The host's side of the attacker's veth. Frames are seen there before the guard drops them.
  [[nodiscard]] Capture& veth() { return *veth_; }

  /// A text that was not used before in this test.
  [[nodiscard]] std::string new_marker();
  /// eth0 of a pod and the host's side of it.
  [[nodiscard]] static Link link_of(const Pod& pod);
  /// A SYN with a payload, from the pod's address to the victim's application.
  [[nodiscard]] TcpPacket syn(const Pod& from, bool v6, const std::string& payload);
  void send(const Pod& from, Way way, const std::vector<std::string>& frames);
  /// True when the text came by on the wire.
  [[nodiscard]] bool on_wire(const std::string& marker, milliseconds deadline = milliseconds(3000));
  /// Waits until everything that left the first node's pods before is on the wire: sends a frame that passes, and waits
  /// for it. Afterwards absence on the wire means something.
  void flush_wire();

  /// One attack with hand-made frames.
  struct Attack {
    std::string name;
    /// The frames, of a packet that the function may change at will before it makes frames of it.
    std::function<std::vector<std::string>(const Link&, TcpPacket)> make;
    bool v6 = false;
    bool passes_outside = true;  ///< the host would route it: the control's frames reach the wire
    std::string from_pod{};      ///< reason that from_pod counts, with Way::kPacketSocket
    std::string guard{};         ///< reason that the guard counts, with Way::kQdiscBypass
  };
  /// Sends it from the control, which must come through where it says so, and from the attacker both ways: nothing on
  /// the wire, and the reason counted by the program that must stop it.
  void expect_stopped(const Attack& attack);
  /// No payload to or from the victim's and the attacker's addresses except on port 15008, and no marker, was seen.
  void expect_no_plaintext(const Capture& capture, const std::string& where);

 private:
  void expect_stopped(const Attack& attack, Way way);

  std::unique_ptr<Mesh> mesh_;
  Pod *attacker_ = nullptr, *neighbour_ = nullptr, *control_ = nullptr, *victim_ = nullptr, *outside_ = nullptr;
  Process* victim_app_ = nullptr;
  std::unique_ptr<Capture> wire_, veth_;
  int markers_ = 0;
  std::uint16_t next_port_ = 40'000;
};

}  // namespace weft::test
