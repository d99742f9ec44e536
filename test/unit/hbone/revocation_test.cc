// SPDX-License-Identifier: Apache-2.0
#include "tunnel/hbone/revocation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/err.h>

#include "test/support/test_ca.h"
#include "tunnel/hbone/cert_store.h"

namespace weft::hbone {
namespace {

using test::CrlOptions;
using test::TestCa;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const state::Identity kWeb{"cluster.local", "shop", "web"};

class Revocation : public ::testing::Test {
 protected:
  RevocationsPtr read(const std::string& pem) {
    auto out = RevocationLists::parse(pem, "crl.pem", roots_);
    EXPECT_TRUE(out) << out.error().message();
    EXPECT_EQ(ERR_peek_error(), 0UL);
    return out ? *out : nullptr;
  }
  std::string refused(const std::string& pem) {
    const auto out = RevocationLists::parse(pem, "crl.pem", roots_);
    EXPECT_FALSE(out);
    EXPECT_EQ(ERR_peek_error(), 0UL);
    return out ? "" : out.error().message();
  }
  /// What is said of the bundle's own chain.
  static std::optional<std::string> of(const RevocationsPtr& lists, const CertificateBundle& bundle) {
    auto identity = TlsIdentity::create(bundle);
    EXPECT_TRUE(identity) << identity.error().message();
    return identity ? lists->find((*identity)->chain()) : std::nullopt;
  }
  std::string revoking(const CertificateBundle& bundle, CrlOptions options = {}) {
    options.revoked = {bundle.certificate_pem};
    return ca_.crl(options);
  }

