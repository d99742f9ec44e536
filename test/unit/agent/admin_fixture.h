// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include "agent/admin/admin_api.h"
#include "test/unit/agent/fakes.h"

namespace weft::admin::test {

using agent::test::hbone_workload;
using agent::test::ip;

/// An agent with one enrolled and one wired pod, as the admin API sees it.
class AdminFixture : public ::testing::Test {
 protected:
  AdminFixture() : sources_(std::make_shared<AdminSources>()) {
    sources_->node = "n1";
    sources_->workers = 2;
    sources_->state = [this] { return state_; };
    sources_->captures_all = [this] { return captures_all_; };
    sources_->certificate_status = [this] { return certificate_status_; };
    sources_->certificates = [] { return std::vector<std::shared_ptr<const hbone::TlsIdentity>>(); };
    sources_->connections = [this] { return connections_; };
    sources_->plaintext = [this](const std::string& pod,
                                 bool end) -> Result<std::vector<std::pair<std::string, agent::PlainConnection>>> {
      if (!pod.empty() && pod != "shop/web") return fail(ErrorCode::kNotFound, "no pod " + pod);
      auto all = plaintext_;
      if (end) plaintext_.clear();
      return all;
    };
    sources_->inherited_metrics = [] { return nlohmann::json::object(); };
    sources_->generations = [this] { return generations_; };
    sources_->not_ready = [this] { return missing_; };
    sources_->source_status = [] { return std::string("file /etc/mesh.yaml"); };
    sources_->quit = [this] { ++quits_; };
    sources_->events = [this](const agent::EventQuery& query) { return events_(query); };
    sources_->registry = std::make_shared<prometheus::Registry>();
    sources_->metrics.counters = [] {
      return Result<std::vector<bpf::Counter>>(std::vector<bpf::Counter>{{"from_pod", "pass", "not TCP", 7},
                                                                         {"guard", "drop", "a VLAN tag", 3},
                                                                         {"to_pod", "drop", "refused", 0},
                                                                         {"deliver", "drop", "a \"quoted\" one", 12}});
    };
    sources_->metrics.pods = [this] { return pods_; };
    sources_->metrics.registration_requests = [] { return std::uint64_t{5}; };
    sources_->metrics.registration_errors = [] { return std::uint64_t{2}; };
    sources_->metrics.reconciled = [] { return std::map<std::string, std::uint64_t>{{"adopted", 4}, {"mended", 0}}; };
    sources_->metrics.unknown_attachments = [] { return std::vector<std::string>{"c9-eth0"}; };
    sources_->metrics.certificates = sources_->certificate_status;
    sources_->metrics.certificate_counts = [] { return agent::CertManager::Counts{.issued = 8, .failed = 3}; };
    sources_->metrics.ca = [this] { return ca_; };
    sources_->metrics.limits = limits_;
    sources_->metrics.resources = [] {
      return agent::ResourceStatus{.fds = 123, .fd_limit = 4096, .memory = {.used = 30U << 20, .limit = 64U << 20}};
    };
    sources_->metrics.version = "1.2.3";
    fill();
  }

