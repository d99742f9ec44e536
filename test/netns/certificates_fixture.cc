// SPDX-License-Identifier: Apache-2.0
#include "test/netns/certificates_fixture.h"

#include <algorithm>

namespace weft::test {

using nlohmann::json;

std::unique_ptr<Mesh> CertificatesTest::mesh_;
Pod *CertificatesTest::client, *CertificatesTest::web1, *CertificatesTest::db, *CertificatesTest::outside;

void CertificatesTest::make_mesh(MeshOptions options) {
  if (!is_root()) return;
  auto made = std::make_unique<Mesh>(std::move(options));
  client = add_serving_pod(*made, 1, "shop", "client", true);
  web1 = add_serving_pod(*made, 1, "shop", "web1", true);
  db = add_serving_pod(*made, 2, "bank", "db", true);
  outside = add_serving_pod(*made, 2, "legacy", "outside", false);
  mesh_ = std::move(made);
}

void CertificatesTest::SetUp() {
  WEFT_NEEDS_ROOT();
  ASSERT_NE(mesh_, nullptr) << "the mesh could not be made";
  logs_.mark(mesh());
  for (const int node : {1, 2}) before_[node] = mesh().node(node).log().size();
}

void CertificatesTest::TearDown() {
  if (HasFailure() && mesh_) logs_.tell(mesh());
}

json CertificatesTest::ask(const Node& node, const std::string& path) { return json::parse(node.admin(path)); }

json CertificatesTest::certificate_of(const Pod& pod) {
  for (auto& one : ask(pod.node(), "/certificates")) {
    if (one.at("identity") == pod.identity()) return one;
  }
  return json::object();
}

bool CertificatesTest::all_certificates(const std::function<bool(const json&)>& is_true) {
  return std::ranges::all_of(std::vector<const Node*>{&node1(), &node2()}, [&](const Node* node) {
    const json all = ask(*node, "/certificates");
    return !all.empty() && std::all_of(all.begin(), all.end(), is_true);
  });
}

json CertificatesTest::connection_from(const Pod& pod, const std::string& source) {
  for (auto& one : ask(pod.node(), "/connections")) {
    if (one.at("direction") == "outbound" && one.at("source") == source) return one;
  }
  return json::object();
}

Finished CertificatesTest::weftctl(const Node& node, const std::vector<std::string>& arguments) {
  std::vector<std::string> command{program("weftctl")};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return run(command, {.netns = &node.netns(), .environment = {}, .input = {}});
}

std::string CertificatesTest::ca(const std::vector<std::string>& arguments) {
  std::vector<std::string> command{program("weftctl"), "ca"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return must_run(command);
}

std::vector<std::string> CertificatesTest::logged(int node, const std::vector<std::string>& words) const {
  return log_lines(mesh().node(node).log(), before_[node], words);
}

void CertificatesTest::expect_no_failures() const {
  for (const int node : {1, 2}) {
    const std::vector<std::string> failed{"connection complete", "response_flags="},
        odd{"connection complete", "error="};
    EXPECT_EQ(logged(node, failed), std::vector<std::string>()) << "node" << node;
    EXPECT_EQ(logged(node, odd), std::vector<std::string>()) << "node" << node;
  }
}

}  // namespace weft::test
