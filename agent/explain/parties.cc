// SPDX-License-Identifier: Apache-2.0
#include "agent/explain/parties.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

namespace weft::agent {
namespace {

using state::Service;
using state::ServicePtr;
using state::Workload;
using Capture = ExplainSource::Capture;

const PodStatus* pod_named(const ExplainView& view, std::string_view name) {
  const PodStatus* found = nullptr;
  for (const auto& pod : view.pods) {
    if (pod.registration.pod() != name) continue;
    // The first interface is the one that the workload is about.
    if (found == nullptr || !pod.registration.secondary) found = &pod;
  }
  return found;
}

void set_from_pod(const ExplainView& view, const PodStatus& pod, ExplainSource& source) {
  const Registration& r = pod.registration;
  source.pod = &pod;
  source.name = r.pod();
  source.namespace_name = r.pod_namespace;
  source.addresses = r.addresses;
  for (const auto& problem : pod.observation.problems) source.notes.push_back("the source's wiring: " + problem);
  for (const auto& name : pod.observation.uncaptured) {
    source.notes.push_back("what leaves the source by its interface " + name + " is outside the mesh");
  }
  source.state = pod.reason.starts_with(pod.state) ? pod.reason : pod.state + ": " + pod.reason;
  source.workload =
      r.enrolled ? view.state.workload_by_uid(r.workload_uid) : view.state.workload_by_pod(r.pod_namespace, r.pod_name);
  if (!r.enrolled) return;
  source.capture = Capture::kMesh;
  if (pod.state == "failed") source.capture = Capture::kClosed;
  if (!source.workload) {
    source.capture = Capture::kClosed;
    source.state = "enrolled, but its workload " + r.workload_uid + " is not in the configuration";
  }
}

void set_from_workload(const ExplainView& view, const state::WorkloadPtr& workload, ExplainSource& source) {
  source.workload = workload;
  source.name = workload->namespace_name + "/" + workload->name;
  source.namespace_name = workload->namespace_name;
  source.addresses = workload->addresses;
  const Decision decision = decision_for(view, *workload);
  source.state = "not in the mesh: " + decision.reason;
  if (decision.kind != Decision::Kind::kEnrol) return;
  if (workload->node == view.node) {
    source.state = "not in the mesh, though its workload is: no pod of this node is wired as " + source.name;
    return;
  }
  source.capture = Capture::kMesh;
  const std::string where = workload->node.empty() ? "some node" : "node " + workload->node;
  source.state = "in the mesh on " + where + ", as the configuration says";
  source.notes.push_back("the source is not on this node (" + view.node +
                         "): ask the agent of its own for what it really does");
}

std::optional<std::uint16_t> parse_port(std::string_view text) {
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || end != text.data() + text.size() || port == 0) return std::nullopt;
  return port;
}

/// Whether a client would mean this service by the name: its hostname, or NAME.NAMESPACE with or without ".svc".
bool is_named(const Service& service, std::string_view name, std::string_view source_namespace) {
  const std::string short_name = service.name + "." + service.namespace_name;
  return name == service.hostname || name == short_name || name == short_name + ".svc" ||
         (name == service.name && service.namespace_name == source_namespace);
}

/// Of several services with one name the source's own namespace goes first, as DNS has it.
ServicePtr service_named(const ExplainView& view, std::string_view name, const ExplainSource& source,
                         std::vector<std::string>& notes) {
  ServicePtr found;
  int count = 0;
  for (const auto& service : view.state.services()) {
    if (!is_named(*service, name, source.namespace_name)) continue;
    ++count;
    if (!found || service->namespace_name == source.namespace_name) found = service;
  }
  if (count > 1) {
    notes.push_back(std::to_string(count) + " services go by the name " + std::string(name) + "; explained is " +
                    found->key());
  }
  return found;
}

/// An address of a family that the source has, IPv4 first.
IpAddress pick(const std::vector<IpAddress>& addresses, const ExplainSource& source, std::vector<std::string>& notes) {
  const auto usable = [&](bool v4) {
    return std::ranges::find_if(addresses, [&](const IpAddress& address) {
      return address.is_v4() == v4 && (source.addresses.empty() || source.address_like(address).valid());
    });
  };
  auto chosen = usable(true);
  if (chosen == addresses.end()) chosen = usable(false);
  if (chosen == addresses.end()) return addresses.empty() ? IpAddress() : addresses.front();
  std::string others;
  for (const auto& address : addresses) {
    if (address != *chosen) others += (others.empty() ? "" : ", ") + address.to_string();
  }
  if (!others.empty()) notes.push_back("explained is " + chosen->to_string() + "; the name also has " + others);
  return *chosen;
}

Result<ExplainTarget> pod_target(const ExplainView& view, const ExplainSource& source, std::string_view name,
                                 std::uint16_t port) {
  const auto slash = name.find('/');
  const auto workload = view.state.workload_by_pod(name.substr(0, slash), name.substr(slash + 1));
  const PodStatus* pod = pod_named(view, name);
  if (!workload && pod == nullptr) {
    return fail(ErrorCode::kNotFound, in_quotes(name) +
                                          ": no workload and no wired pod of this node has that name (is " +
                                          "it outside the mesh? then ask with its address)");
  }
  ExplainTarget out;
  const IpAddress address = pick(workload ? workload->addresses : pod->registration.addresses, source, out.notes);
  if (!address.valid()) return fail(ErrorCode::kNotFound, "workload " + std::string(name) + " has no address");
  out.originals = {{address, port}};
  return out;
}

/// DNS gives the addresses of the endpoints.
ExplainTarget headless_target(const ExplainView& view, const ExplainSource& source, const Service& service,
                              std::uint16_t port) {
  ExplainTarget out;
  out.service = service.key();
  for (const auto& endpoint : view.state.endpoints(service.key())) {
    std::vector<std::string> ignored;
    const IpAddress address = pick(endpoint.workload->addresses, source, ignored);
    if (address.valid()) out.originals.push_back({address, port});
  }
  out.notes.push_back("service " + service.key() + " has no VIP: its name leads to its endpoints' own addresses");
  return out;
}

Result<ExplainTarget> service_target(const ExplainView& view, const ExplainSource& source, std::string_view name,
                                     std::uint16_t port) {
  ExplainTarget out;
  const auto service = service_named(view, name, source, out.notes);
  if (!service) {
    return fail(ErrorCode::kNotFound,
                in_quotes(name) + ": no service has that hostname, nor that NAME.NAMESPACE (see weftctl services)");
  }
  if (service->vips.empty() && service->cidr_vips.empty()) return headless_target(view, source, *service, port);
  const std::string& network = source.workload ? source.workload->network : view.network;
  std::vector<IpAddress> vips;
  for (const auto& vip : service->vips) {
    if (vip.network == network) vips.push_back(vip.address);
  }
  const IpAddress address = pick(vips, source, out.notes);
  if (!address.valid()) {
    return fail(ErrorCode::kNotFound, "service " + service->key() +
                                          " has no single address that its name could lead to on network " +
                                          in_quotes(network) + " (ask with an address)");
  }
  out.originals = {{address, port}};
  return out;
}

}  // namespace

