// SPDX-License-Identifier: Apache-2.0
#include "agent/identity/cert_manager.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <stdexcept>

#include "test/support/test_ca.h"

namespace weft::agent {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const state::Identity kWeb{"cluster.local", "shop", "web"};
const state::Identity kDb{"cluster.local", "shop", "db"};

/// A CA whose answers the test writes. Certificates are dated by the machine's clock moved by `offset`.
class FakeSource : public CertificateSource {
 public:
  Result<hbone::CertificateBundle> issue(const state::Identity& identity) override {
    asked.push_back(identity);
    if (during) during(identity);
    if (error) return Failure(*error);
    test::LeafOptions options;
    options.uris = {identity.to_uri()};
    options.valid_from = offset - 60s;  // back-dated, as CAs do
    options.valid_until = offset + lifetime;
    return ca.issue(issue_as.value_or(identity), options);
  }

  test::TestCa ca;
  std::optional<Error> error;
  std::optional<state::Identity> issue_as;
  std::function<void(const state::Identity&)> during;
  std::chrono::seconds offset{0};
  std::chrono::seconds lifetime{3600};
  std::vector<state::Identity> asked;
};

/// Starts at the machine's time, because the test CA dates certificates by it.
class TestClock : public Clock {
 public:
  [[nodiscard]] SteadyTime now() const override { return SteadyTime(elapsed_); }
  [[nodiscard]] WallTime wall_now() const override {
    return start_ + std::chrono::duration_cast<WallTime::duration>(elapsed_ + set_by_);
  }
  void advance(std::chrono::nanoseconds by) { elapsed_ += by; }
  void set_wall_back(std::chrono::nanoseconds by) { set_by_ -= by; }

 private:
  std::chrono::nanoseconds elapsed_{0}, set_by_{0};
  WallTime start_ = std::chrono::system_clock::now();
};

class CertManagerTest : public ::testing::Test {
 protected:
  CertManager::Options options(double random = 0.0) {
    CertManager::Options out;
    out.random = [random] { return random; };
    return out;
  }
  CertManager make(double random = 0.0) {
    return {source_, store_, clock_, [this](const state::Identity& i) { changed_.push_back(i); }, options(random)};
  }
  /// How often a step asks the CA.
  std::size_t asked_by_step(CertManager& manager) {
    const auto before = source_.asked.size();
    manager.step();
    return source_.asked.size() - before;
  }

