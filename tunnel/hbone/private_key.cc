// SPDX-License-Identifier: Apache-2.0
// Reading a private key. OpenSSL's own decoder leaves a copy of the key in memory that it has freed, where any bug that
// shows foreign memory finds it. So keys of the kind that the mesh uses are taken apart here, in locked memory.
#include <openssl/asn1.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/objects.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>

#include <optional>
#include <span>

#include "tunnel/hbone/tls_x509.h"

namespace weft::hbone {
namespace {

using Bytes = std::span<const unsigned char>;

OpenSslPtr<BIO> reader(std::string_view text) {
  return OpenSslPtr<BIO>(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

/// OpenSSL's default would ask for a passphrase on the terminal.
int no_passphrase(char*, int, int, void*) { return -1; }

/// What stands in a PEM text, in locked memory that is wiped.
class SecretDer {
 public:
  explicit SecretDer(std::string_view pem) {
    const auto bio = reader(pem);
    char* name = nullptr;
    if (PEM_bytes_read_bio_secmem(&data_, &length_, &name, PEM_STRING_EVP_PKEY, bio.get(), no_passphrase, nullptr) != 1)
      length_ = 0;
    else
      OPENSSL_secure_free(name);
  }
  ~SecretDer() { OPENSSL_secure_clear_free(data_, static_cast<std::size_t>(length_)); }
  SecretDer(const SecretDer&) = delete;
  SecretDer& operator=(const SecretDer&) = delete;
  [[nodiscard]] Bytes bytes() const { return {data_, static_cast<std::size_t>(length_)}; }

 private:
  unsigned char* data_ = nullptr;
  long length_ = 0;
};

/// Elements of DER one after the other (X.690).
class Elements {
 public:
  explicit Elements(Bytes bytes) : rest_(bytes) {}

  struct Element {
    Bytes whole, content;
  };
  /// The next one, where it has this tag.
  std::optional<Element> take(int tag, int tag_class = V_ASN1_UNIVERSAL) {
    const unsigned char* at = rest_.data();
    long length = 0;
    int found = 0, found_class = 0;
    if (rest_.empty()) return {};
    const int how = ASN1_get_object(&at, &length, &found, &found_class, static_cast<long>(rest_.size()));
    if ((how & 0x80) != 0 || (how & 1) != 0 || found != tag || found_class != tag_class) return {};
    const std::size_t head = static_cast<std::size_t>(at - rest_.data());
    const Element element{rest_.first(head + static_cast<std::size_t>(length)),
                          rest_.subspan(head, static_cast<std::size_t>(length))};
    rest_ = rest_.subspan(element.whole.size());
    return element;
  }

 private:
  Bytes rest_;
};

struct EcParts {
  int curve = NID_undef;
  Bytes scalar, point;
};

int curve_of(const std::optional<Elements::Element>& oid) {
  if (!oid) return NID_undef;
  const unsigned char* at = oid->whole.data();
  ASN1_OBJECT* object = d2i_ASN1_OBJECT(nullptr, &at, static_cast<long>(oid->whole.size()));
  const int nid = object == nullptr ? NID_undef : OBJ_obj2nid(object);
  ASN1_OBJECT_free(object);
  return nid;
}

/// ECPrivateKey (RFC 5915). `curve` is what stands around it.
std::optional<EcParts> ec_parts(Bytes der, int curve) {
  auto key = Elements(der).take(V_ASN1_SEQUENCE);
  if (!key) return {};
  Elements fields(key->content);
  const auto version = fields.take(V_ASN1_INTEGER);
  const auto scalar = fields.take(V_ASN1_OCTET_STRING);
  if (!version || !scalar) return {};
  EcParts parts{curve, scalar->content, {}};
  if (const auto named = fields.take(0, V_ASN1_CONTEXT_SPECIFIC))
    parts.curve = curve_of(Elements(named->content).take(V_ASN1_OBJECT));
  const auto outer = fields.take(1, V_ASN1_CONTEXT_SPECIFIC);
  const auto point = outer ? Elements(outer->content).take(V_ASN1_BIT_STRING) : std::nullopt;
  if (!point || point->content.empty() || point->content[0] != 0) return {};
  parts.point = point->content.subspan(1);
  return parts;
}

/// PrivateKeyInfo (RFC 5208), or what was in PEM before it.
std::optional<EcParts> parts_of(Bytes der) {
  if (auto bare = ec_parts(der, NID_undef)) return bare;
  const auto info = Elements(der).take(V_ASN1_SEQUENCE);
  if (!info) return {};
  Elements fields(info->content);
  const auto version = fields.take(V_ASN1_INTEGER);
  const auto algorithm = fields.take(V_ASN1_SEQUENCE);
  const auto key = fields.take(V_ASN1_OCTET_STRING);
  if (!version || !algorithm || !key) return {};
  Elements kind(algorithm->content);
  if (curve_of(kind.take(V_ASN1_OBJECT)) != NID_X9_62_id_ecPublicKey) return {};
  return ec_parts(key->content, curve_of(kind.take(V_ASN1_OBJECT)));
}

/// Null where OpenSSL has to read it.
OpenSslPtr<EVP_PKEY> make_ec_key(const EcParts& parts) {
  const OpenSslPtr<BIGNUM> scalar(BN_secure_new());
  const OpenSslPtr<OSSL_PARAM_BLD> builder(OSSL_PARAM_BLD_new());
  const OpenSslPtr<EVP_PKEY_CTX> context(EVP_PKEY_CTX_new_from_name(nullptr, "EC", nullptr));
  const char* curve = OBJ_nid2sn(parts.curve);
  if (!scalar || !builder || !context || parts.curve == NID_undef || curve == nullptr ||
      BN_bin2bn(parts.scalar.data(), static_cast<int>(parts.scalar.size()), scalar.get()) == nullptr ||
      OSSL_PARAM_BLD_push_utf8_string(builder.get(), OSSL_PKEY_PARAM_GROUP_NAME, curve, 0) != 1 ||
      OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_PRIV_KEY, scalar.get()) != 1 ||
      OSSL_PARAM_BLD_push_octet_string(builder.get(), OSSL_PKEY_PARAM_PUB_KEY, parts.point.data(),
                                       parts.point.size()) != 1) {
    return nullptr;
  }
  const OpenSslPtr<OSSL_PARAM> parameters(OSSL_PARAM_BLD_to_param(builder.get()));
  EVP_PKEY* key = nullptr;
  if (!parameters || EVP_PKEY_fromdata_init(context.get()) != 1 ||
      EVP_PKEY_fromdata(context.get(), &key, EVP_PKEY_KEYPAIR, parameters.get()) != 1) {
    return nullptr;
  }
  return OpenSslPtr<EVP_PKEY>(key);
}

}  // namespace

Result<OpenSslPtr<EVP_PKEY>> read_private_key(std::string_view pem, std::string_view what) {
  ERR_clear_error();
  OpenSslPtr<EVP_PKEY> key;
  if (const SecretDer der(pem); const auto parts = parts_of(der.bytes())) key = make_ec_key(*parts);
  ERR_clear_error();
  if (!key) key.reset(PEM_read_bio_PrivateKey(reader(pem).get(), nullptr, no_passphrase, nullptr));
  if (key) return key;
  return fail(ErrorCode::kInvalid,
              "read " + std::string(what) + ": not an unencrypted PEM private key: " + openssl_reason());
}

}  // namespace weft::hbone
