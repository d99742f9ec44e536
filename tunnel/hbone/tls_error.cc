// SPDX-License-Identifier: Apache-2.0
#include <openssl/err.h>
#include <openssl/sslerr.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "tunnel/hbone/cert_store.h"
#include "tunnel/hbone/tls_verify.h"
#include "tunnel/hbone/tls_x509.h"

namespace weft::hbone {
namespace {

/// The alert's name; OpenSSL 3.0 has none for TLS 1.3's certificate_required.
const char* alert_name(int alert) {
  return alert == SSL_AD_CERTIFICATE_REQUIRED ? "certificate required" : SSL_alert_desc_string_long(alert);
}

/// What most likely made a peer send this alert, as a hint behind its name.
const char* alert_hint(int alert) {
  switch (alert) {
    case SSL_AD_CERTIFICATE_EXPIRED:
      return " (our certificate is past its end, or a clock is wrong)";
    case SSL_AD_CERTIFICATE_REVOKED:
      return " (its revocation list names our certificate)";
    case SSL_AD_UNKNOWN_CA:
      return " (it does not trust the root of our certificate)";
    case SSL_AD_CERTIFICATE_REQUIRED:
      return " (it saw no certificate of ours)";
    case SSL_AD_CERTIFICATE_UNKNOWN:
    case SSL_AD_ACCESS_DENIED:
      return " (it does not accept our identity)";
    case SSL_AD_BAD_CERTIFICATE:
    case SSL_AD_UNSUPPORTED_CERTIFICATE:
      return " (it does not accept our certificate)";
    case SSL_AD_NO_APPLICATION_PROTOCOL:
      return " (it does not speak HTTP/2)";
    case SSL_AD_HANDSHAKE_FAILURE:
      return " (no cipher or key-exchange group in common)";
    case SSL_AD_PROTOCOL_VERSION:
      return " (it does not speak TLS 1.3)";
    default:
      return "";
  }
}

/// The key-exchange groups that a client offered are all post-quantum hybrids, which OpenSSL 3.0 does not have.
bool offers_only_post_quantum(SSL* ssl) {
  // SecP256r1MLKEM768, X25519MLKEM768, SecP384r1MLKEM1024, and the drafts' Kyber.
  constexpr std::array<int, 4> kPostQuantum = {0x11eb, 0x11ec, 0x11ed, 0x6399};
  const auto count = SSL_get1_groups(ssl, nullptr);
  if (count <= 0) return false;
  std::vector<int> groups(static_cast<std::size_t>(count));
  static_cast<void>(SSL_get1_groups(ssl, groups.data()));
  return std::ranges::all_of(groups, [&](int group) {
    const bool unknown_here = (group & TLSEXT_nid_unknown) != 0;
    return unknown_here && std::ranges::find(kPostQuantum, group & 0xffff) != kPostQuantum.end();
  });
}

std::string no_shared_group(SSL* ssl) {
  if (offers_only_post_quantum(ssl)) {
    return "no key-exchange group in common: the peer offers only post-quantum groups, this side has X25519, P-256 and "
           "P-384 (turn the peer's post-quantum-only policy off)";
  }
  return "no key-exchange group in common: this side has X25519, P-256 and P-384";
}

std::string reason_text(SSL* ssl, unsigned long error) {
  const int reason = ERR_GET_REASON(error);
  if (ERR_GET_LIB(error) == ERR_LIB_SSL && reason > SSL_AD_REASON_OFFSET) {
    const int alert = reason - SSL_AD_REASON_OFFSET;
    return std::string("peer refused with TLS alert '") + alert_name(alert) + "'" + alert_hint(alert);
  }
  if (ERR_GET_LIB(error) == ERR_LIB_SSL) {
    switch (reason) {
      case SSL_R_NO_APPLICATION_PROTOCOL:
        return "client does not offer ALPN h2 (is it an HBONE client?)";
      case SSL_R_NO_SUITABLE_KEY_SHARE:
      case SSL_R_NO_SHARED_GROUPS:
      case SSL_R_NO_SUITABLE_GROUPS:
        return no_shared_group(ssl);
      case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
        return "client sent no certificate, one is required";
      case SSL_R_UNSUPPORTED_PROTOCOL:
      case SSL_R_VERSION_TOO_LOW:
        return "peer does not speak TLS 1.3";
      case SSL_R_WRONG_VERSION_NUMBER:
      case SSL_R_HTTP_REQUEST:
      case SSL_R_HTTPS_PROXY_REQUEST:
      case SSL_R_BAD_RECORD_TYPE:
        return "peer does not speak TLS (is it plaintext to the HBONE port?)";
      case SSL_R_UNEXPECTED_EOF_WHILE_READING:
        return "peer closed the connection without a TLS close (did it crash, or refuse silently?)";
      default:
        break;
    }
  }
  const char* text = ERR_reason_error_string(error);
  return text != nullptr ? std::string("TLS: ") + text : "TLS: error " + std::to_string(error);
}

}  // namespace

bool alpn_is_h2(const SSL* ssl) {
  const unsigned char* name = nullptr;
  unsigned length = 0;
  SSL_get0_alpn_selected(ssl, &name, &length);
  return length == 2 && name[0] == 'h' && name[1] == '2';
}

std::string handshake_error(SSL* ssl) {
  std::string text = refusal(ssl);
  const auto error = ERR_peek_error();  // the first is the cause, what follows are its consequences
  if (text.empty() && error != 0) text = reason_text(ssl, error);
  ERR_clear_error();
  if (!text.empty()) return text;
  if (const long verified = SSL_get_verify_result(ssl); verified != X509_V_OK) {
    return std::string("peer certificate does not verify: ") + X509_verify_cert_error_string(verified);
  }
  if (SSL_is_init_finished(ssl) != 0 && !alpn_is_h2(ssl))
    return "server did not choose ALPN h2 (is it an HBONE server?)";
  return "peer closed the connection during the TLS handshake";
}

}  // namespace weft::hbone