  TestCa ca_;
  std::string roots_ = ca_.roots_pem();
  CertificateBundle bad_ = ca_.issue(kWeb), good_ = ca_.issue(kWeb);
};

TEST_F(Revocation, NamesWhatIsListedAndNothingElse) {
  const auto lists = read(revoking(bad_));
  const auto found = of(lists, bad_);
  ASSERT_TRUE(found);
  EXPECT_THAT(*found, HasSubstr("certificate " + (*TlsIdentity::create(bad_))->serial() + " of " + kWeb.to_uri() +
                                " was revoked at 20"));
  EXPECT_THAT(*found, HasSubstr("(CRL of 'CN=test root')"));
  EXPECT_EQ(of(lists, good_), std::nullopt);
  ASSERT_EQ(lists->lists().size(), 1U);
  EXPECT_EQ(lists->lists()[0].revoked, 1U);
  EXPECT_TRUE(lists->lists()[0].verified);
}

TEST_F(Revocation, SeveralListsInOneFileCountTogether) {
  const TestCa other("other root");
  roots_ += other.roots_pem();
  CrlOptions revoked;
  const auto theirs = other.issue(kWeb);
  revoked.revoked = {theirs.certificate_pem};
  const auto lists = read("some words\n" + other.crl(revoked) + "\n" + revoking(bad_));
  EXPECT_TRUE(of(lists, bad_));
  EXPECT_TRUE(of(lists, theirs));
  EXPECT_FALSE(of(lists, good_));
}

TEST_F(Revocation, AnIntermediateIsFoundByItsRootsListAndALeafByTheIntermediates) {
  const TestCa below = ca_.intermediate();
  const auto leaf = below.issue(kWeb);
  CrlOptions of_root;
  of_root.revoked = {leaf.chain_pem};
  EXPECT_THAT(of(read(ca_.crl(of_root)), leaf).value_or(""), HasSubstr("issuing certificate "));
  CrlOptions of_below;
  of_below.revoked = {leaf.certificate_pem};
  const auto lists = read(below.crl(of_below));
  EXPECT_FALSE(lists->lists()[0].verified);  // the issuer is known only when the chain comes
  EXPECT_TRUE(of(lists, leaf));
  EXPECT_FALSE(of(lists, below.issue(kWeb)));
}

TEST_F(Revocation, AListOfAnotherCaWithTheSameNameSaysNothing) {
  const TestCa twin;  // the same name, another key
  CrlOptions options;
  options.revoked = {bad_.certificate_pem};
  EXPECT_FALSE(of(read(twin.crl(options)), bad_));
}

TEST_F(Revocation, AFileIsTakenWholeOrNotAtAll) {
  const std::string crl = revoking(bad_);
  EXPECT_THAT(refused(""), HasSubstr("read crl.pem: no CRL in it"));
  EXPECT_THAT(refused("rubbish"), HasSubstr("no CRL in it"));
  EXPECT_THAT(refused(good_.certificate_pem), HasSubstr("no CRL in it"));
  EXPECT_THAT(refused(crl + crl.substr(0, 100)), HasSubstr("CRL 2 is not a PEM CRL"));
  const TestCa twin;
  CrlOptions forged;
  forged.signed_by = &twin;
  EXPECT_THAT(refused(crl + ca_.crl(forged)), HasSubstr("CRL 2 of 'CN=test root': its issuer has not signed it"));
  forged.key_identifier = false;
  EXPECT_THAT(refused(ca_.crl(forged)), HasSubstr("its issuer has not signed it"));
  CrlOptions partial;
  partial.critical_extension = true;
  EXPECT_THAT(refused(ca_.crl(partial)), HasSubstr("it has the critical extension"));
}

TEST_F(Revocation, AnExpiredListStillCounts) {
  CrlOptions old;
  old.this_update = std::chrono::hours(-48);
  old.next_update = std::chrono::hours(-24);
  EXPECT_TRUE(of(read(revoking(bad_, old)), bad_));
}

TEST_F(Revocation, ANewerListReplacesTheOneBefore) {
  CrlOptions later;
  later.this_update = std::chrono::seconds(-10);
  const auto merged = RevocationLists::merge(read(revoking(bad_)), read(ca_.crl(later)));
  EXPECT_FALSE(of(merged.lists, bad_));
  EXPECT_THAT(merged.notes, IsEmpty());
}

TEST_F(Revocation, AnOlderListOpensNothing) {
  CrlOptions first, second;
  first.number = 7;
  second.number = 6;
  second.this_update = std::chrono::seconds(-10);  // the number counts first
  auto merged = RevocationLists::merge(read(revoking(bad_, first)), read(ca_.crl(second)));
  EXPECT_TRUE(of(merged.lists, bad_));
  EXPECT_THAT(merged.notes, ElementsAre(HasSubstr("older than the one that counts")));
  first.number = second.number = 0;
  second.this_update = std::chrono::seconds(-100);
  merged = RevocationLists::merge(read(revoking(bad_, first)), read(ca_.crl(second)));
  EXPECT_TRUE(of(merged.lists, bad_));
}

TEST_F(Revocation, AListThatTheFileLacksStaysUntilItsRootLeaves) {
  const TestCa other("other root");
  const auto before = read(revoking(bad_));
  roots_ += other.roots_pem();
  auto merged = RevocationLists::merge(before, read(other.crl()));
  EXPECT_TRUE(of(merged.lists, bad_));
  EXPECT_THAT(merged.notes, ElementsAre(HasSubstr("is not in the file any more")));
  const auto kept = RevocationLists::merge(merged.lists, *RevocationLists::none(roots_));
  EXPECT_TRUE(of(kept.lists, bad_));
  EXPECT_EQ(kept.notes.size(), 2U);
  roots_ = other.roots_pem();
  EXPECT_FALSE(of(RevocationLists::merge(before, *RevocationLists::none(roots_)).lists, bad_));
  merged = RevocationLists::merge(merged.lists, read(other.crl()));
  EXPECT_FALSE(of(merged.lists, bad_));
  EXPECT_THAT(merged.notes, IsEmpty());
}

TEST_F(Revocation, AListThatNobodyCanCheckYetReplacesOnlyWhatItContains) {
  const TestCa below = ca_.intermediate(), twin = ca_.intermediate();
  const auto leaf = below.issue(kWeb);
  CrlOptions listed, forged;
  listed.revoked = {leaf.certificate_pem};
  forged.this_update = std::chrono::seconds(-10);
  forged.signed_by = &twin;
  const auto before = read(below.crl(listed));
  auto merged = RevocationLists::merge(before, read(below.crl(forged)));
  EXPECT_TRUE(of(merged.lists, leaf));
  EXPECT_THAT(merged.notes, ElementsAre(HasSubstr("both count")));
  listed.this_update = std::chrono::seconds(-5);
  listed.revoked.push_back(bad_.certificate_pem);
  merged = RevocationLists::merge(before, read(below.crl(listed)));
  EXPECT_TRUE(of(merged.lists, leaf));
  EXPECT_EQ(merged.lists->lists().size(), 1U);
}

TEST_F(Revocation, MergesWithNothing) {
  const auto lists = read(revoking(bad_));
  EXPECT_EQ(RevocationLists::merge(nullptr, lists).lists, lists);
  EXPECT_EQ(RevocationLists::merge(lists, nullptr).lists, lists);
  EXPECT_EQ(RevocationLists::merge(nullptr, nullptr).lists, nullptr);
}

}  // namespace
}  // namespace weft::hbone
