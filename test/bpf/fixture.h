// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "bpf/loader.h"
#include "test/bpf/frame.h"
#include "test/support/netns.h"
#include "tunnel/base/fd.h"

namespace weft::test {

/// What a program returned, and the mark it left.
struct Outcome {
  int action = 0;
  std::uint32_t mark = 0;
};

inline constexpr int kNext = -1, kDrop = 2, kRedirect = 7;

struct Context {
  std::uint32_t ifindex = 0;
  std::uint32_t mark = 0;
  std::uint32_t ingress_ifindex = 0;  ///< of the device that it came in by; 0: it was sent here
};

/// The production object, loaded by Capture::load into a bpffs and a network namespace of the test's own, which the
/// test's thread is in. capture_all is off.
class CaptureTest : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  virtual bpf::Settings settings() const;

  /// Runs a pinned program on a frame.
  [[nodiscard]] Outcome run(const std::string& program, const Frame& frame, const Context& context = {}) const;
  /// Runs it and says "VERDICT: REASON" of the one counter of the program that went up. Records a failure if the action
  /// does not fit to the verdict, or if not exactly one counter went up by one.
  [[nodiscard]] std::string verdict(const std::string& program, const Frame& frame, const Context& context = {}) const;

  /// Opens a pinned map.
  [[nodiscard]] Fd map(const std::string& name) const;
  [[nodiscard]] std::uint64_t counter(const std::string& program, const std::string& reason) const;

  std::unique_ptr<ScratchDir> folder_;
  std::unique_ptr<Netns> netns_;
  std::string root_;
  std::unique_ptr<bpf::Capture> capture_;
};

/// The addresses of one family: two pods, a mesh address, one in a mesh range and one outside of the mesh.
struct Family {
  const char* name;
  IpAddress pod, other_pod, mesh, in_range, outside, link_local;
  Cidr range;
};
[[nodiscard]] const Family& family(int version);

/// A CaptureTest in both families: slot 0 is an enrolled pod with the host side `kHostIfindex`, slot 1 one that is not
/// enrolled; the mesh is Family::mesh and Family::range.
class FamilyTest : public CaptureTest, public ::testing::WithParamInterface<int> {
 protected:
  void SetUp() override;
  [[nodiscard]] const Family& f() const { return family(GetParam()); }
  [[nodiscard]] bool v4() const { return GetParam() == 4; }
  /// A frame from the enrolled pod to the mesh, or into the pod.
  [[nodiscard]] Frame out() const { return {.source = f().pod, .destination = f().mesh}; }
  [[nodiscard]] Frame in() const { return {.source = f().outside, .destination = f().pod}; }
  void set_inbound(bpf::InboundPlaintext inbound);
  /// Gives the program a listener of the agent in slot 0.
  void listen(bpf::Listener kind, std::uint32_t worker = 0);

  bpf::Pod pod_;
  std::uint32_t host_ifindex_ = 0;   ///< of a device of the test's netns
  std::uint32_t other_ifindex_ = 0;  ///< another one
  std::vector<Fd> listeners_;
};

std::string family_name(const ::testing::TestParamInfo<int>& info);

/// A TCP connection between two addresses, both on the test netns's lo.
struct Pair {
  Fd listener, client, server;
  Endpoint client_end, server_end;
};
Pair connect_on_lo(const Netns& netns, const IpAddress& client, const IpAddress& server);

}  // namespace weft::test
