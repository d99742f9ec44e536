// SPDX-License-Identifier: Apache-2.0
#include "tunnel/hbone/tls_verify.h"

#include <algorithm>
#include <memory>

#include "tunnel/base/rfc3339.h"
#include "tunnel/hbone/cert_store.h"
#include "tunnel/hbone/tls_x509.h"

namespace weft::hbone {
namespace {

// Not in OpenSSL's table of alerts, so the peer gets certificate_unknown: the certificate is sound and yet refused.
constexpr int kIdentityRefused = X509_V_ERR_PERMITTED_VIOLATION;

/// What one SSL demands of its peer, and what came of it. Owned by the SSL through its ex_data.
struct PeerCheck {
  bool peer_is_client = false;
  std::string trust_domain;  // of a client
  ExpectedPeer expected;     // of a server
  const RevocationsPtr* revocations = nullptr;
  std::string accepted_uri;
  std::string refusal;
  bool revoked = false;

  [[nodiscard]] std::string peer() const { return peer_is_client ? "client" : "server"; }
};

void free_check(void*, void* check, CRYPTO_EX_DATA*, int, long, void*) { delete static_cast<PeerCheck*>(check); }

int check_index() {
  static const int index = SSL_get_ex_new_index(0, nullptr, nullptr, nullptr, free_check);
  return index;
}

PeerCheck* check_of(const SSL* ssl) { return static_cast<PeerCheck*>(SSL_get_ex_data(ssl, check_index())); }

void set_check(SSL* ssl, PeerCheck check) {
  auto owned = std::make_unique<PeerCheck>(std::move(check));
  const std::unique_ptr<PeerCheck> former(check_of(ssl));
  // Out of memory leaves the SSL without a check, and verify_peer refuses that.
  if (SSL_set_ex_data(ssl, check_index(), owned.get()) == 1) {
    static_cast<void>(owned.release());  // the SSL owns it now
  } else {
    static_cast<void>(SSL_set_ex_data(ssl, check_index(), nullptr));
  }
}

std::string list(const std::vector<std::string>& uris) {
  constexpr std::size_t kShown = 3;
  std::string out;
  for (std::size_t i = 0; i < std::min(uris.size(), kShown); ++i) out += (i ? " or " : "") + printable(uris[i]);
  if (uris.size() > kShown) out += " or " + std::to_string(uris.size() - kShown) + " more";
  return uris.empty() ? "none" : out;
}

/// Who the certificate says it is for, for texts about certificates that are not trusted.
std::string claimed(const X509* leaf) {
  const auto uris = leaf == nullptr ? std::vector<std::string>() : uri_sans(leaf);
  return uris.empty() ? "" : " for " + printable(uris.front());
}

std::string chain_refusal(X509_STORE_CTX* store, const PeerCheck& check) {
  const X509* current = X509_STORE_CTX_get_current_cert(store);
  const int error = X509_STORE_CTX_get_error(store);
  const bool leaf = X509_STORE_CTX_get_error_depth(store) == 0;
  const std::string what =
      (leaf ? "" : "an issuer of the ") + check.peer() + " certificate" + claimed(X509_STORE_CTX_get0_cert(store));
  switch (error) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return what + " expired at " + rfc3339(to_wall_time(X509_get0_notAfter(current))) +
             " (did its renewal fail, or is a clock wrong?)";
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return what + " is not yet valid: it starts at " + rfc3339(to_wall_time(X509_get0_notBefore(current))) +
             " (are the nodes' clocks apart?)";
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
      return what + " is from an unknown root, issuer '" +
             (current == nullptr ? "" : name_text(X509_get_issuer_name(current))) +
             "' (does the peer belong to another mesh, or was the root changed?)";
    case X509_V_ERR_INVALID_PURPOSE:
      return what + " may not be used by a TLS " + check.peer() + " (its extended key usage says so)";
    default:
      return what + " does not verify: " + X509_verify_cert_error_string(error);
  }
}

/// Why the (trusted) certificate is not a client of our trust domain; empty when it is, then `check.accepted_uri` is
/// set.
std::string client_refusal(const X509* leaf, PeerCheck& check) {
  const auto uris = uri_sans(leaf);
  if (uris.empty()) {
    return std::string("client certificate has no SPIFFE SAN") +
           (san_count(leaf) > 0 ? " (it has only SANs of other kinds)" : "");
  }
  if (uris.size() > 1) {
    return "client certificate has " + std::to_string(uris.size()) + " URI SANs, exactly one is allowed: " + list(uris);
  }
  const auto identity = state::Identity::parse(uris.front());
  if (!identity || !is_visible_ascii(uris.front())) {
    return "client certificate's SAN '" + printable(uris.front()) +
           "' is not spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT";
  }
  if (identity->trust_domain != check.trust_domain) {
    return "client identity " + uris.front() + " is of trust domain '" + identity->trust_domain + "', expected '" +
           check.trust_domain + "'";
  }
  check.accepted_uri = uris.front();
  return "";
}

/// As client_refusal, for the identities expected of a server.
std::string server_refusal(const X509* leaf, PeerCheck& check) {
  const auto uris = uri_sans(leaf);
  for (const auto& uri : uris) {
    if (std::ranges::find(check.expected.uris, uri) == check.expected.uris.end()) continue;
    check.accepted_uri = uri;
    check.expected = {};  // not needed again; idle tunnels are many
    return "";
  }
  const std::string expected = list(check.expected.uris);
  if (uris.empty()) return "server certificate has no SPIFFE SAN, expected " + expected;
  return "server identity is " + list(uris) + ", expected " + expected + " (was the address given to another pod?)";
}

std::vector<X509*> borrowed(const STACK_OF(X509) * chain) {
  std::vector<X509*> out;
  for (int i = 0; i < sk_X509_num(chain); ++i) out.push_back(sk_X509_value(chain, i));
  return out;
}

/// Whether the (trusted) chain is revoked; then the refusal is set.
bool is_revoked(X509_STORE_CTX* store, PeerCheck& check) {
  if (check.revocations == nullptr || *check.revocations == nullptr) return false;
  const auto why = (*check.revocations)->find(borrowed(X509_STORE_CTX_get0_chain(store)));
  if (!why) return false;
  check.revoked = true;
  check.refusal = "the " + check.peer() + "'s " + *why;
  X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REVOKED);
  return true;
}

}  // namespace

