// SPDX-License-Identifier: Apache-2.0
#include "test/support/test_ca.h"

#include <openssl/pem.h>
#include <openssl/rand.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <memory>
#include <sstream>

namespace weft::test {

void must(bool ok, const char* what) {
  if (ok) return;
  std::fprintf(stderr, "test CA: %s failed: %s\n", what, hbone::openssl_reason().c_str());
  std::abort();
}

namespace {

using hbone::OpenSslPtr;

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  must(file.good(), path.c_str());
  return text.str();
}

std::string pem_of(X509* certificate, EVP_PKEY* key) {
  const OpenSslPtr<BIO> out(BIO_new(BIO_s_mem()));
  if (certificate != nullptr) must(PEM_write_bio_X509(out.get(), certificate) == 1, "write certificate");
  if (key != nullptr) {
    must(PEM_write_bio_PrivateKey(out.get(), key, nullptr, nullptr, 0, nullptr, nullptr) == 1, "write key");
  }
  char* data = nullptr;
  const long length = BIO_get_mem_data(out.get(), &data);
  return {data, static_cast<std::size_t>(length)};
}

OpenSslPtr<X509> blank(EVP_PKEY* key, std::chrono::seconds from, std::chrono::seconds until) {
  OpenSslPtr<X509> out(X509_new());
  std::int64_t serial = 0;
  must(RAND_bytes(reinterpret_cast<unsigned char*>(&serial), sizeof serial) == 1, "random serial");
  must(X509_set_version(out.get(), X509_VERSION_3) == 1, "version");
  must(ASN1_INTEGER_set_int64(X509_get_serialNumber(out.get()), serial & INT64_MAX) == 1, "serial");
  must(X509_gmtime_adj(X509_getm_notBefore(out.get()), from.count()) != nullptr, "not before");
  must(X509_gmtime_adj(X509_getm_notAfter(out.get()), until.count()) != nullptr, "not after");
  must(X509_set_pubkey(out.get(), key) == 1, "public key");
  return out;
}

void add_extension(X509* certificate, X509* issuer, int nid, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const OpenSslPtr<X509_EXTENSION> extension(X509V3_EXT_conf_nid(nullptr, &context, nid, value));
  must(extension && X509_add_ext(certificate, extension.get(), -1) == 1, value);
}

void add_san(GENERAL_NAMES* names, int type, const std::string& text) {
  GENERAL_NAME* name = GENERAL_NAME_new();
  ASN1_IA5STRING* value = ASN1_IA5STRING_new();
  must(ASN1_STRING_set(value, text.data(), static_cast<int>(text.size())) == 1, "SAN");
  GENERAL_NAME_set0_value(name, type, value);
  must(sk_GENERAL_NAME_push(names, name) > 0, "SAN");
}

void add_sans(X509* certificate, const LeafOptions& options) {
  if (options.uris.empty() && options.dns_names.empty()) return;
  const OpenSslPtr<GENERAL_NAMES> names(GENERAL_NAMES_new());
  for (const auto& uri : options.uris) add_san(names.get(), GEN_URI, uri);
  for (const auto& dns : options.dns_names) add_san(names.get(), GEN_DNS, dns);
  must(X509_add1_ext_i2d(certificate, NID_subject_alt_name, names.get(), 1, X509V3_ADD_DEFAULT) == 1, "add SANs");
}

/// The URI SANs that a certificate request asks for.
std::vector<std::string> requested_uris(X509_REQ* request) {
  std::vector<std::string> out;
  STACK_OF(X509_EXTENSION)* extensions = X509_REQ_get_extensions(request);
  const OpenSslPtr<GENERAL_NAMES> names(
      static_cast<GENERAL_NAMES*>(X509V3_get_d2i(extensions, NID_subject_alt_name, nullptr, nullptr)));
  sk_X509_EXTENSION_pop_free(extensions, X509_EXTENSION_free);
  for (int i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type != GEN_URI) continue;
    const ASN1_IA5STRING* uri = name->d.uniformResourceIdentifier;
    out.emplace_back(reinterpret_cast<const char*>(ASN1_STRING_get0_data(uri)),
                     static_cast<std::size_t>(ASN1_STRING_length(uri)));
  }
  return out;
}

OpenSslPtr<EVP_PKEY> new_key() {
  OpenSslPtr<EVP_PKEY> key(EVP_EC_gen("P-256"));
  must(key != nullptr, "generate key");
  return key;
}