  void fill() {
    auto web = hbone_workload("web", {ip("10.0.0.5")});
    web.waypoint = state::GatewayAddress{state::NamespacedHostname{"shop", "way.shop.svc"}, 15008};
    web.services["shop/web.shop.svc"] = {{80, 8080}};
    state::Service service;
    service.name = "web";
    service.namespace_name = "shop";
    service.hostname = "web.shop.svc";
    service.vips = {{"", ip("10.96.0.1")}};
    service.ports = {{80, 8080}};
    auto policy = agent::test::namespace_policy("deny");
    state::PolicyMatch match;
    match.principals = {{state::StringMatch::Kind::kPrefix, "cluster.local/ns/bad"},
                        {state::StringMatch::Kind::kPresence, ""}};
    match.source_ips = {Cidr::parse("10.1.0.0/16").value()};
    match.destination_ports = {8080};
    policy.rules = {{{match}}};
    state_ = state::State::build({{web}, {service}, {policy}}).value();

    agent::PodStatus enrolled;
    enrolled.registration.key = {"c1", "eth0"};
    enrolled.registration.pod_namespace = "shop";
    enrolled.registration.pod_name = "web";
    enrolled.registration.addresses = {ip("10.0.0.5")};
    enrolled.registration.host_ifindex = 4;
    enrolled.registration.workload_uid = web.uid;
    enrolled.registration.enrolled = true;
    enrolled.state = "enrolled";
    enrolled.identity = "spiffe://cluster.local/ns/shop/sa/web-sa";
    enrolled.inbound = "check";
    const WallTime now = Clock::real().wall_now();
    enrolled.registration.registered_at = now - std::chrono::hours(50);
    enrolled.observation.at = now - std::chrono::seconds(42);
    enrolled.observation.by = "reconciliation";
    enrolled.traffic = bpf::PodTraffic{.packets_out = 3,
                                       .bytes_out = 300,
                                       .packets_in = 2,
                                       .bytes_in = 130,
                                       .captured = 9,
                                       .drops = {{"no plaintext into this pod", 4}}};
    agent::PodStatus wired;
    wired.registration.pod_namespace = "other";
    wired.registration.pod_name = "plain";
    wired.registration.addresses = {ip("10.0.0.9")};
    wired.registration.slot = 1;
    wired.state = "wired";
    wired.inbound = "pass";
    wired.reason = "pod other/plain is not a workload";
    wired.observation = {.problems = {"the rule is gone"}, .uncaptured = {"net1", "net2"}, .rerouted = {}};
    pods_ = {enrolled, wired};

    proxy::ConnectionInfo connection;
    connection.pod = "shop/web";
    connection.direction = "outbound";
    connection.source = {ip("10.0.0.5"), 40000};
    connection.destination = {ip("10.96.0.1"), 80};
    connection.hbone = {ip("10.0.1.7"), 15008};
    connection.service = "web.shop.svc";
    connection.bytes_sent = 1536;
    connection.age_seconds = 2.25;
    connections_ = {connection};
  }

  std::shared_ptr<AdminSources> sources_;
  std::shared_ptr<const state::State> state_;
  std::vector<agent::PodStatus> pods_;
  std::vector<proxy::ConnectionInfo> connections_;
  std::vector<std::pair<std::string, agent::PlainConnection>> plaintext_ = {
      {"shop/web", {true, Endpoint::parse("10.0.0.5:8080").value(), Endpoint::parse("10.0.1.9:40000").value()}}};
  std::vector<agent::Generation> generations_ = {{.number = 3, .version = "0.1", .pid = 30, .started = {}, .load = {}}};
  std::vector<std::string> missing_;
  std::vector<agent::CertManager::Status> certificate_status_;
  agent::CaStatus ca_{.directory = "/etc/weft/ca", .problem = {}, .roots = {}, .crl = {}};
  std::shared_ptr<proxy::Limits> limits_ = std::make_shared<proxy::Limits>();
  bool captures_all_ = false;
  int quits_ = 0;
  EventFunction events_ = [](const agent::EventQuery&) { return Result<agent::EventAnswer>(agent::EventAnswer()); };
};

/// A drop of plaintext into shop/web, 1.5 ms after a whole second.
inline agent::LoggedEvent refused_event(std::uint64_t sequence) {
  return {.sequence = sequence,
          .time = WallTime(std::chrono::microseconds(1'700'000'000'001'500)),
          .pod = "shop/web",
          .event = {.time = {},
                    .program = "to_pod",
                    .verdict = "drop",
                    .reason = "no plaintext into this pod",
                    .slot = 0,
                    .ifindex = 2,
                    .source = {ip("10.0.9.9"), 40000},
                    .destination = {ip("10.0.0.5"), 8080},
                    .protocol = 6,
                    .tcp_flags = 2}};
}

}  // namespace weft::admin::test
