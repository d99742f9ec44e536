// SPDX-License-Identifier: Apache-2.0
#include "agent/control/xds_metrics.h"

#include <utility>

namespace weft::control {
namespace {

prometheus::Family<prometheus::Counter>& counters(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
}

}  // namespace

XdsMetrics::XdsMetrics(std::shared_ptr<prometheus::Registry> registry)
    : registry_(std::move(registry)),
      terminations_(counters(*registry_, "istio_xds_connection_terminations_total",
                             "Ends of connections to istiod's discovery service")),
      messages_(counters(*registry_, "istio_xds_message_total", "Responses of istiod's discovery service")),
      bytes_(counters(*registry_, "istio_xds_message_bytes_total", "Their bytes")) {}

void XdsMetrics::message(const std::string& type_url, std::size_t bytes) {
  messages_.Add({{"url", type_url}}).Increment();
  bytes_.Add({{"url", type_url}}).Increment(static_cast<double>(bytes));
}

void XdsMetrics::terminated(const char* reason) { terminations_.Add({{"reason", reason}}).Increment(); }

}  // namespace weft::control
