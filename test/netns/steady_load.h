// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "test/netns/mesh_fixture.h"

namespace weft::test {

/// Requests without end and connections that are held, none of which may ever fail. For the test's main thread.
class SteadyLoad {
 public:
  /// Of so many answers one is kept: a long run has millions. `pause_s` is between an answer and the next request.
  explicit SteadyLoad(int every = 1, double pause_s = 0) : every_(every), pause_s_(pause_s) {}
  /// One request after the other from the pod, on one connection or each on its own; the first that fails ends it.
  void request(const Pod& from, const Endpoint& to, bool keep_alive);
  /// A connection with a heartbeat; gives its own end.
  std::string hold(const Pod& from, const Endpoint& to);
  /// Both ways of requests, and a connection that is held, whose own end it gives.
  std::string all_kinds(const Pod& from, const Endpoint& to);
  /// Waits until every request loop has had some answers more that were kept; adds a failure for whatever has ended,
  /// and names `when`.
  void expect_all_go_on(const std::string& when);
  [[nodiscard]] std::size_t answered() const;
  /// Ends it all.
  void stop();

 private:
  struct Part {
    const Pod* from;
    Endpoint to;
    std::string what;
    Process process;
    std::size_t target = 0;  ///< bytes of answers that it should come to
  };
  int every_;
  double pause_s_;
  std::vector<Part> requests_, held_;
};

}  // namespace weft::test
