// SPDX-License-Identifier: Apache-2.0
#include "tunnel/proxy/dns_forward.h"

#include <sys/epoll.h>

#include "tunnel/base/sys.h"

namespace weft::proxy {
namespace {

/// Datagrams of the server that are no answer, which one question puts up with.
constexpr int kGarbageMax = 64;

}  // namespace

DnsForward::DnsForward(WorkerContext& worker, dns::Inquiry inquiry, Charge charge, Done done)
    : worker_(worker),
      inquiry_(std::move(inquiry)),
      charge_(std::move(charge)),
      done_(std::move(done)),
      started_(worker.loop.now()),
      timer_(worker.loop) {}

Result<void> DnsForward::start(const PodContext& pod, const IpAddress& source, const Endpoint& server,
                               std::span<const std::byte> message) {
  auto fd = udp_from_pod(worker_, pod, source, server);
  if (!fd) return Failure(fd.error());
  auto watcher = worker_.loop.watch(fd->get(), EPOLLIN, [this](std::uint32_t) { on_readable(); });
  if (!watcher) return Failure(watcher.error());
  id_ = dns::random_id();
  std::vector<std::byte> bytes(message.begin(), message.end());
  dns::set_id(bytes, id_);
  auto sent = sys::send(fd->get(), bytes);
  if (!sent) return Failure(sent.error());
  fd_ = std::move(*fd);
  watcher_ = std::move(*watcher);
  timer_.arm(worker_.config.dns_timeout, [this] { finish(Outcome::kSilent, {}); });
  return {};
}

void DnsForward::on_readable() {
  const auto buffer = worker_.scratch.network();
  while (garbage_ < kGarbageMax) {
    auto got = sys::recv(fd_.get(), buffer);
    if (!got) return finish(Outcome::kRefused, {});
    if (!got->has_value()) return;
    const auto message = buffer.first(**got);
    if (!dns::is_answer_to(message, inquiry_, id_)) {
      ++garbage_;
      continue;
    }
    dns::set_id(message, inquiry_.id);
    return finish(Outcome::kAnswered, message);
  }
  finish(Outcome::kRefused, {});
}

void DnsForward::finish(Outcome outcome, std::span<const std::byte> answer) {
  watcher_.reset();
  fd_.reset();
  charge_ = {};
  timer_.cancel();
  done_(*this, outcome, answer);
}

}  // namespace weft::proxy