void set_name(X509_NAME* name, const std::string& text) {
  must(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, reinterpret_cast<const unsigned char*>(text.data()),
                                  static_cast<int>(text.size()), -1, 0) == 1,
       "name");
}

/// A CA certificate for `key`, signed by `issuer` with `issuer_key`, or by itself.
OpenSslPtr<X509> ca_certificate(const std::string& name, EVP_PKEY* key, X509* issuer, EVP_PKEY* issuer_key) {
  auto out = blank(key, std::chrono::hours(-24), std::chrono::hours(24 * 365));
  set_name(X509_get_subject_name(out.get()), name);
  X509* signer = issuer != nullptr ? issuer : out.get();
  must(X509_set_issuer_name(out.get(), X509_get_subject_name(signer)) == 1, "issuer");
  add_extension(out.get(), signer, NID_basic_constraints, "critical,CA:TRUE");
  add_extension(out.get(), signer, NID_key_usage, "critical,keyCertSign,cRLSign");
  add_extension(out.get(), signer, NID_subject_key_identifier, "hash");
  must(X509_sign(out.get(), issuer != nullptr ? issuer_key : key, EVP_sha256()) > 0, "sign CA");
  return out;
}

int select_protocol(SSL*, const unsigned char** out, unsigned char* length, const unsigned char*, unsigned, void* arg) {
  const auto* name = static_cast<const std::string*>(arg);
  *out = reinterpret_cast<const unsigned char*>(name->data());
  *length = static_cast<unsigned char>(name->size());
  return SSL_TLSEXT_ERR_OK;
}

void free_name(void*, void* name, CRYPTO_EX_DATA*, int, long, void*) { delete static_cast<std::string*>(name); }

void set_alpn(SSL_CTX* context, const RawOptions& options) {
  if (!options.alpn) return;
  if (!options.server) {
    const std::string wire = static_cast<char>(options.alpn->size()) + *options.alpn;
    must(SSL_CTX_set_alpn_protos(context, reinterpret_cast<const unsigned char*>(wire.data()),
                                 static_cast<unsigned>(wire.size())) == 0,
         "ALPN");
    return;
  }
  static const int index = SSL_CTX_get_ex_new_index(0, nullptr, nullptr, nullptr, free_name);
  auto* name = new std::string(*options.alpn);  // freed with the context
  must(SSL_CTX_set_ex_data(context, index, name) == 1, "ALPN");
  SSL_CTX_set_alpn_select_cb(context, select_protocol, name);
}

}  // namespace

TestCa::TestCa(const std::string& name) : key_(new_key()) {
  certificate_ = ca_certificate(name, key_.get(), nullptr, nullptr);
  roots_pem_ = pem_of(certificate_.get(), nullptr);
}

TestCa TestCa::load(const std::string& dir) {
  TestCa out{Empty{}};
  out.roots_pem_ = text_of(dir + "/root.pem");
  auto certificates = hbone::read_certificates(out.roots_pem_, "root.pem");
  auto key = hbone::read_private_key(text_of(dir + "/root-key.pem"), "root-key.pem");
  must(certificates && certificates->size() == 1 && key, "load the root");
  out.certificate_ = std::move(certificates->front());
  out.key_ = std::move(*key);
  return out;
}

TestCa TestCa::intermediate(const std::string& name) const {
  TestCa out{Empty{}};
  out.key_ = new_key();
  out.certificate_ = ca_certificate(name, out.key_.get(), certificate_.get(), key_.get());
  out.chain_pem_ = pem_of(out.certificate_.get(), nullptr) + chain_pem_;
  out.roots_pem_ = roots_pem_;
  return out;
}

hbone::CertificateBundle TestCa::issue(const state::Identity& identity) const {
  LeafOptions options;
  options.uris = {identity.to_uri()};
  return issue(identity, options);
}

OpenSslPtr<X509> TestCa::sign(EVP_PKEY* key, const LeafOptions& options) const {
  auto leaf = blank(key, options.valid_from, options.valid_until);
  must(X509_set_issuer_name(leaf.get(), X509_get_subject_name(certificate_.get())) == 1, "issuer");
  constexpr const char* kUsages[] = {"serverAuth,clientAuth", "clientAuth", "serverAuth"};
  add_extension(leaf.get(), certificate_.get(), NID_basic_constraints,
                options.is_ca ? "critical,CA:TRUE" : "critical,CA:FALSE");
  add_extension(leaf.get(), certificate_.get(), NID_key_usage,
                options.is_ca ? "critical,digitalSignature,keyCertSign" : "critical,digitalSignature");
  add_extension(leaf.get(), certificate_.get(), NID_ext_key_usage, kUsages[static_cast<int>(options.usage)]);
  add_extension(leaf.get(), certificate_.get(), NID_authority_key_identifier, "keyid");
  add_sans(leaf.get(), options);
  must(X509_sign(leaf.get(), key_.get(), EVP_sha256()) > 0, "sign leaf");
  return leaf;
}

