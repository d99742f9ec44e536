// SPDX-License-Identifier: Apache-2.0
#include "tunnel/hbone/tls_x509.h"

#include <openssl/err.h>
#include <openssl/pem.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <span>

namespace weft::hbone {
namespace {

OpenSslPtr<BIO> reader(std::string_view text) {
  return OpenSslPtr<BIO>(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

/// OpenSSL's default would ask for a passphrase on the terminal.
int no_passphrase(char*, int, int, void*) { return -1; }

template <class T>
Result<std::vector<OpenSslPtr<T>>> read_all(std::string_view pem, std::string_view what,
                                            T* (*read)(BIO*, T**, pem_password_cb*, void*), const char* kind) {
  ERR_clear_error();
  std::vector<OpenSslPtr<T>> out;
  const auto bio = reader(pem);
  while (T* object = read(bio.get(), nullptr, no_passphrase, nullptr)) out.emplace_back(object);
  const auto error = ERR_peek_last_error();
  const bool end_of_text = ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE;
  if (error == 0 || end_of_text) {
    ERR_clear_error();
    return out;
  }
  return fail(ErrorCode::kInvalid, "read " + std::string(what) + ": " + kind + " " + std::to_string(out.size() + 1) +
                                       " is not a PEM " + kind + ": " + openssl_reason());
}

std::string_view bytes_of(const ASN1_STRING* text) {
  return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
          static_cast<std::size_t>(ASN1_STRING_length(text))};
}

OpenSslPtr<GENERAL_NAMES> subject_alt_names(const X509* certificate) {
  return OpenSslPtr<GENERAL_NAMES>(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr)));
}

}  // namespace

Result<std::vector<OpenSslPtr<X509>>> read_certificates(std::string_view pem, std::string_view what) {
  return read_all<X509>(pem, what, PEM_read_bio_X509, "certificate");
}

Result<std::vector<OpenSslPtr<X509_CRL>>> read_crls(std::string_view pem, std::string_view what) {
  return read_all<X509_CRL>(pem, what, PEM_read_bio_X509_CRL, "CRL");
}

std::vector<std::string> uri_sans(const X509* certificate) {
  std::vector<std::string> out;
  const auto names = subject_alt_names(certificate);
  for (int i = 0; names && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type == GEN_URI) out.emplace_back(bytes_of(name->d.uniformResourceIdentifier));
  }
  return out;
}

std::size_t san_count(const X509* certificate) {
  const auto names = subject_alt_names(certificate);
  return names ? static_cast<std::size_t>(sk_GENERAL_NAME_num(names.get())) : 0;
}

WallTime to_wall_time(const ASN1_TIME* time) {
  std::tm parts{};
  if (time == nullptr || ASN1_TIME_to_tm(time, &parts) != 1) return {};
  return std::chrono::system_clock::from_time_t(::timegm(&parts));
}

std::string serial_hex(const ASN1_INTEGER* serial) {
  const OpenSslPtr<BIGNUM> number(ASN1_INTEGER_to_BN(serial, nullptr));
  char* hex = number ? BN_bn2hex(number.get()) : nullptr;
  std::string out = hex != nullptr ? hex : "";
  OPENSSL_free(hex);
  return out;
}

std::string serial_hex(const X509* certificate) { return serial_hex(X509_get0_serialNumber(certificate)); }

std::string certificate_digest(const X509* certificate) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  if (X509_digest(certificate, EVP_sha256(), digest.data(), &size) != 1) return "";
  std::string text;
  for (const unsigned byte : std::span(digest).first(size)) {
    constexpr std::string_view kHex = "0123456789abcdef";
    text += {kHex[byte >> 4U], kHex[byte & 0xfU]};
  }
  return text;
}

std::string key_digest(const X509* certificate) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  if (X509_pubkey_digest(certificate, EVP_sha256(), digest.data(), &size) != 1) return "";
  return {reinterpret_cast<const char*>(digest.data()), size};
}

std::string name_text(const X509_NAME* name) {
  const OpenSslPtr<BIO> out(BIO_new(BIO_s_mem()));
  if (name == nullptr || X509_NAME_print_ex(out.get(), name, 0, XN_FLAG_RFC2253) < 0) return "";
  char* data = nullptr;
  const long length = BIO_get_mem_data(out.get(), &data);
  return printable({data, static_cast<std::size_t>(std::max(0L, length))});
}

std::string printable(std::string_view bytes, std::size_t limit) {
  std::string out(bytes.substr(0, limit));
  std::ranges::replace_if(
      out, [](char c) { return c < ' ' || c > '~'; }, '?');
  return bytes.size() > limit ? out + "..." : out;
}

bool is_visible_ascii(std::string_view bytes) {
  return std::ranges::all_of(bytes, [](char c) { return c > ' ' && c <= '~'; });
}

std::string openssl_reason() {
  const auto error = ERR_peek_last_error();
  const char* reason = error == 0 ? nullptr : ERR_reason_error_string(error);
  std::string out = reason != nullptr ? reason : "unknown reason";
  ERR_clear_error();
  return out;
}

}  // namespace weft::hbone
