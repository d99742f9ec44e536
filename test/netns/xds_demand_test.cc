// SPDX-License-Identifier: Apache-2.0
/// Agents that ask istiod for what their pods connect to (--xds-on-demand), under an istiod that answers as the real
/// one does: of its own accord it tells of the node's pods, and it says nothing to a name that it has been asked for
/// already, and it takes everything away from whoever lets go of a name and asks for none.
#include <atomic>
#include <set>
#include <thread>

#include "test/netns/mesh_fixture.h"
#include "test/support/fake_istiod.h"
#include "workload.pb.h"

namespace weft::test {
namespace {

namespace wire = istio::workload;
using nlohmann::json;
using std::chrono::steady_clock;
using ::testing::Contains;
using ::testing::Not;

constexpr const char* kAddressUrl = "type.googleapis.com/istio.workload.Address";
constexpr milliseconds kSoon{10'000};
/// Twice what an answer is fresh for.
constexpr milliseconds kAnswerHolds{6'000};
constexpr const char* kHostname = "web.shop.svc.cluster.local";
constexpr const char *kVip4 = "10.96.7.7", *kVip6 = "fd96::7";

std::string raw(const IpAddress& address) {
  const auto bytes = address.bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// What there is in the mesh; its objects may change at any time.
class Registry {
 public:
  struct Entry {
    wire::Address address;
    std::vector<std::string> aliases;
    [[nodiscard]] std::string name() const {
      const auto& service = address.service();
      return address.has_workload() ? address.workload().uid() : service.namespace_() + "/" + service.hostname();
    }
  };
  void add_pod(int node, const std::string& name, std::vector<std::string> addresses, bool serves) {
    Entry entry;
    auto& it = *entry.address.mutable_workload();
    it.set_name(name);
    it.set_namespace_("shop");
    it.set_uid("Kubernetes//Pod/shop/" + name);
    it.set_service_account("default");
    it.set_tunnel_protocol(wire::TUNNEL_HBONE);
    it.set_node("node" + std::to_string(node));
    for (const auto& text : addresses) {
      it.add_addresses(raw(*IpAddress::parse(text)));
      entry.aliases.push_back("/" + text);
    }
    if (serves) {
      auto& port = *(*it.mutable_services())["shop/" + std::string(kHostname)].add_ports();
      port.set_service_port(80);
      port.set_target_port(Pod::kPort);
    }
    put(std::move(entry));
  }
  void add_service() {
    Entry entry;
    auto& it = *entry.address.mutable_service();
    it.set_name("web");
    it.set_namespace_("shop");
    it.set_hostname(kHostname);
    for (const char* vip : {kVip4, kVip6}) {
      it.add_addresses()->set_address(raw(*IpAddress::parse(vip)));
      entry.aliases.push_back(std::string("/") + vip);
    }
    auto& port = *it.add_ports();
    port.set_service_port(80);
    port.set_target_port(Pod::kPort);
    put(std::move(entry));
  }
  [[nodiscard]] std::vector<Entry> of_node(const std::string& node) const {
    return select([&](const Entry& entry) { return entry.address.workload().node() == node; });
  }
  [[nodiscard]] std::vector<Entry> all() const {
    return select([](const Entry& /*entry*/) { return true; });
  }
  /// What has this name, and where that is a service its endpoints.
  [[nodiscard]] std::vector<Entry> find(const std::string& name) const {
    auto found = select([&](const Entry& entry) {
      return entry.name() == name || std::ranges::find(entry.aliases, name) != entry.aliases.end();
    });
    if (found.empty() || found.front().address.has_workload()) return found;
    std::ranges::move(select([key = found.front().name()](const Entry& entry) {
                        return entry.address.workload().services().contains(key);
                      }),
                      std::back_inserter(found));
    return found;
  }

 private:
  template <class Wanted>
  std::vector<Entry> select(const Wanted& wanted) const {
    const std::lock_guard lock(mutex_);
    std::vector<Entry> out;
    std::ranges::copy_if(entries_, std::back_inserter(out), wanted);
    return out;
  }
  void put(Entry entry) {
    const std::lock_guard lock(mutex_);
    entries_.push_back(std::move(entry));
  }
  mutable std::mutex mutex_;
  std::vector<Entry> entries_;
};

/// istiod as one node sees it.
class OnDemandIstiod {
 public:
  OnDemandIstiod(const Node& node, const TestCa& ca, const Registry& registry)
      : node_(node.name()),
        registry_(registry),
        istiod_(run_in(node.netns(), [&] { return std::make_unique<FakeIstiod>(ca); })) {
    istiod_->on_certificate([&ca](const FakeIstiod::Asked& asked) {
      LeafOptions leaf;
      leaf.uris = {asked.impersonated};
      return FakeIstiod::Answer{.message = {}, .chain = {ca.sign_request(asked.csr, leaf), ca.roots_pem()}};
    });
    thread_ = std::jthread([this](const std::stop_token& stop) { answer(stop); });
  }
  [[nodiscard]] std::string address() const { return istiod_->address(); }
  /// It answers no question from now on, or answers again.
  void fall_silent() { silent_ = true; }
  void speak() { silent_ = false; }
  void end_stream() { istiod_->end_stream(); }
  /// The names that it was asked for, with repetitions.
  [[nodiscard]] std::vector<std::string> asked() const {
    const std::lock_guard lock(mutex_);
    return asked_;
  }

 private:
  void answer(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      const auto request = istiod_->next(milliseconds(50));
      if (!request || !request->response_nonce().empty()) continue;
      FakeIstiod::Response response;
      response.set_type_url(request->type_url());
      response.set_nonce(std::to_string(++responses_));
      if (request->type_url() == kAddressUrl && !tell(*request, response)) continue;
      istiod_->send(response);
    }
  }
  /// False: there is no answer.
  bool tell(const FakeIstiod::Request& request, FakeIstiod::Response& response) {
    if (request.has_node()) has_.clear();
    for (const auto& [name, version] : request.initial_resource_versions()) has_.insert(name);
    for (const auto& name : request.resource_names_unsubscribe()) has_.erase(name);
    const bool whole = request.has_node() && request.resource_names_subscribe().empty();
    if (whole) {
      for (const auto& entry : registry_.all()) add(entry, response);
    }
    if (!request.has_node() && request.resource_names_subscribe().empty() && !silent_) {
      for (const auto& name : has_) response.add_removed_resources(name);
      return true;
    }
    bool any = whole;
    for (const auto& name : request.resource_names_subscribe()) {
      if (name == "*") {
        any = true;
        for (const auto& entry : registry_.of_node(node_)) add(entry, response);
        continue;
      }
      const std::lock_guard lock(mutex_);
      asked_.push_back(name);
      if (silent_ || !has_.insert(name).second) continue;
      any = true;
      const auto found = registry_.find(name);
      for (const auto& entry : found) add(entry, response);
      if (found.empty()) response.add_removed_resources(name);
    }
    return any;
  }
  void add(const Registry::Entry& entry, FakeIstiod::Response& response) {
    has_.insert(entry.name());
    auto& resource = *response.add_resources();
    resource.set_name(entry.name());
    resource.set_version("1");
    for (const auto& alias : entry.aliases) resource.add_aliases(alias);
    resource.mutable_resource()->PackFrom(entry.address);
  }

  const std::string node_;
  const Registry& registry_;
  std::unique_ptr<FakeIstiod> istiod_;
  std::set<std::string> has_;  ///< its thread alone
  int responses_ = 0;          ///< likewise
  std::atomic<bool> silent_ = false;
  mutable std::mutex mutex_;
  std::vector<std::string> asked_;
  std::jthread thread_;
};

class XdsDemand : public ::testing::Test {
 protected:
  void SetUp() override {
    WEFT_NEEDS_ROOT();
    registry_.add_pod(1, "client", {"10.71.1.2", "fd71:0:0:1::2"}, false);
    registry_.add_pod(2, "web1", {"10.71.2.2", "fd71:0:0:2::2"}, true);
    registry_.add_service();
    MeshOptions options;
    options.start_agents = false;
    options.local = false;
    options.node_arguments = [this](const Mesh& mesh, int index) {
      return std::vector<std::string>{"--xds-address",   istiods_.at(static_cast<std::size_t>(index) - 1)->address(),
                                      "--xds-root",      mesh.folder().write("root.pem", ca_.roots_pem()),
                                      "--xds-token",     mesh.folder().write("token", "token"),
                                      "--pod-name",      "ztunnel-node",
                                      "--pod-namespace", "istio-system",
                                      "--instance-ip",   "10.70.0.1"};
    };
    options.agent_arguments = mode_;
    mesh_ = std::make_unique<Mesh>(options);
    for (const int index : {1, 2}) {
      istiods_.push_back(std::make_unique<OnDemandIstiod>(mesh_->node(index), ca_, registry_));
      mesh_->node(index).start_agent();
    }
    client_ = &mesh_->add_pod(1, "shop", "client", {.number = 2});
    web1_ = &add_web("web1", 2);
    outside_ = &mesh_->add_pod(2, "vm", "outside", {.weft_cni = false, .number = 9});
    outside_->serve();
    logs_.mark(*mesh_);
  }
  void TearDown() override {
    if (HasFailure() && mesh_) logs_.tell(*mesh_);
    mesh_.reset();
  }

  Pod& add_web(const char* name, int number) {
    Pod& pod = mesh_->add_pod(2, "shop", name, {.number = number});
    pod.serve();
    return pod;
  }
  Node& node() { return mesh_->node(1); }
  OnDemandIstiod& istiod() { return *istiods_.front(); }
  static Endpoint vip(bool v6 = false) { return {*IpAddress::parse(v6 ? kVip6 : kVip4), 80}; }
  std::vector<std::string> workloads() {
    std::vector<std::string> out;
    const json dump = json::parse(node().admin("/config_dump"));
    for (const auto& one : dump.at("workloads")) out.push_back(one.at("name"));
    return out;
  }
  void expect_in_mesh(const Endpoint& to, const std::string& server) {
    const Capture capture(node().netns(), Node::kWire, 4096);
    EXPECT_THAT(client_->get(to, {"--marker", "not-for-all-to-read"}),
                IsAnswer(server, to.address.is_v4() ? client_->address_v4() : client_->address_v6()));
    EXPECT_FALSE(capture.contains("not-for-all-to-read"));
  }
  std::size_t times_asked(const std::string& name) {
    return static_cast<std::size_t>(std::ranges::count(istiod().asked(), name));
  }

  std::vector<std::string> mode_{"--xds-on-demand"};
  const TestCa ca_;
  Registry registry_;
  std::vector<std::unique_ptr<OnDemandIstiod>> istiods_;
  std::unique_ptr<Mesh> mesh_;
  Pod *client_ = nullptr, *web1_ = nullptr, *outside_ = nullptr;
  AgentLogs logs_;
};

TEST_F(XdsDemand, APodIsAskedForByEachOfItsAddressesAndThenKnown) {
  EXPECT_THAT(workloads(), Not(Contains("web1")));
  expect_in_mesh(web1_->v6(), "web1");
  EXPECT_THAT(workloads(), Contains("web1"));
  expect_in_mesh(web1_->v4(), "web1");
  EXPECT_EQ(times_asked("/" + web1_->address_v6().to_string()), 1U);
  EXPECT_EQ(times_asked("/" + web1_->address_v4().to_string()), 0U) << "its addresses came together";
}

TEST_F(XdsDemand, AServiceHasTheEndpointsThatItHasNow) {
  expect_in_mesh(vip(), "web1");
  expect_in_mesh(vip(true), "web1");
  registry_.add_pod(2, "web2", {"10.71.2.3", "fd71:0:0:2::3"}, true);
  // The node of web2 is told of it with its next stream.
  istiods_.back()->end_stream();
  add_web("web2", 3);
  const auto added = steady_clock::now();
  EXPECT_TRUE(eventually(kSoon, [&] { return field(client_->get(vip()).out, "server") == "web2"; }));
  EXPECT_LT(steady_clock::now() - added, stretched(kAnswerHolds + milliseconds(1'000)));
}

TEST_F(XdsDemand, WhatIsNobodysGoesOnAsItIsAndIsAskedForNowAndThen) {
  const std::string name = "/" + outside_->address_v4().to_string();
  const auto began = steady_clock::now();
  int requests = 0;
  for (; steady_clock::now() - began < kAnswerHolds; ++requests) {
    const Finished answer = client_->get(outside_->v4());
    ASSERT_THAT(answer, IsAnswer("outside", client_->address_v4())) << "request " << requests;
  }
  std::printf("  %d connections, asked for %zu times\n", requests, times_asked(name));
  EXPECT_GE(times_asked(name), 2U);
  EXPECT_LE(times_asked(name), 4U);
}

/// The address was nobody's when it was asked for: how long it may be taken for that is bounded.
TEST_F(XdsDemand, WhoComesToAnAddressIsSeenInTime) {
  EXPECT_TRUE(client_->get(outside_->v4()).ok());
  registry_.add_pod(2, "newcomer", {outside_->address_v4().to_string()}, false);
  const auto came = steady_clock::now();
  // Nobody speaks HBONE there: a connection that is of the mesh fails.
  EXPECT_TRUE(eventually(kSoon, [&] { return !client_->get(outside_->v4()).ok(); }));
  const std::chrono::duration<double> took = steady_clock::now() - came;
  std::printf("  no plaintext to it any more after %.1f s\n", took.count());
  EXPECT_LT(took, stretched(kAnswerHolds));
}

TEST_F(XdsDemand, WhatIsNotToldIsRefusedAndNotSentInTheClear) {
  expect_in_mesh(web1_->v4(), "web1");
  istiod().fall_silent();
  const Capture capture(node().netns(), Node::kWire, 4096);
  const std::size_t offset = node().log().size();
  EXPECT_FALSE(client_->get(outside_->v4(), {"--marker", "not-for-all-to-read", "--timeout", "20"}).ok());
  EXPECT_FALSE(capture.contains("not-for-all-to-read"));
  const std::string why = "what " + outside_->address_v4().to_string() + " is has not been told yet";
  EXPECT_TRUE(eventually(kSoon, [&] {
    return log_lines(node().log(), offset, {why, "response_flags=CONNECT"}).size() == 1;
  }));
  expect_in_mesh(web1_->v4(), "web1");
}

TEST_F(XdsDemand, AnIstiodThatDoesNotAnswerIsNotWaitedForLong) {
  expect_in_mesh(vip(), "web1");
  istiod().fall_silent();
  const auto until = steady_clock::now() + kAnswerHolds + milliseconds(2'000);
  while (steady_clock::now() < until && !HasFailure()) expect_in_mesh(vip(), "web1");
  EXPECT_GE(times_asked("shop/" + std::string(kHostname)), 1U);
}

TEST_F(XdsDemand, ADialThatTookLongIsAskedForAgain) {
  const std::string name = "/" + outside_->address_v4().to_string();
  const auto run = [&](const std::vector<std::string>& command, const Pod* in = nullptr) {
    const Finished done = (in != nullptr ? in : outside_)->start(command).finish(kSoon);
    EXPECT_TRUE(done.ok()) << done.err;
    return done.out;
  };
  // Since Linux 6.5 the first ones come each second.
  run({"sysctl", "-q", "-e", "-w", "net.ipv4.tcp_syn_linear_timeouts=0"}, client_);
  run({"iptables", "-A", "INPUT", "-p", "tcp", "--syn", "-j", "DROP"});
  Process waiting = client_->start({program("weft-testapp"), "get", outside_->v4().to_string(), "--timeout", "30"});
  ASSERT_TRUE(eventually(kSoon, [&] { return times_asked(name) == 1; }));
  // The kernel sends the SYN again after 1, 3 and 7 s; the answer holds for 6.
  ASSERT_TRUE(eventually(kSoon, [&] { return run({"iptables-save", "-c"}).find("[3:") != std::string::npos; }));
  run({"iptables", "-F", "INPUT"});
  EXPECT_EQ(field(waiting.finish(milliseconds(20'000)).out, "server"), "outside");
  EXPECT_EQ(times_asked(name), 2U);
}

/// The first agent is one with the whole mesh.
struct XdsDemandLater : XdsDemand {
  XdsDemandLater() { mode_.clear(); }
};

TEST_F(XdsDemandLater, AnAgentThatAsksTakesOverFromOneWithTheWholeMesh) {
  EXPECT_THAT(workloads(), Contains("web1"));
  node().hand_over_agent({"--xds-on-demand"});
  EXPECT_THAT(workloads(), Not(Contains("web1")));
  expect_in_mesh(web1_->v4(), "web1");
  EXPECT_TRUE(client_->get(outside_->v4()).ok());
  EXPECT_EQ(times_asked("/" + web1_->address_v4().to_string()), 1U);
  // And back: what is not of the mesh is not the agent's any more.
  node().hand_over_agent({});
  EXPECT_THAT(workloads(), Contains("web1"));
  expect_untouched(client_->get(outside_->v4()), "outside");
  expect_in_mesh(vip(), "web1");
}

TEST_F(XdsDemand, ANewStreamIsAskedForWhatTheLastDidNotAnswer) {
  istiod().fall_silent();
  Process waiting = client_->start({program("weft-testapp"), "get", web1_->v4().to_string(), "--timeout", "10"});
  const std::string name = "/" + web1_->address_v4().to_string();
  ASSERT_TRUE(eventually(kSoon, [&] { return times_asked(name) == 1; }));
  istiod().speak();
  istiod().end_stream();
  EXPECT_EQ(field(waiting.finish(kSoon).out, "server"), "web1");
  EXPECT_EQ(times_asked(name), 2U);
}

}  // namespace
}  // namespace weft::test
