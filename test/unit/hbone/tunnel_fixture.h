// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "test/support/test_ca.h"
#include "tunnel/base/sys.h"
#include "tunnel/hbone/pool.h"
#include "tunnel/hbone/tunnel.h"

/// A pool of client tunnels, and a server that echoes, in one thread.
namespace weft::hbone {

inline const state::Identity kAlice{"cluster.local", "a", "alice"};
inline const state::Identity kBob{"cluster.local", "b", "bob"};

/// Accepts every CONNECT and sends back what comes.
class Echo : public StreamHandler {
 public:
  Echo(H2Session& session, std::int32_t id) : session_(session), id_(id) {}
  void on_response(const H2Headers&) override {}
  void on_data(std::span<const std::byte> data) override {
    waiting_.append(data);
    session_.resume(id_);
  }
  void on_end() override {
    ended_ = true;
    session_.resume(id_);
  }
  void on_closed(std::uint32_t) override {}
  Chunk produce(std::span<std::byte> into) override {
    const std::size_t n = std::min(into.size(), waiting_.size());
    if (n > 0) {
      std::memcpy(into.data(), waiting_.view().data(), n);
      waiting_.consume(n);
      session_.consume(id_, n);
    }
    return {n, ended_ && waiting_.empty()};
  }

 private:
  H2Session& session_;
  std::int32_t id_;
  loop::Buffer waiting_;
  bool ended_ = false;
};

class Server : public TunnelOwner {
 public:
  void on_tunnel_open(Tunnel&) override { ++opened; }
  void on_tunnel_request(Tunnel& t, std::int32_t id, const H2Headers& headers) override {
    authorities.push_back(headers.authority);
    echoes.push_back(std::make_unique<Echo>(t.session(), id));
    t.session().attach(id, *echoes.back());
    H2Headers ok;
    ok.status = "200";
    EXPECT_TRUE(t.session().accept(id, ok));
  }
  void on_tunnel_bad_request(Tunnel&, std::string_view) override {}
  void on_tunnel_changed(Tunnel&) override {}
  void on_tunnel_closed(Tunnel&, TunnelPhase, const std::string& why) override { closed.push_back(why); }
  int opened = 0;
  std::vector<std::string> authorities, closed;
  std::vector<std::unique_ptr<Echo>> echoes;
};

/// A client of the pool: opens a stream, sends, collects.
class Client : public TunnelRequest, public StreamHandler {
 public:
  void on_tunnel(Tunnel& t) override {
    tunnel = &t;
    H2Headers headers;
    headers.method = "CONNECT";
    headers.authority = "127.0.0.1:80";
    id = *t.session().connect(headers, *this);
  }
  void on_no_tunnel(TunnelPhase p, const std::string& why) override {
    phase = p;
    failure = why;
  }
  void on_response(const H2Headers& headers) override { status = headers.status; }
  void on_data(std::span<const std::byte> data) override {
    received += data.size();
    tunnel->session().consume(id, data.size());
  }
  void on_end() override { ended = true; }
  void on_closed(std::uint32_t code) override { closed = code; }
  Chunk produce(std::span<std::byte> into) override {
    const std::size_t n = std::min(into.size(), to_send);
    std::memset(into.data(), 'x', n);
    to_send -= n;
    return {n, to_send == 0};
  }
  Tunnel* tunnel = nullptr;
  std::int32_t id = 0;
  std::string status, failure;
  std::optional<TunnelPhase> phase;
  std::optional<std::uint32_t> closed;
  std::size_t to_send = 0, received = 0;
  bool ended = false;
};

class TunnelTest : public testing::Test {
 protected:
  void SetUp() override {
    listener = std::move(*sys::socket(AF_INET, SOCK_STREAM));
    ASSERT_TRUE(sys::bind(listener.get(), Endpoint{*IpAddress::parse("127.0.0.1"), 0}.to_sockaddr()));
    ASSERT_TRUE(sys::listen(listener.get(), 64));
    at = *sys::local_endpoint(listener.get());
    alice = std::move(*TlsIdentity::create(ca.issue(kAlice)));
    bob = std::move(*TlsIdentity::create(ca.issue(kBob)));
    watcher = std::move(*loop->watch(
        listener.get(), EPOLLIN, [this](std::uint32_t) { accept(); }, true));
  }
  void TearDown() override {
    pool.reset();
    for (auto& t : served) t.reset();
    loop->run_once(milliseconds(0));
  }
  void accept() {
    auto accepted = sys::accept(listener.get());
    if (!accepted || !accepted->has_value()) return;
    served.push_back(std::move(*Tunnel::create(
        context, server, Tunnel::Side::kServer, std::move((*accepted)->fd), bob,
        [](SSL* ssl) { expect_client(ssl, "cluster.local"); }, seconds(5))));
  }
  PoolKey key(const std::string& expected = kBob.to_uri()) const { return {1, "bob", at, {expected}}; }
  void request(Client& client, const PoolKey& k) {
    pool->request(
        k, alice,
        [this]() -> Result<Dialled> {
          ++dials;
          if (dial_error) return Failure(*dial_error);
          auto fd = sys::socket(AF_INET, SOCK_STREAM);
          if (auto connecting = sys::connect(fd->get(), at.to_sockaddr()); !connecting) {
            return Failure(connecting.error());
          }
          return Dialled{std::move(*fd), nullptr, held};
        },
        client);
  }
  void run_until(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + seconds(20);
    while (!condition() && std::chrono::steady_clock::now() < deadline) loop->run_once(milliseconds(100));
    EXPECT_TRUE(condition()) << "within 20 s";
  }

  test::TestCa ca;
  std::unique_ptr<loop::EventLoop> loop = std::move(*loop::EventLoop::create());
  Scratch scratch;
  WindowBudget budget{16U << 20};
  KeptBudget kept{64U << 20};
  TunnelContext context{*loop, scratch, budget, kept, Clock::real()};
  std::shared_ptr<const TlsIdentity> alice, bob;
  Fd listener;
  Endpoint at;
  Server server;
  std::vector<std::unique_ptr<Tunnel>> served;
  std::unique_ptr<Pool> pool = std::make_unique<Pool>(context, milliseconds(5000), milliseconds(300));
  loop::Watcher watcher;
  int dials = 0;
  std::optional<Error> dial_error;
  std::shared_ptr<int> held;  ///< what a tunnel keeps
};

}  // namespace weft::hbone
