// SPDX-License-Identifier: Apache-2.0
/// What both agents report of one scripted run, label by label and field by field: docs/telemetry.md.

#include <regex>
#include <set>

#include "test/netns/mesh_fixture.h"

namespace weft::test {
namespace {

using nlohmann::json;
using Labels = std::map<std::string, std::string>;
/// A counter's value by its name and labels, as Prometheus' text spells them.
using Series = std::map<std::string, double>;

constexpr milliseconds kSoon{10'000};
constexpr const char* kFamilies[] = {"istio_tcp_connections_opened_total", "istio_tcp_connections_closed_total",
                                     "istio_tcp_connections_failed_total", "istio_tcp_received_bytes_total",
                                     "istio_tcp_sent_bytes_total",         "weft_policy_decisions_total"};

std::string spelled(const std::string& family, const Labels& labels) {
  std::string out;
  for (const auto& [name, value] : labels) out += (out.empty() ? "" : ",") + name + "=\"" + value + "\"";
  return family + "{" + out + "}";
}

/// The series of kFamilies that are not 0.
Series series_of(const std::string& metrics) {
  Series out;
  std::istringstream lines(metrics);
  for (std::string line; std::getline(lines, line);) {
    const auto end = line.rfind(' ');
    if (std::ranges::none_of(kFamilies,
                             [&](const char* family) { return line.starts_with(std::string(family) + "{"); }))
      continue;
    if (const double value = std::stod(line.substr(end + 1)); value != 0) out[line.substr(0, end)] = value;
  }
  return out;
}

/// The access records among the lines of a JSON log.
std::vector<json> records_of(const std::string& log, std::size_t offset) {
  std::vector<json> out;
  std::istringstream lines(log.substr(offset));
  for (std::string line; std::getline(lines, line);) {
    json record = json::parse(line, nullptr, false);
    if (record.is_object() && record.value("message", "") == "connection complete") out.push_back(std::move(record));
  }
  return out;
}

/// What one node is to report of one connection.
struct Report {
  int node;
  json record;    ///< each field but time and level; of an address without its port the port is any, see fits()
  Labels labels;  ///< without response_flags
  std::uint64_t sent = 0, received = 0;  ///< by the source
};

/// The fields of an access record that a table cannot know: checked on their own and taken out. An address whose port
/// nobody chose keeps its address alone.
json settled(json record) {
  EXPECT_TRUE(std::regex_match(record.value("duration", ""), std::regex("[0-9]+ms"))) << record;
  EXPECT_TRUE(std::regex_match(record.value("time", ""), std::regex("[0-9-]+T[0-9:.]+Z"))) << record;
  EXPECT_EQ(record.value("level", ""),
            record.contains("response_flags") || record.contains("error") ? "warning" : "info")
      << record;
  for (const char* field : {"duration", "time", "level", "message", "traceparent"}) record.erase(field);
  if (const auto source = Endpoint::parse(record.value("src.addr", "")))
    record["src.addr"] = source->address.to_string();
  return record;
}

/// One mesh whose agents capture everything, so that they meet unknown destinations too, and log in JSON.
class Telemetry : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (!is_root()) return;
    MeshOptions options;
    options.agent_arguments = {"--log-format", "json", "--max-destinations", "1"};
    auto made = std::make_unique<Mesh>(options);
    client = add(*made, 1, "shop", "client",
                 {{"workloadName", "front"},
                  {"canonicalName", "front-app"},
                  {"canonicalRevision", "v1"},
                  {"clusterId", "east"},
                  {"locality", {{"region", "eu"}, {"zone", "eu-1"}}}});
    web = add(*made, 1, "shop", "web", json::object());
    db = add(*made, 2, "bank", "db", json::object());
    outside = add_serving_pod(*made, 2, "legacy", "outside", false);
    mesh_ = std::move(made);
  }
  static void TearDownTestSuite() { mesh_.reset(); }
  void SetUp() override {
    WEFT_NEEDS_ROOT();
    ASSERT_NE(mesh_, nullptr) << "the mesh could not be made";
    logs_.mark(*mesh_);
    for (const int node : {1, 2}) {
      log_offset_[node] = mesh_->node(node).log().size();
      before_[node] = series_of(mesh_->node(node).metrics());
    }
  }
  void TearDown() override {
    if (HasFailure() && mesh_) logs_.tell(*mesh_);
  }

