// SPDX-License-Identifier: Apache-2.0
#include "agent/identity/ca_revocation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "agent/identity/ca_rotation.h"
#include "test/support/test_ca.h"
#include "test/unit/agent/identity/ca_fixture.h"

namespace weft::agent {
namespace {

using ::testing::HasSubstr;

class CaRevocation : public test::CaFixture {
 protected:
  std::string revoked(const std::vector<std::string>& serials, const std::vector<std::string>& files = {}) {
    const auto text = revoke({.directory = dir_, .serials = serials, .certificates = files});
    EXPECT_TRUE(text) << text.error().message();
    return text ? *text : "";
  }
  std::string refused(const std::vector<std::string>& serials, const std::vector<std::string>& files = {}) {
    const auto text = revoke({.directory = dir_, .serials = serials, .certificates = files});
    EXPECT_FALSE(text);
    return text ? "" : text.error().message();
  }
  [[nodiscard]] hbone::RevocationsPtr lists() const {
    auto out = hbone::RevocationLists::parse(text_of("crl.pem"), "crl.pem", text_of("root.pem"));
    EXPECT_TRUE(out) << out.error().message();
    return out ? *out : nullptr;
  }
};

TEST_F(CaRevocation, BySerialAndByCertificate) {
  const auto first = issued(), second = issued(), third = issued();
  EXPECT_THAT(revoked({first->serial()}), HasSubstr("revoked " + first->serial() + "\nwrote "));
  write(base_ + "/cert.pem", second->bundle().certificate_pem);
  EXPECT_THAT(revoked({}, {base_ + "/cert.pem"}), HasSubstr("revoked " + second->serial()));
  const auto in_force = lists();
  EXPECT_TRUE(in_force->find(first->chain()));
  EXPECT_TRUE(in_force->find(second->chain()));
  EXPECT_FALSE(in_force->find(third->chain()));
  EXPECT_TRUE(in_force->lists().at(0).verified);
}

TEST_F(CaRevocation, TheSameOnceMoreKeepsItsDate) {
  const auto certificate = issued();
  revoked({certificate->serial()});
  const auto before = lists()->find(certificate->chain());
  clock_.by = std::chrono::hours(1);
  const auto again = revoke({.directory = dir_, .serials = {certificate->serial()}, .certificates = {}}, clock_);
  ASSERT_TRUE(again);
  EXPECT_THAT(*again, HasSubstr("revoked already " + certificate->serial()));
  EXPECT_EQ(lists()->find(certificate->chain()), before);
}

TEST_F(CaRevocation, WithoutANameTheListGetsNewDatesAndIsTheNewer) {
  const auto certificate = issued();
  revoked({certificate->serial()});
  const auto first = lists();
  clock_.by = std::chrono::hours(24);
  ASSERT_TRUE(
      revoke({.directory = dir_, .serials = {}, .certificates = {}, .next_update = std::chrono::hours(48)}, clock_));
  const auto second = lists();
  EXPECT_GT(*second->lists()[0].next_update, Clock::real().wall_now() + std::chrono::hours(71));
  EXPECT_TRUE(second->find(certificate->chain()));
  EXPECT_EQ(hbone::RevocationLists::merge(first, second).notes.size(), 0U);
  EXPECT_EQ(hbone::RevocationLists::merge(second, first).notes.size(), 1U);  // the older one is told from it
}

TEST_F(CaRevocation, TwoOfOneSecondAreToldApartByTheirNumber) {
  const auto certificate = issued();
  revoked({});
  const auto first = lists();
  revoked({certificate->serial()});
  EXPECT_TRUE(hbone::RevocationLists::merge(lists(), first).lists->find(certificate->chain()));
}

TEST_F(CaRevocation, WhileARootIsReplacedBothSignAList) {
  const auto of_old = issued();
  ASSERT_TRUE(rotate_prepare(dir_));
  revoked({of_old->serial()});
  EXPECT_TRUE(lists()->find(of_old->chain()));
  ASSERT_TRUE(rotate_activate(dir_, true));
  const auto of_new = issued();
  revoked({of_new->serial()});
  EXPECT_EQ(lists()->lists().size(), 2U);
  EXPECT_TRUE(lists()->find(of_old->chain()));
  EXPECT_TRUE(lists()->find(of_new->chain()));
  write(base_ + "/cert.pem", issued()->bundle().certificate_pem);
  EXPECT_THAT(revoked({}, {base_ + "/cert.pem"}), HasSubstr("revoked "));
}

TEST_F(CaRevocation, ListsOfOthersStayInTheFile) {
  const weft::test::TestCa other("other root");
  const std::string theirs = other.crl();
  write(dir_ + "/crl.pem", theirs);
  revoked({"AB"});
  EXPECT_EQ(lists()->lists().size(), 2U);
  EXPECT_THAT(text_of("crl.pem"), HasSubstr(theirs));
}

TEST_F(CaRevocation, WhatIsNoSerialAndNoCertificateOfOursIsNamed) {
  EXPECT_THAT(refused({"xyz"}), HasSubstr("revoke serial \"xyz\": expected hexadecimal digits"));
  EXPECT_THAT(refused({""}), HasSubstr("expected hexadecimal digits"));
  EXPECT_THAT(refused({std::string(41, 'A')}), HasSubstr("expected hexadecimal digits"));
  EXPECT_FALSE(has("crl.pem"));
  const weft::test::TestCa stranger("stranger");
  write(base_ + "/theirs.pem", stranger.issue(test::kWeb).certificate_pem);
  EXPECT_THAT(refused({}, {base_ + "/theirs.pem"}), HasSubstr("no root of the directory issued it"));
  EXPECT_THAT(refused({}, {base_ + "/none.pem"}), HasSubstr("open " + base_ + "/none.pem"));
  write(base_ + "/empty.pem", "");
  EXPECT_THAT(refused({}, {base_ + "/empty.pem"}), HasSubstr("no certificate in it"));
  write(dir_ + "/crl.pem", text_of("root.pem").substr(0, 100));
  EXPECT_THAT(refused({"AB"}), HasSubstr("crl.pem"));
}

TEST_F(CaRevocation, SerialsMayHaveColonsAndSmallLetters) {
  const auto certificate = issued();
  std::string spelled;
  for (std::size_t i = 0; i < certificate->serial().size(); i += 2) {
    spelled += (i > 0 ? ":" : "") + certificate->serial().substr(i, 2);
  }
  std::ranges::transform(spelled, spelled.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  revoked({spelled});
  EXPECT_TRUE(lists()->find(certificate->chain()));
}

}  // namespace
}  // namespace weft::agent
