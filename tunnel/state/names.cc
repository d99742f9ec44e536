// SPDX-License-Identifier: Apache-2.0
#include "tunnel/state/names.h"

#include <algorithm>
#include <cctype>

#include "tunnel/state/balance.h"

namespace weft::state {
namespace {

constexpr std::size_t kNameMax = 253;
constexpr std::size_t kLabelMax = 63;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

bool is_label(std::string_view label) {
  const auto fits = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit(c) || c == '-' || c == '_';
  };
  return !label.empty() && label.size() <= kLabelMax && std::ranges::all_of(label, fits);
}

}  // namespace

bool is_host_name(std::string_view text) {
  if (text.ends_with('.')) text.remove_suffix(1);
  if (text.empty() || text.size() > kNameMax) return false;
  std::string_view last;
  for (std::string_view rest = text;;) {
    const std::size_t dot = rest.find('.');
    last = rest.substr(0, dot);
    if (!is_label(last)) return false;
    if (dot == std::string_view::npos) break;
    rest.remove_prefix(dot + 1);
  }
  // No top-level domain is a number: it is an IPv4 address, or one that was misspelt.
  return !std::ranges::all_of(last, is_digit);
}

std::string small_letters(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

std::string canonical_name(std::string text) {
  if (text.ends_with('.')) text.pop_back();
  return small_letters(std::move(text));
}

IpAddress choose_address(const std::vector<IpAddress>& addresses, const IpAddress& like, IpFamilies families,
                         std::uint64_t random, const IpAddress& avoid) {
  std::vector<IpAddress> usable;
  std::ranges::copy_if(addresses, std::back_inserter(usable), [&](const IpAddress& address) {
    return accepts(families, address) && !address.is_loopback() && !address.is_unspecified();
  });
  // The better ones alone, where there are any.
  const auto prefer = [&](const auto& better) {
    if (std::ranges::any_of(usable, better)) std::erase_if(usable, [&](const auto& a) { return !better(a); });
  };
  prefer([&](const IpAddress& address) { return address != avoid; });
  prefer([&](const IpAddress& address) { return address.is_v4() == like.is_v4(); });
  return usable.empty() ? IpAddress() : usable[random % usable.size()];
}

}  // namespace weft::state
