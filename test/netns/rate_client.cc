// SPDX-License-Identifier: Apache-2.0
#include "test/netns/rate_client.h"

#include <cstring>
#include <map>
#include <memory>

#include "tunnel/base/sys.h"
#include "tunnel/hbone/pool.h"

namespace weft::test {
namespace {

using std::chrono::duration;

class RateClient;

/// One connection: asks, reads the answer, ends.
class Asking final : public hbone::TunnelRequest, public hbone::StreamHandler {
 public:
  explicit Asking(RateClient& owner) : owner_(owner) {}
  void on_tunnel(hbone::Tunnel& tunnel) override;
  void on_no_tunnel(hbone::TunnelPhase /*phase*/, const std::string& why) override;
  void on_response(const hbone::H2Headers& headers) override;
  void on_data(std::span<const std::byte> data) override;
  void on_end() override {}
  void on_closed(std::uint32_t error_code) override;
  Chunk produce(std::span<std::byte> into) override;

 private:
  RateClient& owner_;
  hbone::Tunnel* tunnel_ = nullptr;
  std::int32_t id_ = 0;
  std::string status_, answer_;
  bool asked_ = false, answered_ = false;
};

class RateClient {
 public:
  RateClient(const hbone::CertificateBundle& bundle, std::string server, const RateOptions& options)
      : options_(options), loop_(std::move(*loop::EventLoop::create())), server_(std::move(server)) {
    auto identity = hbone::TlsIdentity::create(bundle);
    if (!identity) throw TestError(identity.error().message());
    identity_ = std::move(*identity);
  }

  RateResult run() {
    const auto started = loop_->now();
    const auto due = [&] {
      const double passed =
          duration<double>(std::min<SteadyTime::duration>(loop_->now() - started, options_.duration)).count();
      return static_cast<std::uint64_t>(passed * options_.per_second);
    };
    const auto deadline = started + options_.duration + seconds(20);
    while (loop_->now() < deadline && (loop_->now() - started < options_.duration || !live_.empty())) {
      while (begun_ < due() && live_.size() < static_cast<std::size_t>(options_.open_at_once)) begin();
      loop_->run_once(milliseconds(1));
      ended_.clear();
    }
    if (!live_.empty()) fail(std::to_string(live_.size()) + " connections did not end");
    result_.seconds = duration<double>(loop_->now() - started).count();
    return result_;
  }

  void ended(Asking& asking, bool answered, const std::string& how) {
    const auto node = live_.extract(&asking);
    if (node.empty()) return;
    if (answered) {
      ++result_.answered;
    } else {
      fail(how);
    }
    ended_.push_back(std::move(node.mapped()));
  }
  const RateOptions& options() const { return options_; }

 private:
  void begin() {
    ++begun_;
    auto asking = std::make_unique<Asking>(*this);
    Asking& added = *asking;
    live_.emplace(&added, std::move(asking));
    const hbone::PoolKey key{1, "server", options_.gateway, {server_}};
    pool_.request(
        key, identity_,
        [this]() -> Result<hbone::Dialled> {
          auto fd = sys::socket(options_.gateway.address.is_v4() ? AF_INET : AF_INET6, SOCK_STREAM);
          if (!fd) return Failure(fd.error());
          if (auto dialled = sys::connect(fd->get(), options_.gateway.to_sockaddr()); !dialled) {
            return Failure(dialled.error());
          }
          return hbone::Dialled{std::move(*fd)};
        },
        added);
  }
  void fail(const std::string& how) {
    ++result_.failed;
    if (result_.first_failure.empty()) result_.first_failure = how;
  }

  const RateOptions options_;
  std::unique_ptr<loop::EventLoop> loop_;
  hbone::Scratch scratch_;
  hbone::WindowBudget budget_{16U << 20};
  std::shared_ptr<const hbone::TlsIdentity> identity_;
  const std::string server_;
  std::map<Asking*, std::unique_ptr<Asking>> live_;
  std::vector<std::unique_ptr<Asking>> ended_;
  std::uint64_t begun_ = 0;
  RateResult result_;
  hbone::KeptBudget kept_{64U << 20};
  hbone::Pool pool_{{*loop_, scratch_, budget_, kept_, Clock::real()}, seconds(10), seconds(60)};
};

void Asking::on_tunnel(hbone::Tunnel& tunnel) {
  tunnel_ = &tunnel;
  hbone::H2Headers headers;
  headers.method = "CONNECT";
  headers.authority = owner_.options().application.to_string();
  auto id = tunnel.session().connect(headers, *this);
  if (!id) return owner_.ended(*this, false, id.error().message());
  id_ = *id;
}

void Asking::on_no_tunnel(hbone::TunnelPhase /*phase*/, const std::string& why) {
  owner_.ended(*this, false, "no tunnel: " + why);
}

void Asking::on_response(const hbone::H2Headers& headers) {
  status_ = headers.status;
  tunnel_->session().resume(id_);
}

void Asking::on_data(std::span<const std::byte> data) {
  answer_.append(reinterpret_cast<const char*>(data.data()), data.size());
  tunnel_->session().consume(id_, data.size());
  // The last line of the answer's body.
  if (!answered_ && answer_.find(" path=/") != std::string::npos && answer_.ends_with("\n")) {
    answered_ = true;
    if (owner_.options().client_closes_first) tunnel_->session().resume(id_);
  }
}

void Asking::on_closed(std::uint32_t error_code) {
  owner_.ended(*this, answered_ && error_code == 0,
               "status " + status_ + ", HTTP/2 error " + std::to_string(error_code) + ", " +
                   std::to_string(answer_.size()) + " bytes");
}

hbone::StreamHandler::Chunk Asking::produce(std::span<std::byte> into) {
  if (status_ != "200") return {};
  const bool keeps = owner_.options().client_closes_first;
  if (asked_) return {0, !keeps || answered_};
  asked_ = true;
  // To HTTP/1.0 the server closes when it has answered.
  const std::string request = std::string("GET /rate HTTP/") + (keeps ? "1.1" : "1.0") + "\r\n\r\n";
  std::memcpy(into.data(), request.data(), request.size());
  return {request.size(), false};
}

}  // namespace

RateResult run_at_rate(const Netns& from, const hbone::CertificateBundle& bundle, const std::string& server_identity,
                       const RateOptions& options) {
  return run_in(from, [&] { return RateClient(bundle, server_identity, options).run(); });
}

}  // namespace weft::test
