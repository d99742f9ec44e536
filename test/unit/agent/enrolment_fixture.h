// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fcntl.h>
#include <gmock/gmock.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "agent/enrolment.h"
#include "test/unit/agent/fakes.h"

namespace weft::agent::test {

class EnrolmentTest : public ::testing::Test {
 protected:
  void SetUp() override { start_agent(); }

  /// As a new process would: only the maps and the records are what they were.
  void start_agent(std::optional<Inheritance> inheritance = {}) {
    make_agent();
    auto started = enrolment_->start(std::move(inheritance));
    ASSERT_TRUE(started) << started.error().message();
  }

  void make_agent() {
    enrolment_.reset();
    data_plane_.by_slot.clear();
    journal_.clear();
    wanted_.clear();
    EnrolmentConfig config;
    config.node = "n1";
    config.max_pods = 3;
    config.sweep_interval = std::chrono::hours(1);
    config.leave_time = leave_time_;
    config.dns_capture = dns_capture_;
    config.egress = egress_;
    config.capture_all = capture_all_;
    config.cluster_id = "Kubernetes";
    config.select = select_;
    enrolment_ = std::make_unique<Enrolment>(config, capture_, data_plane_, netns_,
                                             RegistrationRecords::open(directory_.path()).value(),
                                             [this](const std::vector<state::Identity>& wanted) { wanted_ = wanted; });
  }

  /// What an agent with so many workers had of a slot.
  static Inheritance inheritance_of(std::uint32_t slot, std::size_t workers) {
    Inheritance inheritance;
    for (std::size_t i = 0; i < workers; ++i) inheritance.listeners.emplace_back()[slot].emplace_back();
    return inheritance;
  }

  std::string netns_path(const std::string& name) const { return directory_.path() + "/netns-" + name; }

  cni::Request request_for(const std::string& pod, const char* address, const std::string& netns = "") {
    const std::string path = netns_path(netns.empty() ? pod : netns);
    std::ofstream(path, std::ios::app).close();
    cni::Request request;
    request.verb = cni::Verb::kRegister;
    request.key = {"container-" + pod, "eth0"};
    request.netns = path;
    request.pod_namespace = "shop";
    request.pod_name = pod;
    request.addresses = {ip(address)};
    request.ifindex = 2;
    request.host_ifindex = 17;
    request.netns_fd = Fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    return request;
  }

  cni::Reply send(cni::Verb verb, const std::string& pod) {
    cni::Request request;
    request.verb = verb;
    request.key = {"container-" + pod, "eth0"};
    return enrolment_->handle(std::move(request));
  }

  std::string state_of_pod(const std::string& pod) const {
    for (const auto& status : enrolment_->pods()) {
      if (status.registration.pod_name == pod) return status.state;
    }
    return "absent";
  }

  std::size_t position(const std::string& entry) const {
    return static_cast<std::size_t>(std::find(journal_.begin(), journal_.end(), entry) - journal_.begin());
  }

  milliseconds leave_time_ = std::chrono::hours(1);
  bool dns_capture_ = false, capture_all_ = false;
  state::EgressPolicy egress_;
  decltype(EnrolmentConfig::select) select_;  ///< of agents that are made from then on
  TemporaryDirectory directory_;
  Journal journal_;
  FakeCapture capture_{journal_};
  FakeDataPlane data_plane_{journal_};
  FakeNetns netns_;
  std::vector<state::Identity> wanted_;
  std::unique_ptr<Enrolment> enrolment_;
};

}  // namespace weft::agent::test
