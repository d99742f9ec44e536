// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#include <array>

#include "test/support/test_ca.h"
#include "tunnel/hbone/cert_store.h"
#include "tunnel/hbone/tls_x509.h"

namespace weft::hbone {
namespace {

using ::testing::HasSubstr;

using Key = OpenSslPtr<EVP_PKEY>;

std::string text_of(BIO* bio) {
  char* data = nullptr;
  const long length = BIO_get_mem_data(bio, &data);
  return {data, static_cast<std::size_t>(length)};
}

std::string pem_of(EVP_PKEY* key) {
  const OpenSslPtr<BIO> out(BIO_new(BIO_s_mem()));
  EXPECT_EQ(PEM_write_bio_PrivateKey(out.get(), key, nullptr, nullptr, 0, nullptr, nullptr), 1);
  return text_of(out.get());
}

/// As `openssl ecparam -genkey` writes it: "BEGIN EC PRIVATE KEY".
std::string old_pem_of(EVP_PKEY* key) {
  const OpenSslPtr<BIO> out(BIO_new(BIO_s_mem()));
  EXPECT_EQ(PEM_write_bio_PrivateKey_traditional(out.get(), key, nullptr, nullptr, 0, nullptr, nullptr), 1);
  return text_of(out.get());
}

struct MdContextFree {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};
using MdContext = std::unique_ptr<EVP_MD_CTX, MdContextFree>;

/// Whether what `signer` signs is `verifier`'s signature: the two have one private key.
bool signs_as(EVP_PKEY* signer, EVP_PKEY* verifier) {
  const bool digest_inside = EVP_PKEY_is_a(signer, "ED25519") == 1;
  const EVP_MD* digest = digest_inside ? nullptr : EVP_sha256();
  constexpr std::array<unsigned char, 4> kText{'w', 'e', 'f', 't'};
  std::array<unsigned char, 512> signature{};
  std::size_t length = signature.size();
  const MdContext sign(EVP_MD_CTX_new()), verify(EVP_MD_CTX_new());
  return EVP_DigestSignInit(sign.get(), nullptr, digest, nullptr, signer) == 1 &&
         EVP_DigestSign(sign.get(), signature.data(), &length, kText.data(), kText.size()) == 1 &&
         EVP_DigestVerifyInit(verify.get(), nullptr, digest, nullptr, verifier) == 1 &&
         EVP_DigestVerify(verify.get(), signature.data(), length, kText.data(), kText.size()) == 1;
}

void expect_read(const std::string& pem, EVP_PKEY* original) {
  const auto key = read_private_key(pem, "the key");
  ASSERT_TRUE(key) << key.error().message();
  EXPECT_EQ(EVP_PKEY_eq(key->get(), original), 1);
  EXPECT_TRUE(signs_as(key->get(), original));
  // What it is written as again is what it was.
  EXPECT_EQ(pem_of(key->get()), pem_of(original));
  EXPECT_EQ(ERR_peek_error(), 0U);
}

TEST(PrivateKey, KeysOfCurvesAreReadInBothForms) {
  for (const char* curve : {"P-256", "P-384", "P-521"}) {
    const Key key(EVP_EC_gen(curve));
    ASSERT_TRUE(key);
    expect_read(pem_of(key.get()), key.get());
    EXPECT_THAT(old_pem_of(key.get()), HasSubstr("BEGIN EC PRIVATE KEY"));
    expect_read(old_pem_of(key.get()), key.get());
    expect_read("# of the mesh\n" + pem_of(key.get()) + "\n", key.get());
  }
}

TEST(PrivateKey, KeysOfOtherKindsToo) {
  const Key rsa(EVP_RSA_gen(2048));
  ASSERT_TRUE(rsa);
  expect_read(pem_of(rsa.get()), rsa.get());
  const Key edwards(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
  ASSERT_TRUE(edwards);
  expect_read(pem_of(edwards.get()), edwards.get());
}

TEST(PrivateKey, ACurvesKeyWithoutItsPublicHalfIsRead) {
  const Key key(EVP_EC_gen("P-256"));
  ASSERT_EQ(EVP_PKEY_set_int_param(key.get(), OSSL_PKEY_PARAM_EC_INCLUDE_PUBLIC, 0), 1);
  const std::string pem = pem_of(key.get());
  const auto read = read_private_key(pem, "the key");
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(EVP_PKEY_eq(read->get(), key.get()), 1);
  EXPECT_TRUE(signs_as(read->get(), key.get()));
}

/// Every byte of it wrong once, and every length: never a crash, and never another key that is taken for this one.
TEST(PrivateKey, DamagedOnesDoNoHarm) {
  const Key key(EVP_EC_gen("P-256"));
  const std::string pem = pem_of(key.get());
  for (std::size_t i = 0; i < pem.size(); ++i) {
    std::string damaged = pem;
    damaged[i] = damaged[i] == 'A' ? 'B' : 'A';
    if (auto read = read_private_key(damaged, "damaged"); !read) {
      EXPECT_THAT(read.error().message(), HasSubstr("read damaged: not an unencrypted PEM private key"));
    }
    // Of the last line its end may be missing.
    EXPECT_EQ(read_private_key(pem.substr(0, i), "cut off").has_value(), i + 1 == pem.size()) << i;
  }
}

TEST(PrivateKey, AnIdentityKeepsNoTextOfItsKey) {
  const test::TestCa ca;
  const state::Identity identity{"cluster.local", "shop", "web"};
  const auto bundle = ca.issue(identity);
  const auto made = TlsIdentity::create(bundle);
  ASSERT_TRUE(made) << made.error().message();
  EXPECT_EQ((*made)->bundle().private_key_pem, "");
  EXPECT_EQ((*made)->bundle().certificate_pem, bundle.certificate_pem);
  EXPECT_EQ((*made)->bundle().chain_pem, bundle.chain_pem);
  EXPECT_EQ((*made)->bundle().roots_pem, bundle.roots_pem);
  EXPECT_EQ((*made)->bundle().identity, identity);
}

}  // namespace
}  // namespace weft::hbone
