// SPDX-License-Identifier: Apache-2.0
#include "agent/handover/messages.h"

#include <ctime>

#include "bpf/loader.h"
#include "tunnel/base/rfc3339.h"
#include "tunnel/hbone/tls_x509.h"

namespace weft::agent {

using nlohmann::json;

json to_json(const Generation& g) {
  return {{"generation", g.number},
          {"version", g.version},
          {"pid", g.pid},
          {"started", std::chrono::system_clock::to_time_t(g.started)},
          {"connections", g.load.connections},
          {"tunnels", g.load.tunnels}};
}

Generation generation_from(const json& body) {
  Generation g;
  g.number = body.at("generation").get<std::uint32_t>();
  g.version = body.at("version").get<std::string>();
  g.pid = body.at("pid").get<std::int64_t>();
  g.started = std::chrono::system_clock::from_time_t(body.at("started").get<std::time_t>());
  g.load.connections = body.at("connections").get<std::size_t>();
  g.load.tunnels = body.at("tunnels").get<std::size_t>();
  return g;
}

json to_json(const Welcome& welcome) {
  json identities = json::array();
  for (const auto& identity : welcome.identities) identities.push_back(identity.to_uri());
  json body = to_json(welcome.generation);
  body["welcome"] = true;
  body["identities"] = std::move(identities);
  return body;
}

Welcome welcome_from(const json& body) {
  Welcome welcome{.generation = generation_from(body), .identities = {}};
  for (const auto& uri : body.at("identities")) {
    // One that cannot be read costs a pause at its first connection, not the takeover.
    if (auto identity = state::Identity::parse(uri.get<std::string>())) welcome.identities.push_back(*identity);
  }
  return welcome;
}

json to_json(const proxy::ConnectionInfo& c) {
  json object = {{"pod", c.pod},
                 {"direction", c.direction},
                 {"source", c.source.to_string()},
                 {"destination", c.destination.to_string()},
                 {"sourceIdentity", c.source_identity},
                 {"destinationIdentity", c.destination_identity},
                 {"service", c.service},
                 {"bytesSent", c.bytes_sent},
                 {"bytesReceived", c.bytes_received},
                 {"ageSeconds", c.age_seconds}};
  if (c.hbone.address.valid()) object["hbone"] = c.hbone.to_string();
  if (!c.peer_serial.empty()) {
    object["peerCertificate"] = {{"serial", c.peer_serial}, {"validUntil", rfc3339(c.peer_valid_until)}};
  }
  if (c.generation != 0) object["generation"] = c.generation;
  return object;
}

namespace {

/// What rfc3339() made; the epoch for anything else.
WallTime time_of(const std::string& text) {
  std::tm parts{};
  if (::strptime(text.c_str(), "%Y-%m-%dT%H:%M:%SZ", &parts) == nullptr) return {};
  return std::chrono::system_clock::from_time_t(::timegm(&parts));
}

}  // namespace

proxy::ConnectionInfo connection_from(const json& body) {
  const json peer = body.value("peerCertificate", json::object());
  const auto endpoint = [&](const char* key) { return Endpoint::parse(body.value(key, "")).value_or(Endpoint()); };
  return {.pod = body.at("pod").get<std::string>(),
          .direction = body.at("direction").get<std::string>(),
          .source = endpoint("source"),
          .destination = endpoint("destination"),
          .hbone = endpoint("hbone"),
          .source_identity = body.at("sourceIdentity").get<std::string>(),
          .destination_identity = body.at("destinationIdentity").get<std::string>(),
          .service = body.at("service").get<std::string>(),
          .peer_serial = peer.value("serial", ""),
          .peer_valid_until = time_of(peer.value("validUntil", "")),
          .bytes_sent = body.at("bytesSent").get<std::uint64_t>(),
          .bytes_received = body.at("bytesReceived").get<std::uint64_t>(),
          .age_seconds = body.at("ageSeconds").get<double>(),
          .generation = body.value("generation", std::uint32_t{0})};
}

namespace {

/// A message of their own, behind that of the listeners: agents that know nothing of DNS pass it over.
Result<void> send_dns_sockets(const HandoverChannel& channel, std::size_t worker, std::uint32_t slot,
                              const ListenerSets& sets, milliseconds timeout) {
  json places = json::array();
  std::vector<int> fds;
  for (std::size_t set = 0; set < sets.size(); ++set) {
    for (const auto& [family, fd] : {std::pair{4, &sets[set].dns_v4}, {6, &sets[set].dns_v6}}) {
      if (!*fd) continue;
      places.push_back({set, family});
      fds.push_back(fd->get());
    }
  }
  if (fds.empty()) return {};
  return channel.send({{"dns", slot}, {"worker", worker}, {"places", std::move(places)}}, fds, timeout);
}

}  // namespace

Result<void> send_estate(const HandoverChannel& channel, const Estate& estate, milliseconds timeout) {
  for (std::size_t worker = 0; worker < estate.listeners.size(); ++worker) {
    for (const auto& [slot, sets] : estate.listeners[worker]) {
      std::vector<int> fds;
      for (const auto& set : sets) {
        for (const Fd* fd : {&set.outbound, &set.inbound_hbone, &set.inbound_plaintext}) fds.push_back(fd->get());
      }
      if (auto sent = channel.send({{"listeners", slot}, {"worker", worker}}, fds, timeout); !sent) return sent;
      if (auto sent = send_dns_sockets(channel, worker, slot, sets, timeout); !sent) return sent;
    }
  }
  for (const auto& socket : estate.sockets) {
    if (auto sent = channel.send({{"socket", socket.name}}, {socket.fd.get()}, timeout); !sent) return sent;
  }
  for (const auto& predecessor : estate.predecessors) {
    auto sent = channel.send({{"predecessor", to_json(predecessor.generation)}}, {predecessor.channel.get()}, timeout);
    if (!sent) return sent;
  }
  return channel.send({{"end", true}, {"workers", estate.listeners.size()}, {"endedMetrics", estate.ended_metrics}}, {},
                      timeout);
}

namespace {

ListenerSets listener_sets(std::vector<Fd> fds) {
  ListenerSets sets;
  for (std::size_t i = 0; i + 3 <= fds.size(); i += 3) {
    sets.push_back({.outbound = std::move(fds[i]),
                    .inbound_hbone = std::move(fds[i + 1]),
                    .inbound_plaintext = std::move(fds[i + 2])});
  }
  return sets;
}

/// Into the sets that the message before has brought.
void take_dns_sockets(Estate& estate, HandoverMessage message) {
  const json& body = message.body;
  const auto worker = body.at("worker").get<std::size_t>();
  if (worker >= estate.listeners.size()) return;
  const auto found = estate.listeners[worker].find(body.at("dns").get<std::uint32_t>());
  if (found == estate.listeners[worker].end()) return;
  std::size_t next = 0;
  for (const auto& place : body.at("places")) {
    const auto set = place.at(0).get<std::size_t>();
    if (next >= message.fds.size() || set >= found->second.size()) return;
    (place.at(1) == 4 ? found->second[set].dns_v4 : found->second[set].dns_v6) = std::move(message.fds[next++]);
  }
}

/// Puts one message into the estate; true: it was the last.
bool take(Estate& estate, HandoverMessage message) {
  const json& body = message.body;
  const bool has_fd = message.fds.size() == 1;
  if (body.contains("listeners") && message.fds.size() % 3 == 0) {
    const auto worker = body.at("worker").get<std::size_t>();
    if (worker < bpf::kMaxWorkers) {
      if (estate.listeners.size() <= worker) estate.listeners.resize(worker + 1);
      estate.listeners[worker][body.at("listeners").get<std::uint32_t>()] = listener_sets(std::move(message.fds));
    }
  } else if (body.contains("dns")) {
    take_dns_sockets(estate, std::move(message));
  } else if (body.contains("socket") && has_fd) {
    estate.sockets.push_back({body.at("socket").get<std::string>(), std::move(message.fds.front())});
  } else if (body.contains("predecessor") && has_fd) {
    estate.predecessors.push_back({generation_from(body.at("predecessor")), std::move(message.fds.front())});
  } else if (body.contains("end")) {
    const auto workers = body.at("workers").get<std::size_t>();
    if (workers <= bpf::kMaxWorkers) estate.listeners.resize(workers);
    estate.ended_metrics = body.at("endedMetrics");
    return true;
  }
  // What a later version may say besides is closed and passed over.
  return false;
}

}  // namespace

Result<Estate> receive_estate(const HandoverChannel& channel, milliseconds timeout) {
  Estate estate;
  for (;;) {
    auto message = channel.receive(timeout);
    if (!message) return Failure(message.error());
    if (message->body.contains("refused")) {
      return fail(ErrorCode::kUnavailable,
                  "handover: the running agent refuses: " + message->body.value("refused", std::string("no reason")));
    }
    auto last = understood("its estate", [&] { return take(estate, std::move(*message)); });
    if (!last) return Failure(last.error());
    if (*last) return estate;
  }
}

}  // namespace weft::agent
