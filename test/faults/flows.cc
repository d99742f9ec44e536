// SPDX-License-Identifier: Apache-2.0
#include "test/faults/flows.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace weft::test {
namespace {

constexpr std::size_t kAtOnce = 8;
/// A stall: so long nothing happened at all, by times that this process was there to see it. A machine that stands
/// still for seconds is none.
constexpr milliseconds kLook{100};
constexpr int kLooks = 100;
/// And in all.
constexpr milliseconds kPatience{120'000};

using Random = std::mt19937_64;

std::size_t below(Random& random, std::size_t bound) { return random() % bound; }

/// Mostly small, some of many frames, few larger than the windows and buffers on the way.
std::size_t some_bytes(Random& random) {
  switch (below(random, 8)) {
    case 0:
      return 1U << (10 + below(random, 7));
    case 1:
      return 20'000 + below(random, 300'000);
    case 2:
      return below(random, 10) == 0 ? 2'000'000 + below(random, 1000) : below(random, 20'000);
    default:
      return below(random, 2000);
  }
}

Flow planned(Random& random, std::uint32_t number) {
  Flow flow;
  flow.number = number;
  flow.way = static_cast<Flow::Way>(below(random, 5) / 2);
  flow.v6 = below(random, 3) == 0;
  Part &client = flow.client_part, &application = flow.application_part;
  client.to_send = application.to_receive = Peer::kHead + some_bytes(random);
  application.to_send = client.to_receive = some_bytes(random);
  client.reads_slowly = below(random, 10) == 0;
  application.reads_slowly = below(random, 10) == 0;
  switch (below(random, 6)) {
    case 0:
      flow.kind = "the client ends first";
      application.held_back = application.to_send / 2 + (application.to_send > 0 ? 1 : 0);
      break;
    case 1:
      flow.kind = "the application ends first";
      client.held_back = (client.to_send - Peer::kHead) / 2;
      break;
    case 2:
      flow.kind = "the client resets";
      client.reset_at = below(random, client.to_send + client.to_receive);
      break;
    case 3:
      flow.kind = "the application resets";
      application.reset_at = below(random, application.to_send + application.to_receive);
      break;
    default:
      flow.kind = "both end";
  }
  return flow;
}

}  // namespace

std::string Flow::describe() const {
  const char* name = way == Way::kTunnel ? " by tunnel" : way == Way::kOutside ? " outside" : " in plaintext";
  std::string text = "flow " + std::to_string(number) + name + (v6 ? " v6" : " v4") + ", " + kind +
                     (disturbed ? ", disturbed" : "") + ", from " + local.to_string();
  text += "\n  client: " + (client ? client->describe() : "not started");
  return text + "\n  application: " + (application ? application->describe() : "never knew");
}

Flows::Flows(const Ground& ground, std::uint64_t seed, std::size_t count) : ground_(ground) {
  Random random(seed);
  for (std::size_t i = 0; i < count; ++i) flows_.push_back(planned(random, static_cast<std::uint32_t>(i)));
}

Flows Flows::undisturbed(const Ground& ground, std::uint32_t first_number, std::initializer_list<Flow::Way> ways) {
  Flows flows(ground);
  for (const auto way : ways) {
    Flow flow;
    flow.number = first_number++;
    flow.way = way;
    flow.kind = "both end";
    flow.client_part.to_send = flow.application_part.to_receive = 100'000;
    flow.application_part.to_send = flow.client_part.to_receive = 100'000;
    flows.flows_.push_back(std::move(flow));
  }
  return flows;
}

/// A client's socket with a port that no flow had: the records are told apart by it. The calling thread stays in the
/// namespace that it belongs to.
Fd Flows::client_socket(Flow& flow) {
  enter(flow.way == Flow::Way::kPlaintext ? ground_.dials() : ground_.calls());
  const auto from = Ground::kClient[flow.v6 ? 1 : 0].to_sockaddr();
  for (;;) {
    Fd fd(::socket(flow.v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_storage local{};
    socklen_t length = sizeof local;
    if (!fd || ::bind(fd.get(), from.get(), from.length) != 0 ||
        ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&local), &length) != 0) {
      throw TestError(std::string("make a client's socket: ") + std::strerror(errno));
    }
    const Endpoint at = Endpoint::from_sockaddr(local);
    if (std::ranges::find(flows_, at, &Flow::local) != flows_.end()) continue;
    flow.local = at;
    return fd;
  }
}

void Flows::start(Flow& flow) {
  const auto& to = flow.way == Flow::Way::kTunnel    ? Ground::kService
                   : flow.way == Flow::Way::kOutside ? Ground::kOutside
                                                     : Ground::kServer;
  const auto address = to[flow.v6 ? 1 : 0].to_sockaddr();
  Fd fd = client_socket(flow);
  // A failure shows in the first event.
  ::connect(fd.get(), address.get(), address.length);
  flow.client = std::make_unique<Peer>(std::move(fd), true, true);
  flow.client->take_part(flow.number, flow.client_part);
}

void Flows::accept(const Fd& listener) {
  for (;;) {
    Fd fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd) return;
    strangers_.push_back(std::make_unique<Peer>(std::move(fd), false, false));
  }
}

