// SPDX-License-Identifier: Apache-2.0
/// Mutations that keep HTTP/2's framing: blind ones seldom get past the lengths.
#include <algorithm>
#include <random>
#include <string>
#include <string_view>
#include <vector>

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t max_size);

namespace {

constexpr std::size_t kHead = 9;

/// The input cut into its script (h2_peer.h) and frames; what is no whole frame is the last part.
struct Parts {
  std::string script;
  std::vector<std::string> frames;
};

Parts parts_of(std::string_view input) {
  Parts parts;
  const std::size_t script = input.size() < 2 ? input.size() : 2 + (static_cast<std::uint8_t>(input[1]) & 15U);
  parts.script = input.substr(0, script);
  input.remove_prefix(std::min(script, input.size()));
  while (!input.empty()) {
    std::size_t length = input.size();
    if (input.size() >= kHead) {
      const auto byte = [&](std::size_t at) { return std::size_t{static_cast<std::uint8_t>(input[at])}; };
      length = std::min(length, kHead + (byte(0) << 16U | byte(1) << 8U | byte(2)));
    }
    parts.frames.emplace_back(input.substr(0, length));
    input.remove_prefix(length);
  }
  return parts;
}

std::string mutated(std::string text, std::size_t room) {
  const std::size_t before = text.size();
  text.resize(before + room);
  text.resize(LLVMFuzzerMutate(reinterpret_cast<std::uint8_t*>(text.data()), before, text.size()));
  return text;
}

void set_length(std::string& frame) {
  const std::size_t length = frame.size() - kHead;
  for (std::size_t i = 0; i < 3; ++i) frame[i] = static_cast<char>(length >> (16 - 8 * i));
}

}  // namespace

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  std::minstd_rand random(seed);
  const auto below = [&](std::size_t n) { return std::size_t{random()} % n; };
  Parts parts = parts_of({reinterpret_cast<const char*>(data), size});
  if (parts.frames.empty() || size >= max_size || below(4) == 0) return LLVMFuzzerMutate(data, size, max_size);
  const std::size_t room = std::min<std::size_t>(max_size - size, 64);
  auto chosen = parts.frames.begin() + static_cast<std::ptrdiff_t>(below(parts.frames.size()));
  switch (below(6)) {
    case 0:
      parts.script = mutated(parts.script, 0);
      break;
    case 1:
      parts.frames.insert(chosen, std::string(*chosen));
      break;
    case 2:
      std::swap(*chosen, parts.frames[below(parts.frames.size())]);
      break;
    case 3:
      parts.frames.erase(chosen);
      break;
    case 4:
      // Type, flags and stream.
      if (chosen->size() >= kHead) chosen->replace(3, 6, mutated(chosen->substr(3, 6), 0).append(6, '\0'), 0, 6);
      break;
    default:
      if (chosen->size() < kHead) break;
      *chosen = chosen->substr(0, kHead) + mutated(chosen->substr(kHead), room);
      set_length(*chosen);
  }
  std::string out = parts.script;
  for (const auto& frame : parts.frames) out += frame;
  out.resize(std::min(out.size(), max_size));
  std::copy(out.begin(), out.end(), data);
  return out.size();
}
