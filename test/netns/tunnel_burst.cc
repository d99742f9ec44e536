// SPDX-License-Identifier: Apache-2.0
#include "test/netns/tunnel_burst.h"

#include <sys/resource.h>
#include <unistd.h>

#include <list>
#include <memory>

#include "tunnel/base/sys.h"
#include "tunnel/hbone/pool.h"

namespace weft::test {
namespace {

constexpr int kLowest = 19;

class Burst final : private hbone::TunnelOwner {
 public:
  Burst(const hbone::CertificateBundle& bundle, std::string server, const TunnelBurst& options)
      : options_(options), server_(std::move(server)) {
    auto identity = hbone::TlsIdentity::create(bundle);
    if (!identity) throw TestError(identity.error().message());
    identity_ = std::move(*identity);
  }

  TunnelBurstResult run() {
    const auto until = loop_->now() + seconds(30);
    while (result_.opened + result_.failed < options_.tunnels && loop_->now() < until) {
      while (live_.size() < static_cast<std::size_t>(options_.at_once)) begin();
      loop_->run_once(milliseconds(10));
    }
    for (auto& tunnel : std::exchange(live_, {})) loop_->defer_delete(std::move(tunnel));
    loop_->run_once(milliseconds(0));
    return result_;
  }

 private:
  void begin() {
    auto fd = sys::socket(options_.gateway.address.is_v4() ? AF_INET : AF_INET6, SOCK_STREAM);
    if (!fd) throw TestError(fd.error().message());
    if (auto dialled = sys::connect(fd->get(), options_.gateway.to_sockaddr()); !dialled) {
      throw TestError(dialled.error().message());
    }
    auto tunnel = hbone::Tunnel::create(
        {*loop_, scratch_, budget_, kept_, Clock::real()}, *this, hbone::Tunnel::Side::kClient, std::move(*fd),
        identity_, [&](SSL* ssl) { hbone::expect_server(ssl, hbone::ExpectedPeer{{server_}}); }, seconds(10));
    if (!tunnel) throw TestError(tunnel.error().message());
    live_.push_back(std::move(*tunnel));
  }

  void on_tunnel_open(hbone::Tunnel& tunnel) override {
    ++result_.opened;
    // It has proven itself to the server only when the server has taken in what is to be sent now.
    tunnel.drain();
  }
  void on_tunnel_request(hbone::Tunnel& /*tunnel*/, std::int32_t /*id*/, const hbone::H2Headers& /*h*/) override {}
  void on_tunnel_bad_request(hbone::Tunnel& /*tunnel*/, std::string_view /*reason*/) override {}
  void on_tunnel_changed(hbone::Tunnel& /*tunnel*/) override {}
  void on_tunnel_closed(hbone::Tunnel& tunnel, hbone::TunnelPhase phase, const std::string& why) override {
    if (phase != hbone::TunnelPhase::kOpen && !why.empty()) {
      ++result_.failed;
      if (result_.first_failure.empty()) result_.first_failure = why;
    }
    for (auto it = live_.begin(); it != live_.end(); ++it) {
      if (it->get() != &tunnel) continue;
      loop_->defer_delete(std::move(*it));
      live_.erase(it);
      return;
    }
  }

  const TunnelBurst options_;
  const std::string server_;
  std::shared_ptr<const hbone::TlsIdentity> identity_;
  std::unique_ptr<loop::EventLoop> loop_ = std::move(*loop::EventLoop::create());
  hbone::Scratch scratch_;
  hbone::WindowBudget budget_{16U << 20};
  hbone::KeptBudget kept_{64U << 20};
  std::list<std::unique_ptr<hbone::Tunnel>> live_;
  TunnelBurstResult result_;
};

}  // namespace

TunnelBurstResult run_burst(const Netns& from, const hbone::CertificateBundle& bundle,
                            const std::string& server_identity, const TunnelBurst& burst) {
  return run_in(from, [&] {
    ::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kLowest);
    return Burst(bundle, server_identity, burst).run();
  });
}

}  // namespace weft::test
