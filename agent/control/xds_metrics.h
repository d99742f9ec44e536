// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <prometheus/counter.h>
#include <prometheus/registry.h>

#include <cstddef>
#include <memory>
#include <string>

namespace weft::control {

/// What the xDS client counts, under the names that dashboards for ztunnel know. Thread-safe.
class XdsMetrics {
 public:
  explicit XdsMetrics(std::shared_ptr<prometheus::Registry> registry);

  /// A response of `bytes` on the wire.
  void message(const std::string& type_url, std::size_t bytes);
  /// `reason`: ConnectionError (no stream came about), Error (a stream broke), Complete (istiod ended it).
  void terminated(const char* reason);

 private:
  std::shared_ptr<prometheus::Registry> registry_;
  prometheus::Family<prometheus::Counter>& terminations_;
  prometheus::Family<prometheus::Counter>& messages_;
  prometheus::Family<prometheus::Counter>& bytes_;
};

}  // namespace weft::control
