// SPDX-License-Identifier: Apache-2.0
#include "agent/identity/ca_rotation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "agent/identity/ca_revocation.h"
#include "test/unit/agent/identity/ca_fixture.h"

namespace weft::agent {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using Step = Rotation::Step;

class CaRotation : public test::CaFixture {
 protected:
  [[nodiscard]] Step step() const {
    const auto state = rotation_state(dir_);
    EXPECT_TRUE(state) << state.error().message();
    return state ? state->step : Step::kNone;
  }
  template <class T>
  static std::string refused(const Result<T>& result) {
    EXPECT_FALSE(result);
    return result ? "" : result.error().message();
  }
};

TEST_F(CaRotation, WhatEachStepIssuesIsTrustedByTheStepsBesideIt) {
  const auto before = issued();
  ASSERT_TRUE(rotate_prepare(dir_));
  const auto prepared = issued();
  ASSERT_TRUE(rotate_activate(dir_, true));
  const auto activated = issued();
  ASSERT_TRUE(rotate_finish(dir_, true));
  const auto finished = issued();
  EXPECT_TRUE(trust_each_other(*before, *prepared));
  EXPECT_TRUE(trust_each_other(*prepared, *activated));
  EXPECT_TRUE(trust_each_other(*activated, *finished));
  // The steps are needed: what is two of them apart is refused.
  EXPECT_FALSE(trust_each_other(*before, *activated));
  EXPECT_FALSE(trust_each_other(*prepared, *finished));
  EXPECT_FALSE(trust_each_other(*before, *finished));
}

TEST_F(CaRotation, FilesOfEachStep) {
  const std::string old_root = text_of("root.pem"), old_key = text_of("root-key.pem");
  const auto prepared = rotate_prepare(dir_);
  ASSERT_TRUE(prepared);
  EXPECT_THAT(*prepared,
              AllOf(HasSubstr("copy root.pem to every node"), HasSubstr("weftctl ca rotate activate " + dir_)));
  const std::string both = text_of("root.pem"), new_key = text_of("next-key.pem");
  EXPECT_TRUE(both.starts_with(old_root));
  EXPECT_EQ(text_of("root-key.pem"), old_key);
  struct stat status {};
  ASSERT_EQ(::stat((dir_ + "/next-key.pem").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777U, 0600U);

  const auto activated = rotate_activate(dir_, true);
  ASSERT_TRUE(activated) << activated.error().message();
  EXPECT_THAT(*activated, HasSubstr("copy root-key.pem to every node"));
  EXPECT_EQ(text_of("root.pem"), both);
  EXPECT_EQ(text_of("root-key.pem"), new_key);
  EXPECT_EQ(text_of("previous-key.pem"), old_key);
  EXPECT_FALSE(has("next-key.pem"));
  ASSERT_EQ(::stat((dir_ + "/root-key.pem").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777U, 0600U);

  ASSERT_TRUE(rotate_finish(dir_, true));
  EXPECT_EQ(text_of("root.pem"), both.substr(old_root.size()));
  EXPECT_EQ(std::distance(fs::directory_iterator(dir_), fs::directory_iterator()), 2);
  EXPECT_EQ(step(), Step::kNone);
  EXPECT_TRUE(rotate_prepare(dir_));  // and once more, years later
}

TEST_F(CaRotation, AWrongOrderIsRefusedAndChangesNothing) {
  const std::string root = text_of("root.pem");
  EXPECT_THAT(
      refused(rotate_activate(dir_, true)),
      HasSubstr("cannot activate a new root: no rotation is under way (begin with `weftctl ca rotate prepare`)"));
  EXPECT_THAT(refused(rotate_finish(dir_, true)), HasSubstr("cannot take the old root out: no rotation"));
  EXPECT_THAT(refused(rotate_back(dir_, true)), HasSubstr("cannot go back: no rotation"));
  EXPECT_EQ(text_of("root.pem"), root);
  ASSERT_TRUE(rotate_prepare(dir_));
  EXPECT_THAT(refused(rotate_prepare(dir_)), HasSubstr("a new root is prepared and does not sign yet"));
  EXPECT_THAT(refused(rotate_finish(dir_, true)), HasSubstr("a new root is prepared and does not sign yet"));
  ASSERT_TRUE(rotate_activate(dir_, true));
  EXPECT_THAT(refused(rotate_prepare(dir_)), HasSubstr("the new root signs and the old one is still trusted"));
  EXPECT_THAT(refused(rotate_activate(dir_, true)), HasSubstr("go on with `weftctl ca rotate finish`"));
  EXPECT_EQ(step(), Step::kActivated);
}

TEST_F(CaRotation, AStepWaitsUntilTheOneBeforeCanHaveBeenSeen) {
  ASSERT_TRUE(rotate_prepare(dir_));
  EXPECT_THAT(
      refused(rotate_activate(dir_, false, clock_)),
      AllOf(HasSubstr("the last step was made "), HasSubstr("agents may take 10 s to see it"), HasSubstr("--now")));
  clock_.by = std::chrono::seconds(12);
  EXPECT_TRUE(rotate_activate(dir_, false, clock_));
  clock_.by = std::chrono::seconds(0);
  EXPECT_THAT(refused(rotate_finish(dir_, false, clock_)), HasSubstr("the last step was made "));
  EXPECT_THAT(refused(rotate_back(dir_, false, clock_)), HasSubstr("the last step was made "));
  clock_.by = std::chrono::seconds(12);
  EXPECT_TRUE(rotate_finish(dir_, false, clock_));
}

TEST_F(CaRotation, BackStepByStep) {
  const std::string root = text_of("root.pem"), key = text_of("root-key.pem");
  ASSERT_TRUE(rotate_prepare(dir_));
  ASSERT_TRUE(rotate_activate(dir_, true));
  const auto of_new = issued();
  auto back = rotate_back(dir_, true);
  ASSERT_TRUE(back) << back.error().message();
  EXPECT_THAT(*back, HasSubstr("signs again"));
  EXPECT_EQ(step(), Step::kPrepared);
  EXPECT_EQ(text_of("root-key.pem"), key);
  EXPECT_TRUE(trust_each_other(*of_new, *issued()));
  ASSERT_TRUE(rotate_activate(dir_, true));  // the same new root
  EXPECT_EQ(X509_cmp(issued()->chain().back(), of_new->chain().back()), 0);
  ASSERT_TRUE(rotate_back(dir_, true));
  ASSERT_TRUE(rotate_back(dir_, true));
  EXPECT_EQ(text_of("root.pem"), root);
  EXPECT_EQ(std::distance(fs::directory_iterator(dir_), fs::directory_iterator()), 2);
}

TEST_F(CaRotation, StateIsToldFromTheFiles) {
  auto state = rotation_state(dir_);
  ASSERT_TRUE(state);
  EXPECT_EQ(state->step, Step::kNone);
  EXPECT_EQ(state->other, "");
  const std::string first = state->signing;
  EXPECT_THAT(first, HasSubstr("CN=Weft mesh root "));
  ASSERT_TRUE(rotate_prepare(dir_));
  state = rotation_state(dir_);
  EXPECT_EQ(state->step, Step::kPrepared);
  EXPECT_EQ(state->signing, first);
  EXPECT_EQ(state->trusted, 2U);
  const std::string second = state->other;
  ASSERT_TRUE(rotate_activate(dir_, true));
  state = rotation_state(dir_);
  EXPECT_EQ(state->step, Step::kActivated);
  EXPECT_EQ(state->signing, second);
  EXPECT_EQ(state->other, first);
  EXPECT_LT(*state->since, Clock::real().wall_now() + std::chrono::seconds(1));
}

/// The moments between the writes of one step.
TEST_F(CaRotation, StepsThatWereCutOffCanBeMadeAgain) {
  write(dir_ + "/next-key.pem", "a key whose root was never written");
  EXPECT_THAT(refused(rotation_state(dir_)), HasSubstr("next-key.pem: its group or others may use it"));
  fs::permissions(dir_ + "/next-key.pem", fs::perms::owner_read | fs::perms::owner_write);
  EXPECT_THAT(refused(rotation_state(dir_)), HasSubstr("next-key.pem: not an unencrypted PEM private key"));
  fs::copy_file(dir_ + "/root-key.pem", dir_ + "/next-key.pem", fs::copy_options::overwrite_existing);
  EXPECT_EQ(step(), Step::kNone);
  ASSERT_TRUE(rotate_prepare(dir_));
  // Activation has kept the old key and not exchanged it yet.
  fs::copy_file(dir_ + "/root-key.pem", dir_ + "/previous-key.pem");
  EXPECT_EQ(step(), Step::kPrepared);
  ASSERT_TRUE(rotate_activate(dir_, true));
  // The end has dropped the root and not the key yet.
  fs::copy_file(dir_ + "/previous-key.pem", base_ + "/kept");
  ASSERT_TRUE(rotate_finish(dir_, true));
  fs::copy_file(base_ + "/kept", dir_ + "/previous-key.pem");
  EXPECT_EQ(step(), Step::kNone);
  ASSERT_TRUE(rotate_prepare(dir_));
  EXPECT_FALSE(has("previous-key.pem"));
}

TEST_F(CaRotation, TheOldRootsRevocationsGoWithIt) {
  ASSERT_TRUE(rotate_prepare(dir_));
  ASSERT_TRUE(revoke({.directory = dir_, .serials = {"0102"}, .certificates = {}}));
  EXPECT_EQ(hbone::read_crls(text_of("crl.pem"), "crl")->size(), 2U);
  ASSERT_TRUE(rotate_activate(dir_, true));
  const auto finished = rotate_finish(dir_, true);
  ASSERT_TRUE(finished) << finished.error().message();
  EXPECT_THAT(*finished, HasSubstr("copy root.pem and crl.pem to every node"));
  const auto left = hbone::RevocationLists::parse(text_of("crl.pem"), "crl.pem", text_of("root.pem"));
  ASSERT_TRUE(left) << left.error().message();
  EXPECT_EQ((*left)->lists().size(), 1U);
  EXPECT_TRUE((*left)->lists()[0].verified);
}

TEST_F(CaRotation, OtherTrustedRootsStay) {
  ASSERT_TRUE(init_ca(base_ + "/friends"));
  const auto friends = read_pem_file(base_ + "/friends/root.pem").value();
  write(dir_ + "/root.pem", text_of("root.pem") + friends);
  ASSERT_TRUE(rotate_prepare(dir_));
  ASSERT_TRUE(rotate_activate(dir_, true));
  ASSERT_TRUE(rotate_finish(dir_, true));
  EXPECT_THAT(text_of("root.pem"), HasSubstr(friends));
  EXPECT_EQ(rotation_state(dir_)->trusted, 2U);
}

TEST_F(CaRotation, WithoutACaSaysWhatToDo) {
  EXPECT_THAT(refused(rotate_prepare(base_ + "/none")), HasSubstr("open directory " + base_ + "/none: No such file"));
  fs::create_directory(base_ + "/empty");
  EXPECT_THAT(refused(rotate_prepare(base_ + "/empty")), HasSubstr("weftctl ca init"));
}

}  // namespace
}  // namespace weft::agent
