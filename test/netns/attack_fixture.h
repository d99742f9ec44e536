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

/// What listens in the pod on [::1], as the agent's listeners do, and on all addresses.
std::vector<Endpoint> listeners_in(const Pod& pod);

/// A server in the place of somebody else, and the connections that it has taken so far.
Process squat(const Pod& pod, std::uint16_t port);
std::size_t connections_of(const Process& squatter);

/// How the mesh of a suite is made.
struct AttackOptions {
  std::vector<std::string> agent_arguments = {};
  Primary primary = Primary::kPtp;
  std::vector<std::pair<std::string, std::string>> attacker_sysctls = {};  ///< set before the pod's ADD
  std::vector<std::pair<std::string, std::string>> victim_sysctls = {};
};

/// Two nodes with real agents. On the first: the attacker (in the mesh), a neighbour (in the mesh) and a control, wired
/// but outside the mesh, whose same packets pass and so prove that an attack is one. On the second: the victim (in the
/// mesh) and a pod outside the mesh. Both serve. The wire between the nodes and the attacker's veth are watched.
struct AttackMesh {
  explicit AttackMesh(const AttackOptions& options);

  Mesh mesh;
  Pod *attacker, *neighbour, *control, *victim, *outside;
  Process* victim_app;
  std::unique_ptr<Capture> wire, veth;
  int markers = 0;
  std::uint16_t next_port = 40'000;
};

/// Attacks in such a mesh. Tells what a case tried and what stopped it (attack_cases.h) when it ends well.
class AttackTest : public ::testing::Test {
 protected:
  /// A mesh for this case alone.
  void SetUp() override;
  void TearDown() override;
  [[nodiscard]] virtual AttackOptions options() const { return {}; }

  void use(AttackMesh& mesh);
  [[nodiscard]] bool has_mesh() const { return on_ != nullptr; }
  /// Both agents end well.
  static void end(AttackMesh& mesh);

  [[nodiscard]] Mesh& mesh() { return on_->mesh; }
  [[nodiscard]] Pod& attacker() { return *on_->attacker; }
  [[nodiscard]] Pod& neighbour() { return *on_->neighbour; }
  [[nodiscard]] Pod& control() { return *on_->control; }
  [[nodiscard]] Pod& victim() { return *on_->victim; }
  [[nodiscard]] Pod& outside() { return *on_->outside; }
  [[nodiscard]] Process& victim_app() { return *on_->victim_app; }
  [[nodiscard]] Node& node(int index) { return on_->mesh.node(index); }
  [[nodiscard]] Capture& wire() { return *on_->wire; }
  /// The host's side of the attacker's veth. Frames are seen there before the guard drops them.
  [[nodiscard]] Capture& veth() { return *on_->veth; }

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
  /// Where the pod serves, or would.
  static Endpoint of(const Pod& pod, bool v6, std::uint16_t port = Pod::kPort) {
    return v6 ? pod.v6(port) : pod.v4(port);
  }
  /// What the chain's CHECK says against the attacker; empty: nothing.
  [[nodiscard]] std::string check_attacker();
  /// A short attempt of the attacker's to get an answer.
  [[nodiscard]] Finished try_get(const Endpoint& to, const std::string& marker, std::vector<std::string> arguments = {},
                                 const std::string& connect_timeout_s = "1");
  /// The text is in the clear neither on the wire nor on the attacker's veth, nor is anything else of the two.
  void expect_nowhere(const std::string& marker);
  /// No payload to or from the victim's and the attacker's addresses except on port 15008, and no marker, was seen.
  void expect_no_plaintext(const Capture& capture, const std::string& where);

 private:
  void expect_stopped(const Attack& attack, Way way);

  std::unique_ptr<AttackMesh> own_;
  AttackMesh* on_ = nullptr;
};

/// Attacks that share the mesh of their suite: each leaves it as it found it. `Suite::mesh_options()` says how it is
/// made. ctest runs such a suite as one test.
template <class Suite>
class SharedAttackTest : public AttackTest {
 protected:
  static AttackOptions mesh_options() { return {}; }
  static void TearDownTestSuite() {
    if (shared_) end(*shared_);
    shared_.reset();
  }
  void SetUp() override {
    WEFT_NEEDS_ROOT();
    if (!shared_) shared_ = std::make_unique<AttackMesh>(Suite::mesh_options());
    use(*shared_);
  }

 private:
  static inline std::unique_ptr<AttackMesh> shared_;
};

}  // namespace weft::test
