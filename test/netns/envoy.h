// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "test/support/mesh.h"

namespace weft::test {

/// Upstream Envoy in a pod, the waypoint of these tests, with a certificate of the mesh's CA as `weftctl ca issue`
/// gives it. Main thread only; throws TestError.
class Envoy {
 public:
  /// The program: WEFT_ENVOY of the environment, or where scripts/envoy puts it; empty where there is none.
  static std::string executable();

  /// Starts it and waits until it serves. `configuration` is a file's text, in which each text of `values` becomes the
  /// other one, and /etc/waypoint the folder of its certificate.
  Envoy(const Mesh& mesh, const Pod& pod, std::string configuration,
        const std::vector<std::pair<std::string, std::string>>& values = {});
  /// The same with a file that is complete, and a program with its arguments that starts it.
  Envoy(const Pod& pod, std::string file, std::vector<std::string> launcher = {});
  /// Another process with the same configuration, in the place of the one that runs or was killed.
  void start();
  /// SIGKILL.
  void kill();
  /// What all its processes wrote to stdout: its access log.
  [[nodiscard]] std::string log() const;
  /// What it says of itself.
  [[nodiscard]] std::string trouble() const;

 private:
  const Pod* pod_;
  std::vector<std::string> launcher_;
  std::string file_, ended_log_, ended_trouble_;
  std::unique_ptr<Process> process_;
};

/// The text of a file of manifests/examples.
std::string example(const std::string& name);

}  // namespace weft::test
