// SPDX-License-Identifier: Apache-2.0
#include "test/fuzz/h2_peer.h"

#include <algorithm>
#include <cstring>

#include "test/fuzz/fuzz.h"

namespace weft::fuzz {

using hbone::H2Headers;
using hbone::H2Session;
using hbone::StreamHandler;

namespace {

using namespace std::string_view_literals;

constexpr std::size_t kBudget = 4U << 20;
constexpr std::size_t kFrameHeader = 9;
/// SETTINGS without an entry.
constexpr std::string_view kServerPreface = "\0\0\0\4\0\0\0\0\0"sv;
constexpr std::string_view kClientPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"sv;
/// What one turn may send of itself: PING, GOAWAY, an answer, RST_STREAM, WINDOW_UPDATE.
constexpr std::size_t kTurnBytes = 256;
/// A frame of 9 bytes is answered by one of 17 at most, and a request by a status and a reset.
constexpr std::size_t kAmplification = 4;

hbone::Scratch& scratch() {
  static hbone::Scratch one;
  return one;
}

class Wire final : public hbone::FrameSink {
 public:
  Result<void> write(std::span<const std::byte> bytes) override {
    data.insert(data.end(), bytes.begin(), bytes.end());
    return {};
  }
  /// A socket that takes its time: no more than this at once.
  [[nodiscard]] bool blocked() const override { return data.size() > (256U << 10); }
  std::vector<std::byte> data;
};

}  // namespace

/// One end of a CONNECT; how it behaves follows from the number that it is made with.
class H2Owner::Stream final : public StreamHandler {
 public:
  explicit Stream(std::uint32_t nature) : nature_(nature), to_send_(nature % 5 * 20'000) {}

  void on_response(const H2Headers& headers) override {
    require(live, "a stream that is over hears nothing");
    require(!headers.status.empty(), "an answer has a status");
  }
  void on_data(std::span<const std::byte> data) override {
    require(live && !ended_, "payload comes while the peer's half is open");
    unread += data.size();
    require(unread <= hbone::kMaxStreamWindow, "no more comes than the window lets through");
  }
  void on_end() override {
    require(live && !ended_, "the peer's half ends once");
    ended_ = true;
  }
  void on_closed(std::uint32_t /*error_code*/) override {
    require(live, "a stream ends once");
    live = false;
  }
  Chunk produce(std::span<std::byte> into) override {
    require(live, "a stream that is over gives nothing");
    const std::size_t n = std::min(into.size(), to_send_);
    std::memset(into.data(), 'x', n);
    to_send_ -= n;
    produced += n;
    return {n, to_send_ == 0 && nature_ % 2 == 1};
  }
  void more() { to_send_ += 1000; }

  [[nodiscard]] bool reads() const { return nature_ % 3 != 0; }

  std::size_t unread = 0, produced = 0;
  bool live = true;  ///< the session has it
  bool answered = false;

 private:
  std::uint32_t nature_;
  std::size_t to_send_;
  bool ended_ = false;
};

H2Owner::H2Owner(H2Session::Side side)
    : side_(side),
      budget_(kBudget),
      session_(std::move(H2Session::create(side, *this, scratch(), budget_, clock_).value())) {}

H2Owner::~H2Owner() {
  session_.reset();
  for (const auto& [id, stream] : streams_) require(!stream->live, "a session tells its streams that it ends");
  require(budget_.take(kBudget), "windows go back to the budget");
}

void H2Owner::run(std::string_view input) {
  const std::size_t piece = take_byte(input);
  const std::uint8_t count = take_byte(input);
  const std::string_view actions = input.substr(0, count & 15U);
  input.remove_prefix(actions.size());
  if (side_ == H2Session::Side::kClient) {
    for (int i = 0; i < 3; ++i) connect();
  }
  send();
  if ((count & 128U) == 0 && !take_in(side_ == H2Session::Side::kServer ? kClientPreface : kServerPreface)) return;
  for (std::size_t turn = 0; !input.empty(); ++turn) {
    const std::string_view part = input.substr(0, piece == 0 ? input.size() : piece);
    input.remove_prefix(part.size());
    if (!take_in(part)) return;
    if (!actions.empty()) act(static_cast<std::uint8_t>(actions[turn % actions.size()]));
    send();
    if (session_->finished()) return;
  }
}

/// False where the session is over.
bool H2Owner::take_in(std::string_view piece) {
  in_ += piece.size();
  const auto received = session_->receive(std::as_bytes(std::span(piece)));
  require(received || !session_->violation().empty(), "a session that fails says what the peer did");
  if (!received) {
    require_error(received.error(), "HTTP/2 from the peer");
    send();
    return false;
  }
  require(session_->open_streams() <= 2 * hbone::kServerMaxStreams, "open streams are limited");
  for (const std::int32_t id : std::exchange(arrived_, {})) {
    if (Stream* stream = streams_.contains(id) ? streams_[id].get() : nullptr; stream != nullptr && stream->live) {
      answer(id, *stream);
    }
  }
  for (auto& [id, stream] : streams_) {
    if (stream->live && stream->reads()) session_->consume(id, std::exchange(stream->unread, 0));
  }
  send();
  return true;
}

void H2Owner::send() {
  Wire wire;
  if (auto sent = session_->send(wire); !sent) require_error(sent.error(), "HTTP/2 to the peer");
  check_output(wire.data);
}

/// Whole frames, of sizes that every peer takes, and no more of them than the input asks for.
void H2Owner::check_output(std::span<const std::byte> bytes) {
  unparsed_.insert(unparsed_.end(), bytes.begin(), bytes.end());
  constexpr std::string_view kMagic = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  std::size_t at = 0;
  if (side_ == H2Session::Side::kClient && out_ == 0 && unparsed_.size() >= kMagic.size()) at = kMagic.size();
  const auto number = [&](std::size_t where) { return std::to_integer<std::size_t>(unparsed_[where]); };
  while (unparsed_.size() - at >= kFrameHeader) {
    const std::size_t length = number(at) << 16U | number(at + 1) << 8U | number(at + 2);
    const std::size_t type = number(at + 3);
    require(length <= hbone::kMaxFrame && type <= NGHTTP2_CONTINUATION, "a frame of ours is one of HTTP/2's");
    if (unparsed_.size() - at < kFrameHeader + length) break;
    if (type == NGHTTP2_DATA)
      payload_ += length;
    else
      out_ += kFrameHeader + length;
    at += kFrameHeader + length;
  }
  unparsed_.erase(unparsed_.begin(), unparsed_.begin() + static_cast<std::ptrdiff_t>(at));
  std::size_t produced = 0;
  for (const auto& [id, stream] : streams_) produced += stream->produced;
  require(payload_ <= produced, "no more payload is sent than there is");
  require(out_ <= 4096 + kAmplification * in_ + kTurnBytes * actions_, "what is sent stays in proportion",
          std::to_string(out_) + " bytes for " + std::to_string(in_));
}

void H2Owner::on_request(std::int32_t stream_id, const H2Headers& headers) {
  require(side_ == H2Session::Side::kServer, "requests come to servers");
  const std::size_t bytes = headers.method.size() + headers.authority.size() + headers.status.size() +
                            headers.baggage.size() + headers.forwarded.size() + headers.traceparent.size();
  require(bytes <= hbone::kServerHeaderList, "a header list is limited");
  require(!streams_.contains(stream_id), "a request comes once");
  // As the authority ends, so it is treated.
  const std::uint32_t nature = headers.authority.empty() ? 0 : static_cast<std::uint8_t>(headers.authority.back());
  const auto made = streams_.emplace(stream_id, std::make_unique<Stream>(nature)).first;
  if (nature % 7 == 0) return session_->refuse(stream_id, 400), let_go(*made->second);
  session_->attach(stream_id, *made->second);
  if (nature % 7 != 1) arrived_.push_back(stream_id);
}

void H2Owner::on_bad_request(std::string_view reason) { require_text(reason, "header list"); }

void H2Owner::answer(std::int32_t stream_id, Stream& stream) {
  if (stream.answered) return;
  H2Headers headers;
  headers.status = "200";
  headers.baggage = "k8s.namespace.name=shop";
  stream.answered = session_->accept(stream_id, headers).has_value();
  ++actions_;
}

/// The session calls it no more.
void H2Owner::let_go(Stream& stream) { stream.live = false; }

void H2Owner::connect() {
  if (side_ != H2Session::Side::kClient || !session_->accepts_new_streams() ||
      session_->open_streams() >= session_->max_streams()) {
    return;
  }
  H2Headers headers;
  headers.method = "CONNECT";
  headers.authority = "10.0.0.1:80";
  headers.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  auto stream = std::make_unique<Stream>(static_cast<std::uint32_t>(streams_.size() + 1));
  const auto id = session_->connect(headers, *stream);
  require(id.has_value(), "a session that takes streams takes one");
  stream->answered = true;
  ++actions_;
  streams_[*id] = std::move(stream);
}

H2Owner::Stream* H2Owner::pick(std::uint8_t number) {
  std::vector<Stream*> live;
  for (auto& [id, stream] : streams_) {
    if (stream->live) live.push_back(stream.get());
  }
  return live.empty() ? nullptr : live[number % live.size()];
}

/// The low four bits say what, the high ones to which stream.
void H2Owner::act(std::uint8_t action) {
  ++actions_;
  Stream* stream = pick(action >> 4U);
  const auto found = std::ranges::find_if(streams_, [&](const auto& entry) { return entry.second.get() == stream; });
  const std::int32_t id = found == streams_.end() ? 0 : found->first;
  switch (action & 15U) {
    case 0:
      return clock_.advance(milliseconds(20));
    case 1:
      return clock_.advance(seconds(2));
    case 2:
      return session_->ping();
    case 3:
      if (side_ == H2Session::Side::kServer) session_->shutdown_notice();
      return;
    case 4:
      return session_->goaway();
    case 5:
      return connect();
    default:
      break;
  }
  if (stream == nullptr) return;
  switch (action & 15U) {
    case 6:
      session_->reset(id, NGHTTP2_CANCEL);
      return let_go(*stream);
    case 7:
      if (side_ == H2Session::Side::kServer && !stream->answered) session_->refuse(id, 503), let_go(*stream);
      return;
    case 8:
      if (side_ == H2Session::Side::kServer) answer(id, *stream);
      return;
    case 9:
      stream->more();
      return session_->resume(id);
    default:
      return session_->consume(id, std::exchange(stream->unread, 0));
  }
}

}  // namespace weft::fuzz
