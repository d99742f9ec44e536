// SPDX-License-Identifier: Apache-2.0
#include "tunnel/state/identity.h"

#include <algorithm>

namespace weft::state {
namespace {

constexpr std::string_view kScheme = "spiffe://";

/// What a part may consist of: printable ASCII without what a URI gives a meaning to. Anything else (a NUL, a percent
/// escape) could make two spellings of one identity.
bool is_part(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](unsigned char c) {
    return c > 0x20 && c < 0x7f && std::string_view("/?#%\\\"<>").find(static_cast<char>(c)) == std::string_view::npos;
  });
}

/// Cuts `text` up to the next slash (or its end) off its front.
std::string_view take_part(std::string_view& text) {
  const auto slash = text.find('/');
  const std::string_view part = text.substr(0, slash);
  text = slash == std::string_view::npos ? std::string_view() : text.substr(slash + 1);
  return part;
}

}  // namespace

Result<Identity> Identity::parse(std::string_view spiffe_uri) {
  std::string_view rest = spiffe_uri;
  const bool is_spiffe = rest.starts_with(kScheme);
  if (is_spiffe) rest.remove_prefix(kScheme.size());
  // Five parts are four slashes: more or fewer, and a trailing one, are caught here.
  const bool five = std::ranges::count(rest, '/') == 4;
  const std::string_view trust_domain = take_part(rest);
  const std::string_view ns_word = take_part(rest);
  const std::string_view namespace_part = take_part(rest);
  const std::string_view sa_word = take_part(rest);
  const std::string_view account = take_part(rest);
  if (!is_spiffe || !five || ns_word != "ns" || sa_word != "sa" || !is_part(trust_domain) || !is_part(namespace_part) ||
      !is_part(account)) {
    return fail(ErrorCode::kInvalid, "'" + excerpt(spiffe_uri) +
                                         "' is not an identity: expected "
                                         "spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT");
  }
  return Identity{std::string(trust_domain), std::string(namespace_part), std::string(account)};
}

std::string Identity::to_uri() const { return std::string(kScheme) + to_principal(); }

std::string Identity::to_principal() const { return trust_domain + "/ns/" + namespace_name + "/sa/" + service_account; }

}  // namespace weft::state
