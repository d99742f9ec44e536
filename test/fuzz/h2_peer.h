// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string_view>
#include <vector>

#include "tunnel/hbone/h2_session.h"

namespace weft::fuzz {

/// One end of a session whose peer is the input, and what owns it: takes requests, carries payload, and does what
/// an agent may do at any time. Checks what H2Session promises its owner.
///
/// An input is `PIECE COUNT ACTION… BYTES…`: BYTES come in pieces of PIECE bytes (0: at once); after each the next of
/// the COUNT actions is done. Where COUNT has its highest bit set, the bytes are taken as they are; without it, the
/// peer's preface comes before them.
class H2Owner final : public hbone::SessionEvents {
 public:
  explicit H2Owner(hbone::H2Session::Side side);
  ~H2Owner() override;
  H2Owner(const H2Owner&) = delete;
  H2Owner& operator=(const H2Owner&) = delete;

  void run(std::string_view input);

  void on_request(std::int32_t stream_id, const hbone::H2Headers& headers) override;
  void on_bad_request(std::string_view reason) override;
  void on_goaway() override {}
  void on_pong() override {}
  void on_drained() override {}
  void on_stream_closed() override {}
  void on_want_send() override {}

 private:
  class Stream;
  bool take_in(std::string_view piece);
  void send();
  void act(std::uint8_t action);
  void connect();
  void answer(std::int32_t stream_id, Stream& stream);
  void let_go(Stream& stream);
  void check_output(std::span<const std::byte> bytes);
  Stream* pick(std::uint8_t number);

  const hbone::H2Session::Side side_;
  FakeClock clock_;
  hbone::WindowBudget budget_;
  std::map<std::int32_t, std::unique_ptr<Stream>> streams_;
  std::vector<std::int32_t> arrived_;  ///< requests that came in this turn
  std::size_t in_ = 0, out_ = 0, payload_ = 0, actions_ = 0;
  std::vector<std::byte> unparsed_;
  std::unique_ptr<hbone::H2Session> session_;
};

}  // namespace weft::fuzz
