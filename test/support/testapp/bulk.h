// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

#include "test/support/testapp/net.h"

/// Byte-exact bulk transfer. The client opens with the line `BULK send=N receive=M seed=S rate=R`, then both sides send
/// at once: N bytes of the stream with seed S go to the server, M bytes of the stream with seed S+1 to the client. Each
/// side half-closes when its bytes are out, so whichever stream is shorter tests the half-close in its direction. Each
/// hashes what it received and compares it with the stream that it should be.
namespace weft::testapp {

struct BulkPlan {
  std::uint64_t send = 0;     ///< bytes from the client to the server
  std::uint64_t receive = 0;  ///< bytes from the server to the client
  std::uint64_t seed = 1;
  std::uint64_t client_rate = 0;  ///< bytes a second that the client reads; 0: as fast as they come
  std::uint64_t server_rate = 0;  ///< the same for the server

  [[nodiscard]] std::string header() const;  ///< the opening line, without its end
  static Result<BulkPlan> parse(const std::string& header);
};

struct BulkResult {
  Exit exit = Exit::kOk;
  std::string text;  ///< `sent=… sent_sha256=… received=… received_sha256=… verdict=exact|…`
};

/// Holds a reader to `rate` bytes a second (0: to nothing), in steps of about 1/50 s.
class Pace {
 public:
  explicit Pace(std::uint64_t rate) : rate_(rate) {}
  /// The most to read at once.
  [[nodiscard]] std::size_t portion() const;
  /// Until so many bytes may have been read in all.
  void wait_for(std::uint64_t bytes) const;

 private:
  std::uint64_t rate_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// Runs one side after the opening line was written or read.
BulkResult run_bulk(Stream& stream, const BulkPlan& plan, bool is_client);

}  // namespace weft::testapp
