// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "test/support/mesh.h"

namespace weft::test {

/// A pod that a real ztunnel serves in weft-agent's place: the ztunnel runs inside the pod (its "dedicated" mode),
/// reads the mesh's configuration once at its start, gets its certificates from weft-test-ca beside it, and is captured
/// to as istio-cni does it, by the marks 0x539 and 0x111 and the ports 15001, 15006 and 15008. The pod must not have
/// weft-cni in its chain. Main thread only; throws TestError.
class Ztunnel {
 public:
  struct Options {
    std::string identity;                            ///< what its certificate says; empty: the pod's own
    std::function<void(nlohmann::json&)> configure;  ///< changes the configuration, as this ztunnel alone sees it
  };

  /// The program, by WEFT_ZTUNNEL of the environment; empty where that names no executable.
  static std::string executable();

  /// Sets up the capture of the pod.
  Ztunnel(const Mesh& mesh, const Pod& pod);

  /// Starts it with the mesh as it stands, in the place of the one that runs; waits until it is ready.
  void start(const Options& options);
  void start() { start({}); }
  /// What all of this pod's ztunnels have logged.
  [[nodiscard]] std::string log() const;

 private:
  [[nodiscard]] std::string write_configuration(const Options& options) const;
  [[nodiscard]] std::vector<std::string> environment(const std::string& configuration) const;

  const Mesh* mesh_;
  const Pod* pod_;
  std::string ended_logs_;
  std::unique_ptr<Process> ca_, ztunnel_;
};

}  // namespace weft::test