  static Pod* add(Mesh& mesh, int node, const char* namespace_name, const char* name, json workload) {
    PodOptions options;
    options.service_account = name;
    options.workload = std::move(workload);
    Pod& pod = mesh.add_pod(node, namespace_name, name, options);
    pod.serve();
    return &pod;
  }

  /// Labels of a workload as either side.
  static void describe(Labels& labels, const std::string& side, const Pod* pod) {
    const bool is_client = pod == client;
    const std::string unknown = "unknown";
    const auto set = [&](const char* label, const std::string& value) { labels[side + "_" + label] = value; };
    set("workload", pod == nullptr ? unknown : is_client ? "front" : pod->name());
    set("workload_namespace", pod == nullptr ? unknown : pod->namespace_name());
    const std::string canonical = pod == nullptr ? unknown : is_client ? "front-app" : pod->name();
    const std::string revision = pod == nullptr ? unknown : is_client ? "v1" : "latest";
    set("canonical_service", canonical);
    set("canonical_revision", revision);
    set("app", canonical);
    set("version", revision);
    set("cluster", pod == nullptr ? unknown : is_client ? "east" : "Kubernetes");
    set("region", is_client ? "eu" : unknown);
    set("zone", is_client ? "eu-1" : unknown);
    set("principal", pod == nullptr ? unknown : pod->identity());
  }
  static void describe(json& record, const std::string& side, const Pod* pod, bool proven) {
    if (pod == nullptr) return;
    record[side + ".workload"] = pod->name();
    record[side + ".namespace"] = pod->namespace_name();
    record[side + ".cluster"] = pod == client ? "east" : "Kubernetes";
    if (proven) record[side + ".identity"] = pod->identity();
  }
  static Labels labels_of(const char* reporter, const Pod* from, const Pod* to, bool tls) {
    Labels labels{{"reporter", reporter},
                  {"request_protocol", "tcp"},
                  {"connection_security_policy", tls ? "mutual_tls" : "unknown"},
                  {"destination_service", "unknown"},
                  {"destination_service_name", "unknown"},
                  {"destination_service_namespace", "unknown"}};
    describe(labels, "source", from);
    describe(labels, "destination", to);
    if (!tls) labels["source_principal"] = "unknown";
    return labels;
  }

  /// A connection through a tunnel, as both sides are to report it.
  void expect_tunnel(const Pod* from, const Pod* to, const Endpoint& target, const IpAddress& source,
                     std::uint64_t sent = 0, std::uint64_t received = 0, const json& more_source = {},
                     const json& more_destination = {}) {
    for (const bool outbound : {true, false}) {
      Report report{.node = (outbound ? from : to)->node().index(),
                    .record = {{"src.addr", source.to_string()},
                               {"dst.addr", Endpoint{target.address, 15008}.to_string()},
                               {"dst.hbone_addr", target.to_string()},
                               {"direction", outbound ? "outbound" : "inbound"},
                               {"bytes_sent", outbound ? sent : received},
                               {"bytes_recv", outbound ? received : sent}},
                    .labels = labels_of(outbound ? "source" : "destination", from, to, true),
                    .sent = sent,
                    .received = received};
      describe(report.record, "src", from, true);
      describe(report.record, "dst", to, true);
      const json& more = outbound ? more_source : more_destination;
      if (!more.is_null()) report.record.update(more);
      expected_.push_back(std::move(report));
      tunnels_.insert((outbound ? from : to)->node().index());
    }
  }
  void expect_plain(int node, const char* direction, const Pod* from, const Pod* to, const IpAddress& source,
                    const Endpoint& target, std::uint64_t sent, std::uint64_t received, const json& more = {}) {
    const bool outbound = std::string_view(direction) == "outbound";
    Report report{.node = node,
                  .record = {{"src.addr", source.to_string()},
                             {"dst.addr", target.to_string()},
                             {"direction", direction},
                             {"bytes_sent", outbound ? sent : received},
                             {"bytes_recv", outbound ? received : sent}},
                  .labels = labels_of(outbound ? "source" : "destination", from, to, false),
                  .sent = sent,
                  .received = received};
    describe(report.record, "src", from, false);
    describe(report.record, "dst", to, false);
    if (!more.is_null()) report.record.update(more);
    expected_.push_back(std::move(report));
  }
  /// Of the last connection, on both sides or on one: it went to this service.
  static void name_service(Report& report) {
    report.record["dst.service"] = "db.bank.svc.cluster.local";
    report.labels["destination_service"] = "db.bank.svc.cluster.local";
    report.labels["destination_service_name"] = "db";
    report.labels["destination_service_namespace"] = "bank";
  }
  Report& last(std::size_t back = 1) { return expected_.at(expected_.size() - back); }
  /// One decision of policy on a node.
  void expect_decision(int node, const char* policy, const char* action, const char* mode = "enforced") {
    decisions_[node]
              [spelled("weft_policy_decisions_total", {{"policy", policy}, {"action", action}, {"mode", mode}})] += 1;
  }