int verify_peer(X509_STORE_CTX* store, void*) {
  const auto* ssl = static_cast<SSL*>(X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx()));
  PeerCheck* check = ssl == nullptr ? nullptr : check_of(ssl);
  if (check == nullptr) {
    X509_STORE_CTX_set_error(store, kIdentityRefused);
    return 0;
  }
  if (X509_verify_cert(store) <= 0) {
    if (X509_STORE_CTX_get_error(store) == X509_V_OK) X509_STORE_CTX_set_error(store, X509_V_ERR_UNSPECIFIED);
    check->refusal = chain_refusal(store, *check);
    return 0;
  }
  if (is_revoked(store, *check)) return 0;
  const X509* leaf = X509_STORE_CTX_get0_cert(store);
  if ((X509_get_extension_flags(X509_STORE_CTX_get0_cert(store)) & EXFLAG_CA) != 0) {
    check->refusal = check->peer() + " certificate" + claimed(leaf) + " is a CA's, not a workload's";
  } else {
    check->refusal = check->peer_is_client ? client_refusal(leaf, *check) : server_refusal(leaf, *check);
  }
  if (check->refusal.empty()) return 1;
  X509_STORE_CTX_set_error(store, kIdentityRefused);
  return 0;
}

int require_alpn(SSL* ssl, int* alert, void*) {
  const unsigned char* data = nullptr;
  std::size_t length = 0;
  if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, &data, &length) == 1) {
    return SSL_CLIENT_HELLO_SUCCESS;
  }
  if (PeerCheck* check = check_of(ssl))
    check->refusal = "client offers no ALPN, h2 is required (is it an HBONE client?)";
  *alert = SSL_AD_NO_APPLICATION_PROTOCOL;
  return SSL_CLIENT_HELLO_ERROR;
}

std::string refusal(const SSL* ssl) {
  const PeerCheck* check = check_of(ssl);
  return check == nullptr ? "" : check->refusal;
}

void expect_client(SSL* ssl, const std::string& trust_domain) {
  PeerCheck check;
  check.peer_is_client = true;
  check.trust_domain = trust_domain;
  set_check(ssl, std::move(check));
}

void expect_server(SSL* ssl, ExpectedPeer expected) {
  PeerCheck check;
  check.expected = std::move(expected);
  set_check(ssl, std::move(check));
}

void refuse_revoked(SSL* ssl, const RevocationsPtr* lists) {
  // Without a check the peer is refused anyway.
  if (PeerCheck* check = check_of(ssl)) check->revocations = lists;
}

bool refused_as_revoked(const SSL* ssl) {
  const PeerCheck* check = check_of(ssl);
  return check != nullptr && check->revoked;
}

std::vector<X509*> peer_chain(const SSL* ssl) { return borrowed(SSL_get0_verified_chain(ssl)); }

Result<state::Identity> peer_identity(SSL* ssl) {
  const PeerCheck* check = check_of(ssl);
  if (check == nullptr || check->accepted_uri.empty() || SSL_is_init_finished(ssl) == 0) {
    return fail(ErrorCode::kInvalid, "peer identity: the handshake has not succeeded");
  }
  return state::Identity::parse(check->accepted_uri);
}

}  // namespace weft::hbone
