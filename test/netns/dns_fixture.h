// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "test/netns/mesh_fixture.h"

namespace weft::test {

/// What dig printed of one answer.
struct Dug {
  int status = -1;    ///< of dig: 9 where nothing came
  std::string rcode;  ///< "NOERROR"
  std::string flags;  ///< "qr aa rd ra"
  std::size_t bytes = 0;
  std::string edns;                  ///< its line on EDNS, "" without
  std::vector<std::string> records;  ///< of the answer, "OWNER TTL CLASS TYPE DATA", as they came
  /// What stands behind the type, sorted.
  [[nodiscard]] std::vector<std::string> data() const;
};
void PrintTo(const Dug& dug, std::ostream* out);

/// A real forwarding resolver, dnsmasq, in a namespace of the test.
class Dnsmasq {
 public:
  /// Waits until it serves. Without addresses it has the port of all of them. `records` are its further arguments.
  Dnsmasq(const Netns& netns, const std::vector<IpAddress>& addresses, const std::vector<std::string>& records);

 private:
  std::unique_ptr<Process> process_;
};

/// Node 1 has the pods client (shop), other (bank), which have opted in, and plain (shop), which has not, and web1;
/// node 2 has web2 and, on its own addresses, the resolver of the pods. What that one says of the mesh's names is not
/// what the mesh says.
class DnsTest : public ::testing::Test {
 protected:
  static constexpr const char* kLinkLocal = "169.254.20.10";  ///< another resolver, on node 1
  static constexpr const char* kSilent4 = "192.0.2.53";       ///< on node 1: takes what comes, by UDP and TCP
  static constexpr const char* kSilent6 = "2001:db8:53::1";
  static constexpr const char* kNobody = "192.0.2.54";  ///< on node 1: nobody listens

  static void SetUpTestSuite();
  static void TearDownTestSuite();
  void SetUp() override;
  void TearDown() override;

  /// dig @SERVER NAME TYPE +MORE…
  static Dug dig(const Pod& pod, const IpAddress& server, const std::string& name, const std::string& type,
                 const std::vector<std::string>& more = {});
  static IpAddress at(const char* address) { return IpAddress::parse(address).value(); }
  static Node& node1() { return mesh_->node(1); }
  static IpAddress server_v4() { return mesh_->node(2).address_v4(); }
  static IpAddress server_v6() { return mesh_->node(2).address_v6(); }
  /// The sum over the DNS counters of node 1 that carry these labels.
  static double counted(const std::string& name, const std::vector<std::string>& labels);

  using Addresses = std::vector<IpAddress>;
  /// Addresses as dig prints them, those of a family, sorted.
  static std::vector<std::string> texts(const Addresses& addresses, bool v4);

  static std::unique_ptr<Mesh> mesh_;
  static std::vector<std::unique_ptr<Dnsmasq>> resolvers_;
  static std::vector<Fd> silent_;
  static Pod *client_, *other_, *plain_, *web1_, *web2_;
  /// VIPs of the services, by what is unique in their hostnames.
  static std::map<std::string, Addresses> vips_;

  AgentLogs logs_;
};

}  // namespace weft::test
