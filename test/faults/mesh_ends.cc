// SPDX-License-Identifier: Apache-2.0
#include "test/faults/mesh_ends.h"

#include <fcntl.h>
#include <prometheus/registry.h>

#include <cerrno>
#include <cstring>
#include <future>

#include "test/unit/state/builders.h"
#include "tunnel/base/sys.h"

namespace weft::test {
namespace {

using state::test::at;

constexpr std::uint16_t kServicePort = 80, kApplicationPort = 8080, kUnusedPort = 9;
constexpr milliseconds kPatience{30'000};
constexpr const char* kHostname = "web.ns.svc.cluster.local";

state::Workload client_workload() { return state::test::pod("client", {"10.90.0.1", "fd90::1"}); }
state::Workload server_workload(std::uint32_t slot = 1) {
  auto pod = slot == 1 ? state::test::pod("server", {"10.90.0.2", "fd90::2"})
                       : state::test::pod("server2", {"10.91.0.2", "fd91::2"});
  pod.service_account = "server-sa";
  return state::test::serving(std::move(pod), kHostname, {{kServicePort, kApplicationPort}});
}

/// Listens on every address of the calling thread's namespace.
Fd listening(std::uint16_t port) {
  auto fd = sys::socket(AF_INET6, SOCK_STREAM);
  if (!fd) throw TestError(fd.error().message());
  const int off = 0, on = 1;
  ::setsockopt(fd->get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  ::setsockopt(fd->get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in6 any{};
  any.sin6_family = AF_INET6;
  any.sin6_port = htons(port);
  if (::bind(fd->get(), reinterpret_cast<const sockaddr*>(&any), sizeof any) != 0 || ::listen(fd->get(), 1024) != 0) {
    throw TestError("listen on port " + std::to_string(port) + ": " + std::strerror(errno));
  }
  return std::move(*fd);
}

}  // namespace

const std::array<Endpoint, 2> Ground::kClient{at("10.90.0.1:0"), at("[fd90::1]:0")};
const std::array<Endpoint, 2> Ground::kService{at("10.90.9.1:80"), at("[fd90:9::1]:80")};
const std::array<Endpoint, 2> Ground::kOutside{at("10.90.9.2:80"), at("[fd90:9::2]:80")};
const std::array<Endpoint, 2> Ground::kServer{at("10.90.0.2:8080"), at("[fd90::2]:8080")};

Ground::Ground() {
  const auto own = [](const Netns& netns, std::initializer_list<const char*> addresses) {
    for (const char* address : addresses) netns.ip(std::string("addr add ") + address + " dev lo");
  };
  own(calls_, {"10.90.0.1", "fd90::1", "10.90.9.1", "fd90:9::1", "10.90.9.2", "fd90:9::2"});
  own(dials_, {"10.90.9.2", "fd90:9::2"});
  own(app_, {"10.90.0.1", "fd90::1", "10.90.0.2", "fd90::2", "10.91.0.2", "fd91::2"});
  connect_veth(dials_, "eth0", server_, "eth0");
  dials_.ip("addr add 10.90.0.1/24 dev eth0");
  dials_.ip("addr add fd90::1/64 dev eth0 nodad");
  server_.ip("addr add 10.90.0.2/24 dev eth0");
  server_.ip("addr add fd90::2/64 dev eth0 nodad");
  connect_veth(dials_, "eth1", other_server_, "eth0");
  dials_.ip("addr add fd90::1/128 dev eth1 nodad");
  dials_.ip("route add 10.91.0.2 dev eth1 src 10.90.0.1");
  dials_.ip("route add fd91::2 dev eth1 src fd90::1");
  other_server_.ip("addr add 10.91.0.2/32 dev eth0");
  other_server_.ip("addr add fd91::2/128 dev eth0 nodad");
  other_server_.ip("route add 10.90.0.1 dev eth0");
  other_server_.ip("route add fd90::1 dev eth0");
  applications_[0] = run_in(app_, [] { return listening(kApplicationPort); });
  applications_[1] = run_in(dials_, [] { return listening(kServicePort); });
  const TestCa ca;
  for (int generation = 0; generation < 2; ++generation) {
    for (const bool server : {false, true}) {
      const auto workload = server ? server_workload() : client_workload();
      certificates_[server][static_cast<std::size_t>(generation)] =
          hbone::TlsIdentity::create(ca.issue(workload.identity())).value();
    }
  }
}

std::shared_ptr<const hbone::TlsIdentity> Ground::certificate(bool server, int generation) const {
  return certificates_[server][static_cast<std::size_t>(generation % 2)];
}

std::shared_ptr<const state::State> mesh_state(Policies policies, bool hbone) {
  std::vector<state::Policy> list;
  if (policies != Policies::kNone) {
    state::PolicyMatch application;
    application.destination_ports = {kApplicationPort};
    state::Policy policy;
    policy.name = "application";
    policy.namespace_name = "ns";
    policy.action = policies == Policies::kAllow ? state::PolicyAction::kAllow : state::PolicyAction::kDeny;
    policy.rules = {{{application}}};
    list.push_back(std::move(policy));
  }
  std::vector<state::Workload> pods{client_workload(), server_workload(1), server_workload(2)};
  for (auto& pod : pods) pod.protocol = hbone ? state::TunnelProtocol::kHbone : state::TunnelProtocol::kTcp;
  return state::test::build(
      std::move(pods),
      {state::test::service(kHostname, {"10.90.9.1", "fd90:9::1"}, {{kServicePort, kApplicationPort}})},
      std::move(list));
}

/// A node that can do everything, save where the schedule has it fail.
class End::FaultyNode final : public proxy::Node {
 public:
  Result<void> tag_socket(int fd) override {
    FaultInjector* injector = FaultInjector::current();
    const int error = injector == nullptr ? 0 : injector->failure_of(Call::kTag, fd, {ENOMEM, E2BIG});
    if (error != 0) return fail_errno(error, "tag a socket");
    return {};
  }
  void want_certificate(const state::Identity& /*identity*/) override {}
  state::NameAnswer resolve(const std::string& /*hostname*/) override { return {}; }
  bool is_told(const std::vector<std::string>& /*names*/, const state::State& /*snapshot*/) override { return true; }
  void ask_ahead(const std::vector<std::string>& /*names*/) override {}
};

End::End(const Ground& ground, Role role, std::uint64_t seed, Harm harm)
    : ground_(ground),
      role_(role),
      netns_(std::make_shared<const Fd>(
          ::open((role == Role::kServer ? ground.app() : ground.dials()).path().c_str(), O_RDONLY | O_CLOEXEC))),
      faults_(seed, static_cast<std::uint32_t>(role), harm),
      node_(std::make_unique<FaultyNode>()),
      registry_(std::make_shared<prometheus::Registry>()),
      metrics_(std::make_unique<telemetry::ConnectionMetrics>(registry_)) {
  proxy::WorkerConfig config;
  // What goes on only because a timer ends is a stall: no timer of the product's ends before this test's patience.
  config.connect_timeout = config.own_workload_timeout = 10 * kPatience;
  // A tunnel without streams goes soon: one that stays has a stream that nobody needs.
  config.idle_tunnel_timeout = milliseconds(100);
  auto worker = proxy::Worker::create(config, *node_, certificates_, *metrics_);
  if (!worker) throw TestError(worker.error().message());
  worker_ = std::move(*worker);
  worker_->start();
  worker_->set_state(mesh_state(Policies::kNone));
  renew(0);
}

End::~End() = default;

void End::run(const std::function<void()>& work) {
  auto done = std::make_shared<std::promise<void>>();
  worker_->list_connections([work, done](const auto&) {
    work();
    done->set_value();
  });
  if (done->get_future().wait_for(stretched(kPatience)) != std::future_status::ready) {
    throw TestError("the worker does not answer");
  }
}

void End::begin_faults() {
  run([this] { faults_.enter(); });
}

void End::end_faults() {
  run([this] { faults_.leave(); });
}

void End::force(Call call, int error, std::size_t times) {
  run([this, call, error, times] { faults_.force(call, error, times); });
}

void End::look(const std::function<void(const FaultInjector&)>& at) {
  run([this, at] { at(faults_); });
}

std::vector<proxy::ConnectionInfo> End::live() {
  auto done = std::make_shared<std::promise<std::vector<proxy::ConnectionInfo>>>();
  auto list = done->get_future();
  worker_->list_connections([done](std::vector<proxy::ConnectionInfo> infos) { done->set_value(std::move(infos)); });
  if (list.wait_for(stretched(kPatience)) != std::future_status::ready) throw TestError("the worker does not answer");
  return list.get();
}

void End::add_pod(std::uint32_t slot) {
  const bool server = role_ == Role::kServer;
  const state::Workload workload = server ? server_workload(slot) : client_workload();
  auto pod = std::make_shared<proxy::PodContext>();
  pod->slot = slot;
  pod->namespace_name = workload.namespace_name;
  pod->name = workload.name;
  pod->workload_uid = workload.uid;
  pod->addresses = workload.addresses;
  pod->netns = netns_;
  const auto listen = [&] {
    std::vector<proxy::PodListeners> sets(1);
    sets[0].outbound = listening(server ? kUnusedPort : kServicePort);
    sets[0].inbound_hbone = listening(server ? state::kHbonePort : kUnusedPort + 1);
    sets[0].inbound_plaintext = listening(server ? kApplicationPort : kUnusedPort + 2);
    return sets;
  };
  worker_->add_pod(std::move(pod), run_in(server ? ground_.arrives(slot) : ground_.calls(), listen));
}

void End::remove_pod(std::uint32_t slot) {
  auto done = std::make_shared<std::promise<void>>();
  worker_->remove_pod(slot, [done] { done->set_value(); });
  if (done->get_future().wait_for(stretched(kPatience)) != std::future_status::ready) {
    throw TestError("the pod is not removed");
  }
}

void End::enrol_again(std::uint32_t slot) {
  worker_->retire_pod(slot);
  (void)live();
  add_pod(slot);
}

void End::hold() {
  auto done = std::make_shared<std::promise<std::vector<proxy::HeldListeners>>>();
  worker_->hold([done](std::vector<proxy::HeldListeners> held) { done->set_value(std::move(held)); });
  auto held = done->get_future();
  if (held.wait_for(stretched(kPatience)) != std::future_status::ready) throw TestError("the worker does not hold");
  if (held.get().size() != pods()) throw TestError("not every pod's listeners were handed out");
  worker_->go_on();
}

void End::renew(int generation) {
  certificates_.put(ground_.certificate(role_ == Role::kServer, generation));
  worker_->certificates_changed();
}

double End::total(const std::string& name) const {
  double sum = 0;
  for (const auto& family : registry_->Collect()) {
    if (family.name != name) continue;
    for (const auto& metric : family.metric) sum += metric.counter.value + metric.gauge.value;
  }
  return sum;
}

}  // namespace weft::test