IpAddress ExplainSource::address_like(const IpAddress& like) const {
  const auto found = std::ranges::find_if(addresses, [&](const auto& own) { return own.is_v4() == like.is_v4(); });
  return found == addresses.end() ? IpAddress() : *found;
}

const PodStatus* pod_at(const ExplainView& view, const IpAddress& address) {
  for (const auto& pod : view.pods) {
    if (std::ranges::find(pod.registration.addresses, address) != pod.registration.addresses.end()) return &pod;
  }
  return nullptr;
}

Decision decision_for(const ExplainView& view, const state::Workload& workload) {
  return decide(&view.state, {workload.namespace_name, workload.name, workload.addresses}, workload.node);
}

Result<ExplainSource> explain_source(const ExplainView& view, std::string_view from) {
  ExplainSource source;
  const auto address = IpAddress::parse(from);
  const PodStatus* pod = address ? pod_at(view, *address) : pod_named(view, from);
  const auto slash = from.find('/');
  if (!address && (slash == std::string_view::npos || slash == 0 || slash + 1 == from.size())) {
    return fail(ErrorCode::kInvalid, "source " + in_quotes(from) + ": expected NAMESPACE/POD or an address");
  }
  if (pod != nullptr) {
    set_from_pod(view, *pod, source);
    return source;
  }
  const auto workload = address ? view.state.workload_by_address(view.network, *address)
                                : view.state.workload_by_pod(from.substr(0, slash), from.substr(slash + 1));
  if (workload) {
    set_from_workload(view, workload, source);
    return source;
  }
  if (!address) {
    return fail(ErrorCode::kNotFound, "source " + in_quotes(from) + ": no wired pod of this node and no workload has " +
                                          "that name (is it outside the mesh? then ask with its address)");
  }
  source.name = address->to_string();
  source.addresses = {*address};
  source.state = "not in the mesh: no pod of this node and no workload has the address";
  return source;
}

Result<ExplainTarget> explain_target(const ExplainView& view, const ExplainSource& source, std::string_view to) {
  if (const auto endpoint = Endpoint::parse(to)) {
    if (endpoint->port == 0) return fail(ErrorCode::kInvalid, "destination " + in_quotes(to) + ": port 0");
    return ExplainTarget{{*endpoint}, "", {}};
  }
  const auto colon = to.rfind(':');
  const auto port = colon == std::string_view::npos ? std::nullopt : parse_port(to.substr(colon + 1));
  const std::string_view name = to.substr(0, colon);
  // An IPv6 address without brackets, or without a port.
  if (!port || name.empty() || name.find(':') != std::string_view::npos || IpAddress::parse(name)) {
    return fail(ErrorCode::kInvalid, "destination " + in_quotes(to) +
                                         ": expected ADDRESS:PORT ([ADDRESS]:PORT for IPv6), NAMESPACE/POD:PORT, "
                                         "HOSTNAME:PORT or NAME.NAMESPACE:PORT");
  }
  if (name.find('/') != std::string_view::npos) return pod_target(view, source, name, *port);
  return service_target(view, source, name, *port);
}

}  // namespace weft::agent