  FakeSource source_;
  hbone::CertStore store_;
  TestClock clock_;
  std::vector<state::Identity> changed_;
};

TEST_F(CertManagerTest, IssuesWhatIsWantedOnce) {
  auto manager = make();
  manager.step();
  EXPECT_TRUE(source_.asked.empty());
  manager.want(kWeb);
  manager.want(kWeb);
  manager.want(kDb);
  manager.step();
  manager.want(kWeb);
  manager.step();
  EXPECT_THAT(source_.asked, ElementsAre(kDb, kWeb));
  EXPECT_THAT(changed_, ElementsAre(kDb, kWeb));
  ASSERT_NE(store_.get(kWeb), nullptr);
  EXPECT_EQ(store_.get(kWeb)->bundle().identity, kWeb);
  const auto status = manager.status();
  ASSERT_EQ(status.size(), 2U);
  EXPECT_EQ(status[1].identity, kWeb);
  EXPECT_EQ(status[1].serial, store_.get(kWeb)->serial());
  EXPECT_EQ(status[1].valid_until, store_.get(kWeb)->not_after());
  EXPECT_EQ(status[1].last_error, "");
}

TEST_F(CertManagerTest, RenewsAtHalfLifeAndEarlierByTheJitter) {
  for (const auto& [random, minutes] : {std::pair(0.0, 30), std::pair(0.99, 24)}) {
    auto manager = make(random);
    manager.want(kWeb);
    manager.step();
    const auto first = store_.get(kWeb);
    clock_.advance(std::chrono::minutes(minutes) - 10s);
    EXPECT_EQ(asked_by_step(manager), 0U) << minutes;
    clock_.advance(20s);
    source_.offset =
        std::chrono::duration_cast<std::chrono::seconds>(clock_.wall_now() - std::chrono::system_clock::now()) - 1s;
    EXPECT_EQ(asked_by_step(manager), 1U) << minutes;
    EXPECT_NE(store_.get(kWeb), first);
    EXPECT_EQ(asked_by_step(manager), 0U) << minutes;
    EXPECT_EQ(manager.status()[0].serial, store_.get(kWeb)->serial());
  }
}

TEST_F(CertManagerTest, SleepsUntilTheNextDueButNotLong) {
  auto manager = make();
  EXPECT_EQ(manager.step(), 60s);
  manager.want(kWeb);
  EXPECT_EQ(manager.step(), 60s);
  clock_.advance(29min + 50s);
  EXPECT_LE(manager.step(), 12s);
  EXPECT_GT(manager.step(), 0s);
}

TEST_F(CertManagerTest, FailuresAreReportedAndRetriedEverMoreSlowly) {
  auto manager = make();
  source_.error = Error{ErrorCode::kUnavailable, 0, "connect istiod: refused"};
  manager.want(kWeb);
  std::vector<std::chrono::milliseconds> waits;
  for (int i = 0; i < 9; ++i) {
    waits.push_back(manager.step());
    EXPECT_EQ(asked_by_step(manager), 0U);
    clock_.advance(waits.back());
  }
  EXPECT_THAT(waits, ElementsAre(1s, 2s, 4s, 8s, 16s, 32s, 60s, 60s, 60s));
  EXPECT_EQ(manager.status()[0].last_error, "connect istiod: refused");
  EXPECT_EQ(manager.status()[0].failures, 9U);
  EXPECT_FALSE(manager.status()[0].valid_until);
  EXPECT_TRUE(changed_.empty());
  source_.error.reset();
  EXPECT_EQ(asked_by_step(manager), 1U);
  EXPECT_EQ(manager.status()[0].failures, 0U);
  EXPECT_EQ(manager.status()[0].last_error, "");
  EXPECT_NE(store_.get(kWeb), nullptr);
}

TEST_F(CertManagerTest, RetriesAreSpread) {
  auto manager = make(0.5);
  source_.error = Error{ErrorCode::kUnavailable, 0, "x"};
  manager.want(kWeb);
  EXPECT_EQ(manager.step(), 750ms);
}

TEST_F(CertManagerTest, FailedRenewalKeepsTheOldCertificate) {
  auto manager = make();
  manager.want(kWeb);
  manager.step();
  const auto first = store_.get(kWeb);
  clock_.advance(31min);
  source_.error = Error{ErrorCode::kTimeout, 0, "slow"};
  EXPECT_EQ(asked_by_step(manager), 1U);
  EXPECT_EQ(store_.get(kWeb), first);
  EXPECT_EQ(manager.status()[0].last_error, "slow");
  EXPECT_EQ(manager.status()[0].valid_until, first->not_after());
}

TEST_F(CertManagerTest, OneFailingIdentityDoesNotHoldOthersUp) {
  auto manager = make();
  source_.during = [this](const state::Identity& identity) {
    source_.error = identity == kDb ? std::optional(Error{ErrorCode::kDenied, 0, "not yours"}) : std::nullopt;
  };
  manager.want(kDb);
  manager.want(kWeb);
  manager.step();
  EXPECT_EQ(store_.get(kDb), nullptr);
  EXPECT_NE(store_.get(kWeb), nullptr);
}

TEST_F(CertManagerTest, FirstCertificatesComeBeforeRenewals) {
  auto manager = make();
  manager.want(kDb);
  manager.step();
  clock_.advance(31min);
  manager.want(kWeb);
  source_.asked.clear();
  manager.step();
  ASSERT_GE(source_.asked.size(), 2U);
  EXPECT_EQ(source_.asked[0], kWeb);
  EXPECT_EQ(source_.asked[1], kDb);
}

TEST_F(CertManagerTest, WrongAnswersOfTheCaAreFailures) {
  auto manager = make();
  source_.issue_as = kDb;
  manager.want(kWeb);
  manager.step();
  EXPECT_THAT(manager.status()[0].last_error,
              HasSubstr("the CA issued for spiffe://cluster.local/ns/shop/sa/db instead"));
  source_.issue_as.reset();
  source_.lifetime = 10s;
  source_.offset = -1h;
  clock_.advance(1min);
  manager.step();
  EXPECT_THAT(manager.status()[0].last_error, HasSubstr("the CA issued a certificate that ended at 20"));
  EXPECT_EQ(store_.get(kWeb), nullptr);
  source_.during = [](const state::Identity&) { throw std::runtime_error("boom"); };
  clock_.advance(1min);
  manager.step();
  EXPECT_EQ(manager.status()[0].last_error, "the CA client failed: boom");
}

TEST_F(CertManagerTest, RenewAllIssuesAtOnceAlsoWhatWasIssuedJustNow) {
  auto manager = make();
  manager.want(kDb);
  manager.want(kWeb);
  manager.step();
  const auto before = store_.get(kWeb);
  EXPECT_EQ(asked_by_step(manager), 0U);
  manager.renew_all();
  EXPECT_EQ(manager.status()[1].valid_until, before->not_after());  // it is used until the next one is there
  EXPECT_EQ(asked_by_step(manager), 2U);
  EXPECT_NE(store_.get(kWeb), before);
  EXPECT_EQ(asked_by_step(manager), 0U);
}

/// What comes out of the CA may be what it was before it changed.
TEST_F(CertManagerTest, RenewAllWhileIssuingIsIssuedAgain) {
  auto manager = make();
  manager.want(kWeb);
  source_.during = [&](const state::Identity&) {
    if (source_.asked.size() == 1) manager.renew_all();
  };
  EXPECT_EQ(asked_by_step(manager), 2U);
  EXPECT_EQ(changed_.size(), 1U);
  EXPECT_EQ(manager.counts().issued, 1U);
}

TEST_F(CertManagerTest, RetryDoesNotWaitForWhatFailedAndLeavesTheRest) {
  auto manager = make();
  manager.want(kWeb);
  manager.step();
  source_.error = Error{ErrorCode::kUnavailable, 0, "no such directory"};
  manager.want(kDb);
  for (int i = 0; i < 6; ++i) clock_.advance(manager.step());
  EXPECT_EQ(asked_by_step(manager), 1U);
  EXPECT_EQ(asked_by_step(manager), 0U);
  source_.error.reset();
  manager.retry();
  source_.asked.clear();
  manager.step();
  EXPECT_THAT(source_.asked, ElementsAre(kDb));
  EXPECT_NE(store_.get(kDb), nullptr);
  EXPECT_EQ(manager.counts().issued, 2U);
  EXPECT_EQ(manager.counts().failed, 7U);
}

TEST_F(CertManagerTest, ARevokedCertificateHasASuccessorAtOnce) {
  auto manager = make();
  manager.want(kDb);
  manager.want(kWeb);
  manager.step();
  const auto before = store_.get(kWeb), other = store_.get(kDb);
  test::CrlOptions crl;
  crl.revoked = {before->bundle().certificate_pem};
  const auto lists = hbone::RevocationLists::parse(source_.ca.crl(crl), "crl", source_.ca.roots_pem()).value();
  source_.error = Error{ErrorCode::kUnavailable, 0, "away"};
  manager.set_revocations(lists);
  EXPECT_EQ(asked_by_step(manager), 1U);
  EXPECT_THAT(manager.status()[1].revoked, HasSubstr("certificate " + before->serial()));
  EXPECT_EQ(manager.status()[0].revoked, "");
  source_.error.reset();
  manager.retry();
  EXPECT_EQ(asked_by_step(manager), 1U);
  EXPECT_NE(store_.get(kWeb), before);
  EXPECT_EQ(store_.get(kDb), other);
  EXPECT_EQ(manager.status()[1].revoked, "");
}

TEST_F(CertManagerTest, WhatIsRevokedWhenItComesIsAFailure) {
  auto manager = make();
  test::TestCa below = source_.ca.intermediate();
  test::CrlOptions crl;
  crl.revoked = {below.issue(kWeb).chain_pem};
  manager.set_revocations(hbone::RevocationLists::parse(source_.ca.crl(crl), "crl", source_.ca.roots_pem()).value());
  std::swap(source_.ca, below);
  manager.want(kWeb);
  manager.step();
  EXPECT_EQ(store_.get(kWeb), nullptr);
  EXPECT_THAT(manager.status()[0].last_error, HasSubstr("the CA issued what is revoked already: issuing certificate "));
  EXPECT_EQ(asked_by_step(manager), 0U);  // not asked without end
}

TEST_F(CertManagerTest, ForgottenLeavesStoreAndWork) {
  auto manager = make();
  manager.want(kWeb);
  manager.step();
  manager.forget(kWeb);
  manager.forget(kWeb);
  EXPECT_EQ(store_.get(kWeb), nullptr);
  EXPECT_TRUE(manager.status().empty());
  clock_.advance(2h);
  EXPECT_EQ(asked_by_step(manager), 0U);
}

TEST_F(CertManagerTest, ForgottenWhileIssuingDoesNotComeBack) {
  auto manager = make();
  manager.want(kWeb);
  source_.during = [&](const state::Identity& identity) { manager.forget(identity); };
  manager.step();
  EXPECT_EQ(store_.get(kWeb), nullptr);
  EXPECT_TRUE(changed_.empty());
  source_.during = nullptr;
  manager.want(kWeb);
  manager.step();
  EXPECT_NE(store_.get(kWeb), nullptr);
}

TEST_F(CertManagerTest, WantedAgainWhileIssuingIsIssuedAnew) {
  auto manager = make();
  manager.want(kWeb);
  source_.during = [&](const state::Identity& identity) {
    if (source_.asked.size() > 1) return;
    manager.forget(identity);
    manager.want(identity);
  };
  manager.step();
  EXPECT_EQ(source_.asked.size(), 2U);
  EXPECT_EQ(changed_.size(), 1U);
}

TEST_F(CertManagerTest, ClockSetBackMeansANewCertificate) {
  auto manager = make();
  manager.want(kWeb);
  manager.step();
  clock_.set_wall_back(24h);
  clock_.advance(20s);
  EXPECT_EQ(asked_by_step(manager), 0U);  // not at once: the CA's clock may simply be ahead
  clock_.advance(20s);
  source_.offset = -25h;
  source_.lifetime = 26h;
  EXPECT_EQ(asked_by_step(manager), 1U);
  EXPECT_EQ(asked_by_step(manager), 0U);
}

TEST_F(CertManagerTest, CaWithAClockAheadIsNotAskedWithoutEnd) {
  auto manager = make();
  source_.offset = 1h;
  manager.want(kWeb);
  EXPECT_EQ(asked_by_step(manager), 1U);
  EXPECT_EQ(asked_by_step(manager), 0U);
  EXPECT_EQ(manager.step(), 30s);
}

TEST_F(CertManagerTest, ShortLivesAreRenewedInTime) {
  auto manager = make();
  source_.lifetime = 40s;
  manager.want(kWeb);
  EXPECT_EQ(asked_by_step(manager), 1U);
  EXPECT_EQ(asked_by_step(manager), 0U);
  EXPECT_LT(manager.step(), 25s);  // half of it, although nothing else is issued again within 30 s
  clock_.advance(25s);
  EXPECT_EQ(asked_by_step(manager), 1U);
}

TEST(CertManagerThread, IssuesWithoutBeingAskedToStep) {
  FakeSource source;
  hbone::CertStore store;
  std::promise<state::Identity> changed;
  CertManager manager(source, store, Clock::real(), [&](const state::Identity& i) { changed.set_value(i); });
  manager.start();
  manager.want(kWeb);
  auto future = changed.get_future();
  ASSERT_EQ(future.wait_for(20s), std::future_status::ready);
  EXPECT_EQ(future.get(), kWeb);
  EXPECT_NE(store.get(kWeb), nullptr);
}

TEST(CertManagerThread, StaysUsableWhileTheCaIsSlow) {
  FakeSource source;
  std::promise<void> reached, go_on;
  source.during = [&](const state::Identity&) {
    if (source.asked.size() > 1) return;
    reached.set_value();
    go_on.get_future().wait();
  };
  hbone::CertStore store;
  std::promise<void> changed;
  CertManager manager(source, store, Clock::real(), [&](const state::Identity&) { changed.set_value(); });
  manager.start();
  manager.want(kWeb);
  reached.get_future().wait();
  manager.want(kDb);
  manager.forget(kWeb);
  EXPECT_EQ(manager.status().size(), 1U);
  go_on.set_value();
  ASSERT_EQ(changed.get_future().wait_for(20s), std::future_status::ready);
  EXPECT_EQ(store.get(kWeb), nullptr);
  EXPECT_NE(store.get(kDb), nullptr);
}

TEST(CertManagerThread, EndsWhileItSleeps) {
  FakeSource source;
  hbone::CertStore store;
  CertManager manager(source, store, Clock::real(), nullptr);
  manager.start();
  EXPECT_TRUE(manager.status().empty());
}

}  // namespace
}  // namespace weft::agent
