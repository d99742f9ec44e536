// SPDX-License-Identifier: Apache-2.0
#include "test/netns/mesh_fixture.h"

#include <algorithm>
#include <iostream>
#include <sstream>

namespace weft::test {

using nlohmann::json;

std::unique_ptr<Mesh> MeshTest::mesh_;
Pod *MeshTest::client, *MeshTest::web1, *MeshTest::web2, *MeshTest::db, *MeshTest::outside;

void AgentLogs::mark(Mesh& mesh) {
  before1_ = mesh.node(1).log().size();
  before2_ = mesh.node(2).log().size();
}

void AgentLogs::tell(Mesh& mesh) const {
  std::cerr << "---- node1's agent:\n"
            << mesh.node(1).log().substr(before1_) << "---- node2's agent:\n"
            << mesh.node(2).log().substr(before2_);
}

Pod* add_serving_pod(Mesh& mesh, int node, const char* namespace_name, const char* name, bool enrolled) {
  PodOptions options;
  options.service_account = name;
  options.enrolled = enrolled;
  Pod& pod = mesh.add_pod(node, namespace_name, name, options);
  pod.serve();
  return &pod;
}

void MeshTest::SetUpTestSuite() {
  if (!is_root()) return;
  auto made = std::make_unique<Mesh>();
  client = add_serving_pod(*made, 1, "shop", "client", true);
  web1 = add_serving_pod(*made, 1, "shop", "web1", true);
  web2 = add_serving_pod(*made, 2, "shop", "web2", true);
  db = add_serving_pod(*made, 2, "bank", "db", true);
  outside = add_serving_pod(*made, 2, "legacy", "outside", false);
  mesh_ = std::move(made);
}

void MeshTest::TearDownTestSuite() { mesh_.reset(); }

void MeshTest::SetUp() {
  WEFT_NEEDS_ROOT();
  ASSERT_NE(mesh_, nullptr) << "the mesh could not be made";
  logs_.mark(mesh());
}

void MeshTest::TearDown() {
  if (HasFailure() && mesh_) logs_.tell(mesh());
}

void expect_untouched(const Finished& answer, const std::string& server) {
  EXPECT_TRUE(answer.ok()) << ::testing::PrintToString(answer);
  EXPECT_EQ(field(answer.out, "server"), server);
  EXPECT_EQ(field(answer.out, "client"), field(answer.out, "own"));
}

Finished get_from_node(const Node& node, const Endpoint& to, const std::vector<std::string>& arguments) {
  std::vector<std::string> command{program("weft-testapp"), "get", to.to_string()};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return run(command, {.netns = &node.netns(), .environment = {}, .input = {}});
}

json deny_policy(const std::string& namespace_name, const std::string& name, const json& match) {
  return {{"name", name},
          {"namespace", namespace_name},
          {"scope", "Namespace"},
          {"action", "Deny"},
          {"rules", json::array({json::array({json::array({match})})})}};
}

json principal(const Pod& pod) {
  const std::string uri = pod.identity();
  return {{"principals", json::array({{{"Exact", uri.substr(std::string("spiffe://").size())}}})}};
}

json plaintext() { return {{"notPrincipals", json::array({{{"Presence", json::array()}}})}}; }

std::string field(const std::string& line, const std::string& key) {
  const std::string wanted = key + "=";
  std::istringstream words(line);
  for (std::string word; words >> word;) {
    if (word.starts_with(wanted)) return word.substr(wanted.size());
  }
  return {};
}

double metric(const std::string& text, const std::string& name, const std::vector<std::string>& labels) {
  double sum = 0;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(name + "{") && !line.starts_with(name + " ")) continue;
    const bool fits =
        std::ranges::all_of(labels, [&](const std::string& label) { return line.find(label) != std::string::npos; });
    if (fits) sum += std::stod(line.substr(line.rfind(' ') + 1));
  }
  return sum;
}

std::vector<std::string> log_lines(const std::string& log, std::size_t offset, const std::vector<std::string>& words) {
  std::vector<std::string> found;
  std::istringstream lines(log.substr(std::min(offset, log.size())));
  for (std::string line; std::getline(lines, line);) {
    const bool fits =
        std::ranges::all_of(words, [&](const std::string& word) { return line.find(word) != std::string::npos; });
    if (fits) found.push_back(line);
  }
  return found;
}

void PrintTo(const Finished& finished, std::ostream* out) {
  *out << "status " << finished.status << "\n" << finished.out << finished.err;
}

}  // namespace weft::test