/// Gives the flows their application's end, once its first bytes have named it.
void Flows::recognise() {
  for (auto& stranger : strangers_) {
    if (const auto number = stranger->named()) {
      const auto flow = std::ranges::find(flows_, *number, &Flow::number);
      if (flow == flows_.end() || flow->application != nullptr || flow->client == nullptr) {
        strange_ += "the application has a connection of flow " + std::to_string(*number) +
                    (flow == flows_.end() ? ", which is none\n" : " twice\n");
      } else {
        stranger->take_part(flow->number, flow->application_part);
        flow->application = std::move(stranger);
      }
    } else if (stranger->over() && stranger->ending() == Peer::Ending::kEnd) {
      strange_ += "the application's connection ended well after " + std::to_string(stranger->received()) +
                  " bytes, although every client says more\n";
    }
  }
  std::erase_if(strangers_, [](const auto& one) { return one == nullptr || one->over() || one->named(); });
}

bool Flows::step(milliseconds at_most) {
  std::vector<pollfd> fds;
  std::vector<Peer*> peers;
  const auto add = [&](const std::unique_ptr<Peer>& peer) {
    if (peer == nullptr || peer->over()) return;
    fds.push_back(peer->wants());
    peers.push_back(peer.get());
  };
  for (const Flow& flow : flows_) {
    add(flow.client);
    add(flow.application);
  }
  for (const auto& stranger : strangers_) add(stranger);
  for (const Fd& listener : ground_.applications()) fds.push_back({listener.get(), POLLIN, 0});
  if (::poll(fds.data(), fds.size(), static_cast<int>(at_most.count())) <= 0) return false;
  for (std::size_t i = 0; i < peers.size(); ++i) peers[i]->on_events(fds[i].revents);
  recognise();
  for (const Fd& listener : ground_.applications()) accept(listener);
  return true;
}

std::size_t Flows::running() const {
  return static_cast<std::size_t>(std::ranges::count_if(flows_, [](const Flow& flow) {
    return (flow.client && !flow.client->over()) || (flow.application && !flow.application->over());
  }));
}

bool Flows::over() const { return running() == 0 && strangers_.empty(); }

void Flows::disturb() {
  for (Flow& flow : flows_) {
    // Without an application it may still stand in a listener's queue, though its client has gone.
    const bool ended = flow.client && flow.client->over() && flow.application && flow.application->over();
    if (flow.client && !ended) flow.disturbed = true;
  }
}

bool Flows::run(const std::function<void(std::size_t)>& before) {
  const auto deadline = std::chrono::steady_clock::now() + stretched(kPatience);
  int idle = 0;
  for (std::size_t next = 0; next < flows_.size() || !over();) {
    if (idle > kLooks * stretched(kLook) / kLook || std::chrono::steady_clock::now() > deadline) return false;
    if (next < flows_.size() && running() < kAtOnce) {
      before(next);
      start(flows_[next++]);
      step(milliseconds(0));
    } else {
      idle = step(kLook) ? 0 : idle + 1;
    }
  }
  return true;
}

std::string Flows::describe() const {
  std::string text;
  for (const Flow& flow : flows_) text += flow.describe() + "\n";
  return text + strange_;
}

}  // namespace weft::test
