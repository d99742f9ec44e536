// SPDX-License-Identifier: Apache-2.0
#include "agent/identity/local_ca.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>

#include "agent/identity/ca_revocation.h"
#include "agent/identity/ca_rotation.h"
#include "test/support/test_ca.h"
#include "test/unit/agent/identity/ca_fixture.h"

namespace weft::agent {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

/// What a LocalCa told, waited for.
class Told {
 public:
  LocalCa::Events events() {
    return {.replaced = [this] { add("replaced"); },
            .back = [this] { add("back"); },
            .revoked = [this](const hbone::RevocationsPtr&) { add("revoked"); }};
  }
  bool wait_for(const std::vector<std::string>& expected) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 20s, [&] { return all_ == expected; });
  }
  std::vector<std::string> all() {
    const std::lock_guard lock(mutex_);
    return all_;
  }

 private:
  void add(const char* what) {
    const std::lock_guard lock(mutex_);
    all_.emplace_back(what);
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> all_;
};

class LocalCaTest : public test::CaFixture {
 protected:
  LocalCa::Options options() { return {.directory = dir_, .crl_file = {}, .lifetime = 90s, .poll_interval = 100ms}; }
  std::unique_ptr<LocalCa> opened(LocalCa::Options with) {
    auto ca = LocalCa::open(std::move(with), clock_);
    EXPECT_TRUE(ca) << ca.error().message();
    if (!ca) return nullptr;
    EXPECT_TRUE((*ca)->start(told_.events()));
    return std::move(*ca);
  }
  std::unique_ptr<LocalCa> opened() { return opened(options()); }
  std::string refused() {
    auto ca = LocalCa::open(options(), clock_);
    EXPECT_FALSE(ca);
    return ca ? "" : ca.error().message();
  }
  static bool eventually(const std::function<bool()>& holds) {
    const auto deadline = std::chrono::steady_clock::now() + 20s;
    while (!holds()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(10ms);
    }
    return true;
  }
  void revoke_serial(const std::string& serial) {
    const auto done = revoke({.directory = dir_, .serials = {serial}, .certificates = {}});
    ASSERT_TRUE(done) << done.error().message();
  }

  Told told_;
};

TEST_F(LocalCaTest, IssuesForTheLifetimeThatWasAskedFor) {
  const auto ca = opened();
  const auto identity = hbone::TlsIdentity::create(ca->issue(test::kWeb).value());
  ASSERT_TRUE(identity);
  EXPECT_NEAR(std::chrono::duration<double>((*identity)->not_after() - clock_.wall_now()).count(), 90, 2);
  EXPECT_EQ(ca->status().problem, "");
  EXPECT_EQ(ca->status().directory, dir_);
  ASSERT_EQ(ca->status().roots.size(), 1U);
  EXPECT_TRUE(ca->status().roots[0].signs);
  EXPECT_EQ(ca->revocations(), nullptr);
}

TEST_F(LocalCaTest, FollowsARotationStepByStep) {
  const auto ca = opened();
  const auto signer = [&] {
    for (const auto& root : ca->status().roots) {
      if (root.signs) return root.sha256;
    }
    return std::string();
  };
  const std::string first = signer();
  ASSERT_TRUE(rotate_prepare(dir_));
  ASSERT_TRUE(told_.wait_for({"replaced"}));
  EXPECT_EQ(ca->status().roots.size(), 2U);
  EXPECT_EQ(signer(), first);
  ASSERT_TRUE(rotate_activate(dir_, true));
  ASSERT_TRUE(told_.wait_for({"replaced", "replaced"}));
  EXPECT_NE(signer(), first);
  ASSERT_TRUE(rotate_finish(dir_, true));
  ASSERT_TRUE(told_.wait_for({"replaced", "replaced", "replaced"}));
  ASSERT_EQ(ca->status().roots.size(), 1U);
  EXPECT_NE(signer(), first);
}

TEST_F(LocalCaTest, WithoutItsDirectoryNothingIsIssuedUntilItIsBack) {
  const auto ca = opened();
  const std::string root = ca->status().roots.at(0).sha256;
  fs::rename(dir_, base_ + "/away");
  ASSERT_TRUE(eventually([&] { return !ca->status().problem.empty(); }));
  EXPECT_THAT(ca->status().problem, HasSubstr("there is no such directory"));
  const auto refused = ca->issue(test::kWeb);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(refused.error().message(), HasSubstr("load the CA from " + dir_));
  EXPECT_EQ(ca->status().roots.at(0).sha256, root);  // what was trusted is
  fs::rename(base_ + "/away", dir_);
  ASSERT_TRUE(told_.wait_for({"back"}));
  EXPECT_EQ(ca->status().problem, "");
  EXPECT_TRUE(ca->issue(test::kWeb));
}

TEST_F(LocalCaTest, AKeyThatOthersMayReadIsRefusedUntilItIsClosed) {
  const auto ca = opened();
  const std::string key = dir_ + "/root-key.pem";
  fs::permissions(key, fs::perms::group_read, fs::perm_options::add);
  ASSERT_TRUE(eventually([&] { return !ca->status().problem.empty(); }));
  EXPECT_THAT(ca->status().problem, HasSubstr("its group or others may use it"));
  fs::permissions(key, fs::perms::group_read, fs::perm_options::remove);
  ASSERT_TRUE(told_.wait_for({"back"}));
  EXPECT_TRUE(ca->issue(test::kWeb));
}

