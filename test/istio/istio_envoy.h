// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "test/istio/cluster.h"
#include "test/netns/envoy.h"

namespace weft::test {

struct IstioEnvoyOptions {
  std::string role = "waypoint";                       ///< or `sidecar`: what istiod makes of it
  std::map<std::string, std::string> labels = {};      ///< of its pod, by which istiod selects what concerns it
  nlohmann::json metadata = nlohmann::json::object();  ///< more of what it says of itself
  std::vector<std::string> launcher = {};              ///< a program and its arguments that starts them
};

/// Upstream Envoy in a pod of a cluster, in the place of Istio's own proxy: istiod configures it, and its certificate
/// is of istiod's CA. Its pod exists, and is not captured. Main thread only; throws TestError.
class IstioEnvoy {
 public:
  /// Why there can be none here; empty where Envoy is.
  [[nodiscard]] static std::string missing();

  /// What istiod must be started with: it asks Envoy for none of Istio's own exchange of metadata.
  [[nodiscard]] static std::vector<std::string> istiod_environment() {
    return {"PILOT_ENABLE_METADATA_EXCHANGE=false", "ISTIO_DUAL_STACK=true"};
  }

  /// Gets the certificate, starts Envoy and waits until it serves what istiod has told it.
  IstioEnvoy(Cluster& cluster, const Pod& pod, IstioEnvoyOptions options = {});

  /// What its admin API answers: `/stats`, `/config_dump`.
  [[nodiscard]] std::string admin(const std::string& path) const;
  /// The sum of the counters or gauges whose names begin and end so.
  [[nodiscard]] double stat(const std::string& begin, const std::string& end = "") const;
  /// The JSON of what it does with new connections, without blanks.
  [[nodiscard]] std::string configuration() const;
  /// Waits until the text stands there (or does not); throws with what it has where that does not
  /// come, or where it refused something.
  void wait_for_configuration(const std::string& text, bool there = true) const;
  /// What it and its agent had to complain about.
  [[nodiscard]] std::string trouble() const;

 private:
  [[nodiscard]] nlohmann::json bootstrap(const std::string& token_file) const;

  Cluster* cluster_;
  const Pod* pod_;
  IstioEnvoyOptions options_;
  std::string account_, socket_;
  std::unique_ptr<Process> sds_;  ///< weft-test-sds
  std::unique_ptr<Envoy> envoy_;
};

/// As long as it lives nothing comes from istiod to programs of those namespaces; their connections stay open.
class HeldBack {
 public:
  HeldBack(Cluster& cluster, std::vector<const Netns*> from);
  HeldBack(const HeldBack&) = delete;
  HeldBack& operator=(const HeldBack&) = delete;
  ~HeldBack();

 private:
  void set(const char* verb) const;
  Endpoint istiod_;
  std::vector<const Netns*> from_;
};

/// A waypoint of Istio's class: Gateway, pod, service, Envoy.
struct WaypointPod {
  Pod* pod = nullptr;
  std::unique_ptr<IstioEnvoy> envoy = {};
};
/// Makes one for the services of the namespace, named so, with a service account of that name.
WaypointPod add_istio_waypoint(Cluster& cluster, int node, const std::string& namespace_name, const std::string& name);

}  // namespace weft::test
