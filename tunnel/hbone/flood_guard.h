// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nghttp2/nghttp2.h>

#include <cstddef>
#include <string_view>

#include "tunnel/base/clock.h"
#include "tunnel/base/rate_limit.h"

namespace weft::hbone {

/// Judges what an HTTP/2 peer does without carrying anything: frames that cost this side work and bring no payload,
/// requests that end before they are answered, header lists that are too long. The limits are far above what honest
/// peers do: one PING in 10 s, one SETTINGS, a WINDOW_UPDATE for some frames of DATA. Each method gives the violation
/// ("frame_flood", "reset_flood", "header_flood"), or an empty text. One thread.
class FloodGuard {
 public:
  FloodGuard(const Clock& clock, std::size_t header_list_bytes) : clock_(clock), header_list_(header_list_bytes) {}

  /// The head of a frame arrived. A header block that is longer than any list may be is not unpacked.
  [[nodiscard]] std::string_view frame_begins(const nghttp2_frame_hd& head);
  /// A frame of a type that HTTP/2 does not know arrived.
  [[nodiscard]] std::string_view unknown_frame();
  /// A whole frame arrived.
  [[nodiscard]] std::string_view frame_arrived(const nghttp2_frame& frame);
  /// A request that is not answered yet, and came at `since`, was taken back.
  [[nodiscard]] std::string_view taken_back(SteadyTime since);
  /// A frame that no stream may carry: its stream is reset.
  [[nodiscard]] std::string_view invalid_frame();
  [[nodiscard]] std::string_view header_list_too_long();
  /// This side sent payload, for which the peer owes WINDOW_UPDATEs.
  void data_sent() { window_updates_.give(kUpdatesPerData); }

 private:
  static constexpr double kUpdatesPerData = 10;

  const Clock& clock_;
  std::size_t header_list_;
  std::size_t header_block_ = 0;  ///< bytes of the block that is arriving
  RateLimit idle_frames_{1000, 100};
  RateLimit window_updates_{10'000, 1000};
  RateLimit early_resets_{200, 100};
  RateLimit invalid_frames_{1000, 100};
  RateLimit long_lists_{10, 1};
};

}  // namespace weft::hbone