TEST_F(LocalCaTest, ABrokenKeyIsToldAndAnotherRootIsNotTakenForAReturn) {
  const auto ca = opened();
  write(dir_ + "/root-key.pem", "rubbish");
  ASSERT_TRUE(eventually([&] { return !ca->status().problem.empty(); }));
  EXPECT_THAT(ca->status().problem, HasSubstr("not an unencrypted PEM private key"));
  ASSERT_TRUE(init_ca(base_ + "/other"));
  for (const char* name : {"/root.pem", "/root-key.pem"}) {
    fs::copy_file(base_ + "/other" + name, dir_ + name, fs::copy_options::overwrite_existing);
  }
  ASSERT_TRUE(told_.wait_for({"replaced"}));
}

TEST_F(LocalCaTest, RevocationsComeAndOnlyGrowByWhatIsSound) {
  const auto ca = opened();
  const auto bad = issued(), good = issued();
  revoke_serial(bad->serial());
  ASSERT_TRUE(told_.wait_for({"revoked"}));
  const auto is_revoked = [&] { return ca->revocations() && ca->revocations()->find(bad->chain()).has_value(); };
  EXPECT_TRUE(is_revoked());
  EXPECT_FALSE(ca->revocations()->find(good->chain()));
  const std::string sound = text_of("crl.pem");

  write(dir_ + "/crl.pem", sound.substr(0, 120));
  ASSERT_TRUE(eventually([&] { return ca->status().crl.refused == 1; }));
  EXPECT_THAT(ca->status().crl.problem, HasSubstr("CRL 1 is not a PEM CRL"));
  EXPECT_TRUE(is_revoked());

  std::string forged = sound;
  forged.replace(forged.size() - 60, 4, forged.compare(forged.size() - 60, 4, "AAAA") == 0 ? "BBBB" : "AAAA");
  write(dir_ + "/crl.pem", forged);
  ASSERT_TRUE(eventually([&] { return ca->status().crl.refused == 2; }));
  EXPECT_TRUE(is_revoked());

  fs::remove(dir_ + "/crl.pem");
  ASSERT_TRUE(eventually([&] { return !ca->status().crl.notes.empty(); }));
  EXPECT_THAT(ca->status().crl.notes, ElementsAre(HasSubstr("is not in the file any more; the last one counts")));
  EXPECT_EQ(ca->status().crl.problem, "");
  EXPECT_TRUE(is_revoked());

  write(dir_ + "/crl.pem", sound);
  ASSERT_TRUE(eventually([&] { return ca->status().crl.notes.empty(); }));
  EXPECT_TRUE(is_revoked());
}

TEST_F(LocalCaTest, AnExpiredListIsToldAndStillCounts) {
  const auto bad = issued();
  ASSERT_TRUE(revoke({.directory = dir_, .serials = {bad->serial()}, .certificates = {}, .next_update = 60s}));
  const auto ca = opened();
  EXPECT_THAT(ca->status().crl.notes, IsEmpty());
  ca->stop();
  clock_.by = 61s;
  EXPECT_THAT(ca->status().crl.notes, ElementsAre(HasSubstr("expired at 20")));
  EXPECT_TRUE(ca->revocations()->find(bad->chain()));
}

TEST_F(LocalCaTest, StartsWithoutAListButNotWithABrokenOne) {
  LocalCa::Options elsewhere = options();
  elsewhere.crl_file = base_ + "/crl/ca-crl.pem";
  {
    const auto ca = opened(elsewhere);
    EXPECT_EQ(ca->status().crl.file, base_ + "/crl/ca-crl.pem");
    const auto bad = issued();
    revoke_serial(bad->serial());
    fs::create_directory(base_ + "/crl");
    fs::rename(dir_ + "/crl.pem", base_ + "/crl/ca-crl.pem");
    ASSERT_TRUE(told_.wait_for({"revoked"}));
  }
  write(dir_ + "/crl.pem", " \n");
  EXPECT_EQ(opened()->revocations(), nullptr);
  write(dir_ + "/crl.pem", "rubbish");
  EXPECT_THAT(refused(), HasSubstr("crl.pem: no CRL in it"));
  const weft::test::TestCa other("other root");
  write(dir_ + "/crl.pem", other.crl());
  EXPECT_FALSE(opened()->status().crl.lists.at(0).verified);
}

TEST_F(LocalCaTest, ARootThatLeavesTakesItsListWithIt) {
  ASSERT_TRUE(rotate_prepare(dir_));
  const auto old = issued();
  revoke_serial(old->serial());
  const auto ca = opened();
  EXPECT_EQ(ca->status().crl.lists.size(), 2U);
  ASSERT_TRUE(rotate_activate(dir_, true));
  ASSERT_TRUE(rotate_finish(dir_, true));
  ASSERT_TRUE(eventually([&] { return ca->status().roots.size() == 1 && ca->status().crl.lists.size() == 1; }));
  EXPECT_THAT(ca->status().crl.notes, IsEmpty());
}

TEST_F(LocalCaTest, OpenSaysWhatIsWrongWithTheDirectory) {
  fs::remove(dir_ + "/root-key.pem");
  EXPECT_THAT(refused(), HasSubstr("root-key.pem is missing"));
}

}  // namespace
}  // namespace weft::agent
