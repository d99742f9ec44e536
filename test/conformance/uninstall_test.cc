// SPDX-License-Identifier: Apache-2.0
// `weft-cni uninstall`: the entry out first, the program last, and the owner's bytes as they were.
#include <filesystem>

#include "test/conformance/install_fixture.h"

namespace weft::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

class UninstallTest : public InstallTest {};

TEST_F(UninstallTest, OfNothingIsFine) {
  put("10-net.conflist", kPtpList);
  const Untouched before(conf("10-net.conflist"));
  EXPECT_EQ(uninstall().status, 0);
  EXPECT_EQ(Untouched(conf("10-net.conflist")), before);
  fs::remove_all(conf());
  fs::remove_all(bin());
  EXPECT_EQ(uninstall().status, 0);
}

TEST_F(UninstallTest, KeepsWhatTheOwnerChangedSince) {
  put("10-net.conflist", kPtpList);
  ASSERT_EQ(install().status, 0);
  std::string changed = text("10-net.conflist");
  changed.replace(changed.find("10.244.1.0"), 10, "10.250.9.0");
  put("10-net.conflist", changed);
  ASSERT_EQ(uninstall().status, 0);
  std::string expected = kPtpList;
  expected.replace(expected.find("10.244.1.0"), 10, "10.250.9.0");
  EXPECT_EQ(text("10-net.conflist"), expected);
}

TEST_F(UninstallTest, TakesTheEntryOutOfEveryFileThatMayComeBack) {
  put("10-net.conflist", kPtpList);
  ASSERT_EQ(install().status, 0);
  const std::string with_entry = text("10-net.conflist");
  put("20-old.conflist", with_entry);
  put("30-renamed.conflist.cilium_bak", with_entry);
  put("40-lone-weft.conflist.cilium_bak",
      R"({"cniVersion":"1.0.0","name":"x","weftFollows":"40-lone.conf","plugins":[{"type":"a"},{"type":"weft-cni"}]})");
  put("50-corrupt.conflist", with_entry.substr(0, with_entry.size() - 10));
  const auto removed = uninstall();
  ASSERT_EQ(removed.status, 0) << removed.err;
  EXPECT_EQ(text("10-net.conflist"), kPtpList);
  EXPECT_EQ(text("20-old.conflist"), kPtpList);
  EXPECT_EQ(text("30-renamed.conflist.cilium_bak"), kPtpList);
  EXPECT_THAT(removed.err, HasSubstr("50-corrupt.conflist"));
  EXPECT_EQ(text("50-corrupt.conflist"), with_entry.substr(0, with_entry.size() - 10));
  EXPECT_THAT(names(), Not(testing::Contains("40-lone-weft.conflist.cilium_bak")));
  EXPECT_TRUE(fs::is_empty(bin()));
}

TEST_F(UninstallTest, LeavesTheProgramIfTold) {
  put("10-net.conflist", kPtpList);
  ASSERT_EQ(install().status, 0);
  ASSERT_EQ(uninstall({"--keep-binary"}).status, 0);
  EXPECT_EQ(text("10-net.conflist"), kPtpList);
  EXPECT_TRUE(fs::exists(program()));
}

TEST_F(UninstallTest, TheProgramStaysWhereAnEntryCannotBeTakenOut) {
  put("10-net.conflist", kPtpList);
  ASSERT_EQ(install().status, 0);
  const auto refused = on_read_only_folder("uninstall");
  EXPECT_EQ(refused.status, 1) << refused.err;
  EXPECT_TRUE(has_entry("10-net.conflist"));
  EXPECT_TRUE(fs::exists(program())) << "a list names it";
}

}  // namespace
}  // namespace weft::test
