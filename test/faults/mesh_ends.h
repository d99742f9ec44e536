// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "test/faults/injector.h"
#include "test/support/netns.h"
#include "test/support/test_ca.h"
#include "tunnel/proxy/worker.h"

namespace prometheus {
class Registry;
}

namespace weft::test {

/// Where the mesh of these tests stands: a pod that calls, and two that are called. What capture would bring to a
/// listener comes to it by itself, because each pod is two namespaces with the same addresses: one that the connections
/// in question are made to, where the listeners stand, and one that the worker dials in.
class Ground {
 public:
  /// By family, IPv4 first: the calling pod; where it calls the service of the other two, something outside of the
  /// mesh, and the first of the other pods by its own address.
  static const std::array<Endpoint, 2> kClient, kService, kOutside, kServer;

  Ground();
  /// Of the calling pod: `calls` is where its connections begin that go to the outbound listener, `dials` where the
  /// worker's begin.
  [[nodiscard]] const Netns& calls() const { return calls_; }
  [[nodiscard]] const Netns& dials() const { return dials_; }
  /// Where the connections to a called pod arrive.
  [[nodiscard]] const Netns& arrives(std::uint32_t slot) const { return slot == 1 ? server_ : other_server_; }
  /// Where the worker finds the applications of both.
  [[nodiscard]] const Netns& app() const { return app_; }
  /// The listeners of the applications: of the called pods, and outside of the mesh.
  [[nodiscard]] const std::array<Fd, 2>& applications() const { return applications_; }
  /// A certificate of the callers' or the called pods' identity; each of the two generations is another.
  [[nodiscard]] std::shared_ptr<const hbone::TlsIdentity> certificate(bool server, int generation) const;

 private:
  Netns calls_{"calls"}, dials_{"dials"}, server_{"server"}, other_server_{"server2"}, app_{"app"};
  std::array<Fd, 2> applications_;
  std::array<std::array<std::shared_ptr<const hbone::TlsIdentity>, 2>, 2> certificates_;
};

/// What the control plane says.
enum class Policies { kNone, kAllow, kDeny };
/// `hbone`: whether the called pods are in the mesh; their applications serve plaintext too.
std::shared_ptr<const state::State> mesh_state(Policies policies, bool hbone = true);

/// One end of the mesh: a worker, as an agent would have it, on a thread whose calls may be disturbed. The client's has
/// the calling pod in slot 1, the server's the called ones in slots 1 and 2.
class End {
 public:
  enum class Role : std::uint32_t { kClient, kServer };
  End(const Ground& ground, Role role, std::uint64_t seed, Harm harm);
  ~End();

  [[nodiscard]] proxy::Worker& worker() { return *worker_; }
  /// Shows what was injected until now, on the worker's thread.
  void look(const std::function<void(const FaultInjector&)>& at);
  void begin_faults();
  void end_faults();
  /// FaultInjector::force, between the two.
  void force(Call call, int error, std::size_t times);
  [[nodiscard]] std::uint32_t pods() const { return role_ == Role::kServer ? 2 : 1; }
  /// With new listeners.
  void add_pod(std::uint32_t slot);
  /// Returns when nothing of the pod is left.
  void remove_pod(std::uint32_t slot);
  /// It leaves the mesh, and joins it again with what lives of it.
  void enrol_again(std::uint32_t slot);
  /// Has another agent accept for a moment, which accepts nothing.
  void hold();
  void renew(int generation);
  /// What lives on the worker, after everything that was posted before.
  [[nodiscard]] std::vector<proxy::ConnectionInfo> live();
  /// The sum of a metric over its labels.
  [[nodiscard]] double total(const std::string& name) const;

 private:
  class FaultyNode;
  /// Runs it on the worker's thread and waits for its end.
  void run(const std::function<void()>& work);

  const Ground& ground_;
  Role role_;
  std::shared_ptr<const Fd> netns_;
  FaultInjector faults_;
  std::unique_ptr<FaultyNode> node_;
  std::shared_ptr<prometheus::Registry> registry_;
  std::unique_ptr<telemetry::ConnectionMetrics> metrics_;
  hbone::CertStore certificates_;
  std::unique_ptr<proxy::Worker> worker_;
};

}  // namespace weft::test
