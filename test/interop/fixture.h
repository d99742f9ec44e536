// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "test/interop/ztunnel.h"
#include "test/netns/mesh_fixture.h"

namespace weft::test {

/// One mesh for all cases of a suite. Node 1 is weft's: its pods client and web (namespace shop) have weft-cni in their
/// chain and weft-agent behind it. Node 2 is Istio's: its pods zclient and zweb (namespace bank) are served by a real
/// ztunnel each. Each pod has a service account of its own name and serves on Pod::kPort. A case leaves the mesh as it
/// found it.
class ZtunnelTest : public ::testing::Test {
 protected:
  static constexpr milliseconds kSoon{5000};

  static void SetUpTestSuite();
  static void TearDownTestSuite();
  void SetUp() override;
  /// Tells what the agent and the ztunnels logged in a case that failed.
  void TearDown() override;

  static Mesh& mesh() { return *mesh_; }
  static Node& weft() { return mesh_->node(1); }
  /// Starts all ztunnels anew, as the mesh's configuration now stands: they read it once.
  static void restart_ztunnels();
  /// A policy for both sides.
  static void set_policy(const nlohmann::json& policy);
  static void remove_policy(const std::string& namespace_name, const std::string& name);
  /// The lines of one log, since the case began, that have each of the words; waits for the first. Empty: none came.
  std::vector<std::string> weft_logged(const std::vector<std::string>& words) const;
  std::vector<std::string> ztunnel_logged(const Ztunnel& ztunnel, const std::vector<std::string>& words) const;

  static std::unique_ptr<Mesh> mesh_;
  static Pod *client, *web, *zclient, *zweb;
  static std::unique_ptr<Ztunnel> ztunnel_of_client, ztunnel_of_web;  ///< of zclient and zweb

 private:
  std::size_t weft_before_ = 0, client_before_ = 0, web_before_ = 0;
};

/// Answered by the server named so, by IPv4 and by IPv6, which saw the client's own addresses.
void expect_reaches(const Pod& from, const Pod& to);
/// Neither by IPv4 nor by IPv6.
void expect_refused(const Pod& from, const Pod& to);

}  // namespace weft::test
