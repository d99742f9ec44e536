// SPDX-License-Identifier: Apache-2.0
/// `forwarded` and `traceparent`, of which a peer writes what it likes.
#include "tunnel/hbone/headers.h"

#include <algorithm>

#include "test/fuzz/fuzz.h"

namespace weft::fuzz {
namespace {

/// A reader takes no longer header than this.
constexpr std::size_t kReadable = 8192;

std::string printable_of(std::string_view text) {
  std::string out(text);
  std::erase_if(out, [](char c) { return c < ' ' || c > '~'; });
  return out;
}

void written_again(const Endpoint& source, std::string_view host) {
  const std::string header = hbone::forwarded(source, host);
  require(is_printable(header), "forwarded can stand in a header", header);
  require(header.size() <= 2 * host.size() + 80, "forwarded stays in proportion", header);
  if (header.size() > kReadable) return;
  require(hbone::parse_forwarded(header) == source, "forwarded gives its source back", header);
  require(hbone::forwarded_host(header) == printable_of(host), "forwarded gives its host back", header);
}

void forwarded(std::string_view input) {
  const auto source = hbone::parse_forwarded(input);
  require(!source || (source->address.valid() && source->port != 0), "a source is address and port", input);
  const std::string host = hbone::forwarded_host(input);
  require(host.size() <= input.size(), "a host is part of the header", input);
  const Endpoint other{IpAddress::parse("2001:db8::1").value(), 65535};
  written_again(source.value_or(other), host);
  written_again(other, input);
}

bool is_hex(std::string_view text, std::size_t at, std::size_t count) {
  const std::string_view part = text.substr(at, count);
  return part.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

/// As the W3C has it, told in another way than the product does.
bool is_trace_context(std::string_view text) {
  return text.size() == 55 && text.starts_with("00-") && is_hex(text, 3, 32) && text[35] == '-' &&
         is_hex(text, 36, 16) && text[52] == '-' && is_hex(text, 53, 2) &&
         text.substr(3, 32).find_first_not_of('0') != std::string_view::npos &&
         text.substr(36, 16).find_first_not_of('0') != std::string_view::npos;
}

void trace(std::string_view input) {
  const std::uint64_t seed = input.size() * 0x9e3779b97f4a7c15ULL;
  for (const std::uint64_t number : {seed, std::uint64_t{0}}) {
    const std::string header = hbone::traceparent(input, number, number);
    require(is_trace_context(header), "what is sent on is a trace context", header);
    require((header == input) == is_trace_context(input), "a trace context is kept, anything else is not", input);
    require(hbone::traceparent(header, 1, 2) == header, "a trace context of ours is kept", header);
  }
}

}  // namespace

void one_input(std::string_view input) {
  forwarded(input);
  trace(input);
}

}  // namespace weft::fuzz
