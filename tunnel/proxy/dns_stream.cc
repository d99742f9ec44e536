// SPDX-License-Identifier: Apache-2.0
#include "tunnel/proxy/dns_stream.h"

#include <algorithm>
#include <utility>

#include "tunnel/base/log.h"
#include "tunnel/base/sys.h"
#include "tunnel/proxy/outbound.h"

namespace weft::proxy {
namespace {

constexpr std::size_t kLengthBytes = 2;  ///< in front of each message
/// Questions taken in one go.
constexpr int kTakenInOneGo = 8;
/// What a client may leave unread before it is not read from any more.
constexpr std::size_t kKeptMax = 256U << 10;
constexpr std::uint16_t kIncrementalTransfer = 251, kTransfer = 252;

/// One that has ended may still be on the call stack.
struct SpentSocket final : loop::Deferred {
  explicit SpentSocket(std::unique_ptr<AppSocket> one) : socket(std::move(one)) {}
  std::unique_ptr<AppSocket> socket;
};

std::vector<std::byte> framed(std::span<const std::byte> message) {
  std::vector<std::byte> out(kLengthBytes + message.size());
  out[0] = static_cast<std::byte>(message.size() >> 8U);
  out[1] = static_cast<std::byte>(message.size() & 0xffU);
  std::ranges::copy(message, out.begin() + kLengthBytes);
  return out;
}

}  // namespace

bool DnsStream::Side::next(std::vector<std::byte>& message) {
  const auto rest = std::span<const std::byte>(received).subspan(taken);
  const std::size_t length = rest.size() < kLengthBytes ? 0
                                                        : (std::to_integer<std::size_t>(rest[0]) << 8U) |
                                                              std::to_integer<std::size_t>(rest[1]);
  if (rest.size() < kLengthBytes || rest.size() < kLengthBytes + length) {
    received.erase(received.begin(), received.begin() + static_cast<std::ptrdiff_t>(taken));
    taken = 0;
    return false;
  }
  const auto found = rest.subspan(kLengthBytes, length);
  message.assign(found.begin(), found.end());
  taken += kLengthBytes + length;
  return true;
}

DnsStream::DnsStream(WorkerContext& worker, std::shared_ptr<const PodContext> pod, std::shared_ptr<PodState> state,
                     const Endpoint& client, const Endpoint& server, Charge charge, Ended ended)
    : worker_(worker),
      pod_(std::move(pod)),
      state_(std::move(state)),
      client_end_(client),
      server_end_(server),
      charge_(std::move(charge)),
      ended_call_(std::move(ended)),
      counted_(worker.metrics.socket(telemetry::Reporter::kSource)),
      client_(*this, &DnsStream::read_client, &DnsStream::read_server, &DnsStream::end),
      server_(*this, &DnsStream::read_server, &DnsStream::on_server_flushed, &DnsStream::on_server_lost),
      last_(worker.loop.now()),
      timer_(worker.loop) {}

DnsStream::~DnsStream() {
  client_.socket->close(true);
  server_.socket->close(false);
}

void DnsStream::start(Fd accepted) {
  charge_.resize(1);
  if (auto opened = client_.socket->open(worker_.loop, std::move(accepted), false, client_); !opened) return end();
  timer_.arm(kIdle, [this] { on_timer(); });
  read_client();
}

void DnsStream::on_snapshot() { read_client(); }

DnsStream::Input DnsStream::fill(Side& side, std::span<std::byte> scratch) {
  auto got = side.socket->read(scratch.first(std::min(scratch.size(), loop::kLightQuantum)));
  if (!got || got->end) return Input::kEnd;
  if (got->bytes == 0) return Input::kNone;
  const auto bytes = scratch.first(got->bytes);
  side.received.insert(side.received.end(), bytes.begin(), bytes.end());
  return Input::kSome;
}

bool DnsStream::may_take_more() const {
  return !ended_ && worker_.state != nullptr && pending_.size() < kPendingMax && client_.socket->kept() < kKeptMax;
}

void DnsStream::read_client() {
  // There may be more: it is its turn again after the others.
  if (read_some()) go_on_.queue(worker_.loop, [this] { read_client(); });
}

/// True where it stopped for the others' sake.
bool DnsStream::read_some() {
  std::vector<std::byte> message;
  for (int i = 0; may_take_more();) {
    if (client_.next(message)) {
      on_message(message);
      if (++i == kTakenInOneGo) return !ended_;
      continue;
    }
    if (client_ended_) break;
    const Input input = fill(client_, worker_.scratch.plain());
    if (input == Input::kNone) break;
    client_ended_ = input == Input::kEnd;
  }
  end_if_done();
  return false;
}

void DnsStream::on_message(std::span<const std::byte> message) {
  last_ = worker_.loop.now();
  auto verdict = judge_question(worker_, *pod_, message, DnsTransport::kTcp);
  switch (verdict.kind) {
    case DnsVerdict::Kind::kDrop:
      // What speaks no DNS does not begin to.
      return end();
    case DnsVerdict::Kind::kAnswer:
      return answer(verdict.answer);
    case DnsVerdict::Kind::kForward:
      return forward(std::move(verdict), message);
  }
}

void DnsStream::forward(DnsVerdict verdict, std::span<const std::byte> message) {
  auto sent = server_.socket->is_open() ? Result<void>() : open_server();
  if (sent) {
    auto written = server_.socket->write(framed(message));
    if (!written) sent = Failure(written.error());
  }
  if (!sent) {
    telemetry::DnsMetrics::failed(*verdict.metrics);
    log::debug("DNS question not forwarded pod={}/{} server={} error={}", pod_->namespace_name, pod_->name,
               server_end_.to_string(), log::quote(sent.error().message()));
    return answer(dns::write_failure(verdict.inquiry, dns::ResponseCode::kServerFailure));
  }
  telemetry::DnsMetrics::forwarded(*verdict.metrics);
  const bool transfer = verdict.inquiry.type == kTransfer || verdict.inquiry.type == kIncrementalTransfer;
  pending_.push_back({std::move(verdict.inquiry), verdict.metrics, worker_.loop.now(), transfer, false});
  if (pending_.size() == 1) timer_.arm(worker_.config.dns_timeout, [this] { on_timer(); });
}

Result<void> DnsStream::open_server() {
  Admission admission = worker_.limits->admit(state_->use, 2);
  if (admission.refused != Shed::kNone) {
    return fail(ErrorCode::kOverLimit, worker_.limits->why(admission.refused, *state_->use));
  }
  auto pair = sys::stream_pair();
  if (!pair) return Failure(pair.error());
  charge_.resize(2);
  server_.received.clear();
  server_.taken = 0;
  worker_.loop.defer_delete(
      std::make_unique<SpentSocket>(std::exchange(server_.socket, std::make_unique<AppSocket>())));
  if (auto opened = server_.socket->open(worker_.loop, std::move(pair->a), false, server_); !opened) return opened;
  auto& added = worker_.connections.add(std::make_unique<Outbound>(worker_, pod_, std::move(pair->b), client_end_,
                                                                   server_end_, std::move(admission.charge)));
  static_cast<Outbound&>(added).start();
  return {};
}

/// And then goes on with the client. Also when that one has taken what it was slow to read.
void DnsStream::read_server() {
  std::vector<std::byte> message;
  for (;;) {
    while (server_.next(message)) {
      on_answer(message);
      if (ended_) return;
    }
    // Who transfers a zone and does not read it waits for himself.
    if (client_.socket->kept() >= kKeptMax) return;
    const Input input = fill(server_, worker_.scratch.plain());
    if (input == Input::kNone) break;
    if (input == Input::kEnd) return on_server_lost();
  }
  // There may be room for more questions.
  read_client();
}

void DnsStream::on_answer(std::span<const std::byte> message) {
  const auto asked = std::ranges::find_if(pending_, [&](const Pending& pending) {
    // The messages of a transfer but its first have no question.
    const bool goes_on = pending.transfer && pending.answered && dns::id_of(message) == pending.inquiry.id;
    return goes_on || dns::is_answer_to(message, pending.inquiry, pending.inquiry.id);
  });
  if (asked == pending_.end()) return;
  last_ = worker_.loop.now();
  if (!asked->answered) telemetry::DnsMetrics::answered(*asked->metrics, last_ - asked->started);
  asked->answered = true;
  asked->started = last_;
  if (!asked->transfer) pending_.erase(asked);
  answer(message);
}

/// The next question finds a new one.
void DnsStream::on_server_lost() {
  server_.socket->close(false);
  fail_pending([](const Pending&) { return true; });
  if (!ended_) read_client();
}

void DnsStream::fail_pending(const std::function<bool(const Pending&)>& which) {
  std::vector<std::vector<std::byte>> answers;
  for (auto it = pending_.begin(); it != pending_.end();) {
    if (!which(*it)) {
      ++it;
      continue;
    }
    if (!it->answered) {
      telemetry::DnsMetrics::failed(*it->metrics);
      answers.push_back(dns::write_failure(it->inquiry, dns::ResponseCode::kServerFailure));
    }
    it = pending_.erase(it);
  }
  for (const auto& one : answers) answer(one);
}

void DnsStream::answer(std::span<const std::byte> message) {
  if (ended_ || message.empty()) return;
  if (auto written = client_.socket->write(framed(message)); !written) end();
}

void DnsStream::on_server_flushed() {}

void DnsStream::on_timer() {
  const auto now = worker_.loop.now();
  fail_pending([&](const Pending& pending) { return now - pending.started >= worker_.config.dns_timeout; });
  if (ended_) return;
  if (pending_.empty() && now - last_ >= kIdle) return end();
  milliseconds wait = kIdle;
  for (const Pending& pending : pending_) {
    wait = std::min(wait, std::chrono::ceil<milliseconds>(pending.started + worker_.config.dns_timeout - now));
  }
  if (pending_.empty()) wait = std::chrono::ceil<milliseconds>(last_ + kIdle - now);
  timer_.arm(std::max(wait, milliseconds(1)), [this] { on_timer(); });
  read_client();
}

void DnsStream::end_if_done() {
  if (client_ended_ && worker_.state != nullptr && pending_.empty() && client_.socket->kept() == 0) end();
}

void DnsStream::end() {
  if (ended_) return;
  ended_ = true;
  timer_.cancel();
  go_on_.cancel();
  // FIN where everything was said, a reset where something is left.
  client_.socket->close(!client_ended_ && last_ + kIdle > worker_.loop.now());
  server_.socket->close(false);
  counted_.reset();
  charge_ = {};
  ended_call_(*this);
}

}  // namespace weft::proxy