  /// The bytes that a bulk transfer sends: its opening line, and the payload.
  static std::uint64_t opening(std::uint64_t send, std::uint64_t receive) {
    return ("BULK send=" + std::to_string(send) + " receive=" + std::to_string(receive) + " seed=1 rate=0\n").size();
  }
  static void transfer(const Pod& from, const Endpoint& to, std::uint64_t send, std::uint64_t receive) {
    const Finished done =
        from.bulk(to, {"--send", std::to_string(send), "--receive", std::to_string(receive), "--seed", "1"});
    ASSERT_TRUE(done.ok()) << ::testing::PrintToString(done);
    ASSERT_NE(done.out.find("verdict=exact"), std::string::npos) << done.out;
  }

  void compare_records(int node);
  void compare_metrics(int node);
  void compare_traces();

  static std::unique_ptr<Mesh> mesh_;
  static Pod *client, *web, *db, *outside;

  AgentLogs logs_;
  std::map<int, std::size_t> log_offset_;
  std::map<int, Series> before_;
  std::vector<Report> expected_;
  std::map<int, Series> decisions_;
  std::multiset<int> tunnels_;
};
std::unique_ptr<Mesh> Telemetry::mesh_;
Pod *Telemetry::client, *Telemetry::web, *Telemetry::db, *Telemetry::outside;

/// Every record is one of the table and the other way round, in any order. An error of the table is a part of the
/// record's.
void Telemetry::compare_records(int node) {
  std::vector<Report*> open;
  for (auto& report : expected_) {
    if (report.node == node) open.push_back(&report);
  }
  const auto all = [&] { return records_of(mesh_->node(node).log(), log_offset_[node]); };
  EXPECT_TRUE(eventually(kSoon, [&] { return all().size() >= open.size(); })) << "records are missing on node " << node;
  for (const json& found : all()) {
    const json record = settled(found);
    const auto match = std::ranges::find_if(open, [&](const Report* report) {
      json wanted = report->record;
      json without = record;
      const std::string error = wanted.value("error", ""), said = without.value("error", "");
      wanted.erase("error");
      without.erase("error");
      return wanted == without && error.empty() == said.empty() && said.find(error) != std::string::npos;
    });
    if (match == open.end()) {
      ADD_FAILURE() << "node " << node << " reports what is not in the table: " << record.dump();
    } else {
      open.erase(match);
    }
  }
  for (const Report* report : open) {
    ADD_FAILURE() << "node " << node << " does not report " << report->record.dump();
  }
}

void Telemetry::compare_metrics(int node) {
  Series wanted = decisions_[node];
  const auto count = [&](const char* family, const Labels& labels, double value) {
    if (value != 0) wanted[spelled(family, labels)] += value;
  };
  for (const auto& report : expected_) {
    if (report.node != node) continue;
    Labels labels = report.labels;
    labels["response_flags"] = "-";
    count(kFamilies[0], labels, 1);
    count(kFamilies[3], labels, static_cast<double>(report.sent));
    count(kFamilies[4], labels, static_cast<double>(report.received));
    labels["response_flags"] = report.record.value("response_flags", "-");
    count(kFamilies[1], labels, 1);
    if (labels["response_flags"] != "-") count(kFamilies[2], labels, 1);
  }
  Series found;
  for (const auto& [name, value] : series_of(mesh_->node(node).metrics())) {
    const double difference = value - before_[node][name];
    if (difference != 0) found[name] = difference;
  }
  for (const auto& [name, value] : wanted) {
    EXPECT_EQ(found.contains(name) ? found.at(name) : 0, value) << "node " << node << ": " << name;
  }
  for (const auto& [name, value] : found) {
    EXPECT_TRUE(wanted.contains(name)) << "node " << node << " counts what is not in the table: " << name << " "
                                       << value;
  }
}

/// Each tunnelled connection has a trace of its own, the same on both sides.
void Telemetry::compare_traces() {
  std::map<std::string, std::multiset<std::string>> directions;
  for (const int node : {1, 2}) {
    for (const json& record : records_of(mesh_->node(node).log(), log_offset_[node])) {
      if (record.contains("dst.hbone_addr")) {
        const std::string trace = record.value("traceparent", "");
        EXPECT_TRUE(std::regex_match(trace, std::regex("00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"))) << record;
        directions[trace].insert(record.at("direction").get<std::string>());
      } else {
        EXPECT_FALSE(record.contains("traceparent")) << record;
      }
    }
  }
  EXPECT_EQ(directions.size(), tunnels_.size() / 2);
  for (const auto& [trace, seen] : directions) EXPECT_EQ(seen, (std::multiset<std::string>{"inbound", "outbound"}));
}

TEST_F(Telemetry, OneRunIsReportedAsTheTableSays) {
  const auto [vip, vip6] = mesh_->add_service("bank", "db", 5432, Pod::kPort, {db});
  // Lets plaintext be looked at, denies one port, and would like to deny more.
  mesh_->set_policy(deny_policy("bank", "no-web", principal(*web)));
  json dry = deny_policy("bank", "tls-only", plaintext());
  dry["dryRun"] = true;
  mesh_->set_policy(dry);

  // Across the nodes by the service, both ways, and on one node.
  transfer(*client, {vip, 5432}, 100'000, 2'000'000);
  expect_tunnel(client, db, db->v4(), client->address_v4(), 100'000 + opening(100'000, 2'000'000), 2'000'000);
  name_service(last(1));
  name_service(last(2));
  expect_decision(2, "none", "allow");
  transfer(*db, client->v6(), 7, 0);
  expect_tunnel(db, client, client->v6(), db->address_v6(), 7 + opening(7, 0), 0);
  expect_decision(1, "none", "allow");
  transfer(*client, web->v4(), 0, 300'001);
  expect_tunnel(client, web, web->v4(), client->address_v4(), opening(0, 300'001), 300'001);
  expect_decision(1, "none", "allow");

  // To nobody the mesh knows, and in plaintext from there.
  transfer(*client, outside->v4(), 11, 13);
  expect_plain(1, "outbound", client, nullptr, client->address_v4(), outside->v4(), 11 + opening(11, 13), 13);
  transfer(*outside, db->v6(), 17, 19);
  expect_plain(2, "inbound", nullptr, db, outside->address_v6(), db->v6(), 17 + opening(17, 19), 19,
               {{"dry_run", {"bank/tls-only"}}});
  name_service(last());
  expect_decision(2, "none", "allow");
  expect_decision(2, "bank/tls-only", "deny", "dry_run");

  // Denied by policy, refused by the application's port.
  EXPECT_FALSE(web->get({vip6, 5432}).ok());
  expect_tunnel(web, db, db->v6(), web->address_v6(), 0, 0, {{"response_flags", "DENY"}, {"error", "status 401"}},
                {{"response_flags", "DENY"}, {"policy", "bank/no-web"}, {"error", "denied by bank/no-web"}});
  name_service(last(1));
  name_service(last(2));
  expect_decision(2, "bank/no-web", "deny");
  EXPECT_FALSE(client->get(db->v4(9)).ok());
  expect_tunnel(client, db, db->v4(9), client->address_v4(), 0, 0,
                {{"response_flags", "CONNECT"}, {"error", "status 503"}},
                {{"response_flags", "CONNECT"}, {"error", "onnection refused"}});
  expect_decision(2, "none", "allow");

  for (const int node : {1, 2}) {
    compare_records(node);
    compare_metrics(node);
  }
  compare_traces();
  mesh_->remove_policy("bank", "no-web");
  mesh_->remove_policy("bank", "tls-only");
}

TEST_F(Telemetry, ALiveConnectionsBytesShowBeforeItEnds) {
  const auto counted = [&](int node, const char* reporter) {
    return metric(
        mesh_->node(node).metrics(), "istio_tcp_received_bytes_total",
        {std::string("reporter=\"") + reporter + "\"", "source_workload=\"front\"", "destination_workload=\"db\""});
  };
  const auto open = [&](int node, const char* reporter) {
    return metric(mesh_->node(node).metrics(), "istio_tcp_sockets_open",
                  {std::string("reporter=\"") + reporter + "\""});
  };
  const double source = counted(1, "source"), destination = counted(2, "destination"), sockets = open(1, "source");
  Process held = client->hold(db->v4());
  EXPECT_EQ(open(1, "source"), sockets + 1);
  EXPECT_GE(open(2, "destination"), 1) << "the tunnel";
  EXPECT_TRUE(eventually(kSoon, [&] { return counted(1, "source") > source; }));
  EXPECT_TRUE(eventually(kSoon, [&] { return counted(2, "destination") > destination; }));
  // And again, by what came since.
  const double then = counted(1, "source");
  EXPECT_TRUE(eventually(kSoon, [&] { return counted(1, "source") > then; }));
  EXPECT_TRUE(held.running()) << held.out();
  EXPECT_TRUE(records_of(mesh_->node(1).log(), log_offset_[1]).empty()) << "it has ended";
  held.kill();
  // What was counted on the way and what came after make the exact sum.
  EXPECT_TRUE(eventually(kSoon, [&] { return records_of(mesh_->node(1).log(), log_offset_[1]).size() == 1; }));
  EXPECT_TRUE(eventually(kSoon, [&] { return records_of(mesh_->node(2).log(), log_offset_[2]).size() == 1; }));
  EXPECT_EQ(counted(1, "source") - source,
            records_of(mesh_->node(1).log(), log_offset_[1])[0].at("bytes_sent").get<double>());
  EXPECT_EQ(counted(2, "destination") - destination,
            records_of(mesh_->node(2).log(), log_offset_[2])[0].at("bytes_recv").get<double>());
  EXPECT_EQ(open(1, "source"), sockets);
}

/// A workload of another trust domain: its certificate is good for its own node's agent alone.
TEST_F(Telemetry, APeerWhoseCertificateIsRefusedIsReportedByBoth) {
  Pod* alien = add(*mesh_, 1, "shop", "alien", {{"trustDomain", "other.domain"}});
  EXPECT_FALSE(alien->get(db->v4()).ok());
  json wanted{{"src.addr", alien->address_v4().to_string()},
              {"dst.addr", db->v4(15008).to_string()},
              {"direction", "inbound"},
              {"bytes_sent", 0},
              {"bytes_recv", 0},
              {"response_flags", "TLS_FAILURE"}};
  describe(wanted, "src", alien, false);
  describe(wanted, "dst", db, false);
  ASSERT_TRUE(eventually(kSoon, [&] { return records_of(mesh_->node(1).log(), log_offset_[1]).size() == 1; }));
  const json source = records_of(mesh_->node(1).log(), log_offset_[1]).front();
  EXPECT_EQ(source.value("response_flags", "-"), "TLS_FAILURE") << source;
  const auto refused = records_of(mesh_->node(2).log(), log_offset_[2]);
  ASSERT_EQ(refused.size(), 1U);
  for (const json& found : refused) {
    json record = settled(found);
    EXPECT_NE(record.value("error", "").find("other.domain"), std::string::npos) << record;
    record.erase("error");
    EXPECT_EQ(record, wanted);
  }

  Labels labels = labels_of("destination", alien, db, false);
  labels["response_flags"] = "TLS_FAILURE";
  const Series now = series_of(mesh_->node(2).metrics());
  for (const char* family : {kFamilies[1], kFamilies[2]}) {
    const auto counted = now.find(spelled(family, labels));
    EXPECT_EQ(counted == now.end() ? 0 : counted->second, refused.size()) << spelled(family, labels);
  }
  mesh_->remove_pod(*alien);
}

}  // namespace
}  // namespace weft::test