hbone::CertificateBundle TestCa::issue(const state::Identity& identity, const LeafOptions& options) const {
  const auto key = new_key();
  const auto leaf = sign(key.get(), options);
  return {identity, pem_of(leaf.get(), nullptr), pem_of(nullptr, key.get()), chain_pem_, roots_pem_};
}

std::string TestCa::sign_request(const std::string& request_pem, LeafOptions options) const {
  const OpenSslPtr<BIO> in(BIO_new_mem_buf(request_pem.data(), static_cast<int>(request_pem.size())));
  const std::unique_ptr<X509_REQ, decltype(&X509_REQ_free)> request(
      PEM_read_bio_X509_REQ(in.get(), nullptr, nullptr, nullptr), X509_REQ_free);
  must(request != nullptr, "read the certificate request");
  EVP_PKEY* key = X509_REQ_get0_pubkey(request.get());
  must(key != nullptr && X509_REQ_verify(request.get(), key) == 1, "verify the certificate request");
  if (options.uris.empty()) options.uris = requested_uris(request.get());
  return pem_of(sign(key, options).get(), nullptr);
}

hbone::CertificateBundle TestCa::expired(const state::Identity& identity) const {
  LeafOptions options;
  options.uris = {identity.to_uri()};
  options.valid_from = std::chrono::hours(-2);
  options.valid_until = std::chrono::hours(-1);
  return issue(identity, options);
}

hbone::CertificateBundle TestCa::not_yet_valid(const state::Identity& identity) const {
  LeafOptions options;
  options.uris = {identity.to_uri()};
  options.valid_from = std::chrono::hours(1);
  options.valid_until = std::chrono::hours(2);
  return issue(identity, options);
}

hbone::CertificateBundle TestCa::without_san(const state::Identity& identity) const {
  return issue(identity, LeafOptions{});
}

hbone::CertificateBundle TestCa::with_two_sans(const state::Identity& identity, const std::string& other_uri) const {
  LeafOptions options;
  options.uris = {identity.to_uri(), other_uri};
  return issue(identity, options);
}

hbone::CertificateBundle TestCa::with_dns_san_only(const state::Identity& identity) const {
  LeafOptions options;
  options.dns_names = {"pod.example.com"};
  return issue(identity, options);
}

hbone::CertificateBundle TestCa::with_usage(const state::Identity& identity, LeafOptions::Usage usage) const {
  LeafOptions options;
  options.uris = {identity.to_uri()};
  options.usage = usage;
  return issue(identity, options);
}

hbone::OpenSslPtr<SSL_CTX> raw_context(const hbone::CertificateBundle& bundle, RawOptions options) {
  OpenSslPtr<SSL_CTX> context(SSL_CTX_new(options.server ? TLS_server_method() : TLS_client_method()));
  must(context != nullptr, "make context");
  must(SSL_CTX_set_max_proto_version(context.get(), options.max_version) == 1, "version");
  must(SSL_CTX_set1_groups_list(context.get(), options.groups.c_str()) == 1, "groups");
  SSL_CTX_set_mode(context.get(), SSL_MODE_NO_AUTO_CHAIN);
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_NONE, nullptr);
  set_alpn(context.get(), options);
  if (!options.present_certificate) return context;
  const auto leaf = hbone::read_certificates(bundle.certificate_pem, "test certificate");
  const auto key = hbone::read_private_key(bundle.private_key_pem, "test key");
  must(leaf && !leaf->empty() && key, "read the bundle");
  must(SSL_CTX_use_certificate(context.get(), leaf->front().get()) == 1, "use certificate");
  must(SSL_CTX_use_PrivateKey(context.get(), key->get()) == 1, "use key");
  if (const auto chain = hbone::read_certificates(bundle.chain_pem, "test chain")) {
    for (const auto& certificate : *chain) {
      must(SSL_CTX_add1_chain_cert(context.get(), certificate.get()) == 1, "use chain");
    }
  }
  return context;
}

}  // namespace weft::test
