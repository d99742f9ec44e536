// SPDX-License-Identifier: Apache-2.0
#include "tunnel/hbone/flood_guard.h"

namespace weft::hbone {
namespace {

constexpr std::string_view kFrames = "frame_flood", kResets = "reset_flood", kHeaders = "header_flood";
/// Padding, a priority, and what HPACK says beside the fields.
constexpr std::size_t kBesideFields = 512;
/// Whoever waited so long for an answer may have given up on it; the streams that may be open bound how often.
constexpr milliseconds kRapid{50};

}  // namespace

std::string_view FloodGuard::frame_begins(const nghttp2_frame_hd& head) {
  if (head.type != NGHTTP2_HEADERS && head.type != NGHTTP2_CONTINUATION) return "";
  // A field takes less in the block than the 32 bytes and its text that it counts in the list (RFC 9113, 6.5.2).
  header_block_ = head.length + (head.type == NGHTTP2_HEADERS ? 0 : header_block_);
  return header_block_ > header_list_ + kBesideFields ? kHeaders : "";
}

std::string_view FloodGuard::unknown_frame() { return idle_frames_.take(clock_.now()) ? "" : kFrames; }

std::string_view FloodGuard::frame_arrived(const nghttp2_frame& frame) {
  const nghttp2_frame_hd& head = frame.hd;
  const bool is_ack = (head.flags & NGHTTP2_FLAG_ACK) != 0;
  switch (head.type) {
    case NGHTTP2_WINDOW_UPDATE:
      return window_updates_.take(clock_.now()) ? "" : kFrames;
    case NGHTTP2_DATA:
      if (head.length > frame.data.padlen || (head.flags & NGHTTP2_FLAG_END_STREAM) != 0) return "";
      break;
    case NGHTTP2_PING:
    case NGHTTP2_SETTINGS:
      if (is_ack) return "";
      break;
    case NGHTTP2_PRIORITY:
      break;
    default:
      return "";
  }
  return idle_frames_.take(clock_.now()) ? "" : kFrames;
}

std::string_view FloodGuard::taken_back(SteadyTime since) {
  const SteadyTime now = clock_.now();
  return now - since >= kRapid || early_resets_.take(now) ? "" : kResets;
}

std::string_view FloodGuard::invalid_frame() { return invalid_frames_.take(clock_.now()) ? "" : kResets; }

std::string_view FloodGuard::header_list_too_long() { return long_lists_.take(clock_.now()) ? "" : kHeaders; }

}  // namespace weft::hbone
