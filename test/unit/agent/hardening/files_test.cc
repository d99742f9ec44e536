// SPDX-License-Identifier: Apache-2.0
#include "agent/hardening/files.h"

#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace weft::agent::hardening {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class HardeningFiles : public ::testing::Test {
 protected:
  HardeningFiles() {
    std::string name = (fs::temp_directory_path() / "weft-files.XXXXXX").string();
    base_ = ::mkdtemp(name.data()) != nullptr ? name : "";
    fs::create_directory(folder());
    std::ofstream(file()) << "x";
    set_mode(folder(), 0700);
    set_mode(file(), 0600);
  }
  ~HardeningFiles() override { fs::remove_all(base_); }

  [[nodiscard]] std::string folder() const { return base_ + "/run"; }
  [[nodiscard]] std::string file() const { return folder() + "/file"; }
  static void set_mode(const std::string& path, mode_t mode) { EXPECT_EQ(::chmod(path.c_str(), mode), 0) << path; }
  static mode_t mode_of(const std::string& path) {
    struct stat st {};
    EXPECT_EQ(::stat(path.c_str(), &st), 0) << path;
    return st.st_mode & 07777;
  }
  static std::string refusal(const std::string& path) {
    const auto closed = close_folder(path);
    return closed ? "" : closed.error().message();
  }

  std::string base_;
};

TEST_F(HardeningFiles, AFolderThatOthersReadIsClosed) {
  for (const mode_t mode : {0755, 0711, 0750, 0701}) {
    set_mode(folder(), mode);
    EXPECT_EQ(refusal(folder()), "");
    EXPECT_EQ(mode_of(folder()), 0700U);
  }
  EXPECT_EQ(refusal(folder()), "");
  EXPECT_EQ(refusal(base_ + "/missing"), "");
  EXPECT_FALSE(fs::exists(base_ + "/missing"));
}

TEST_F(HardeningFiles, OneThatOthersWriteIsRefused) {
  for (const mode_t mode : {0770, 0707, 0720, 01777}) {
    set_mode(folder(), mode);
    EXPECT_THAT(refusal(folder()),
                HasSubstr("use the folder " + folder() + ": its group or others may write to it: mode "));
    EXPECT_EQ(mode_of(folder()), mode) << "it was changed all the same";
  }
  EXPECT_THAT(refusal(file()), HasSubstr("Not a directory"));
}

TEST_F(HardeningFiles, OneOfAnotherUserIsRefused) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root: gives a folder away";
  ASSERT_EQ(::chown(folder().c_str(), 65534, 65534), 0);
  EXPECT_THAT(refusal(folder()), HasSubstr("it belongs to uid 65534, so what lies there may not be this agent's"));
}

TEST_F(HardeningFiles, WhoCouldWriteIsFound) {
  EXPECT_EQ(who_could_write(file()), "");
  EXPECT_EQ(who_could_write(folder()), "");
  EXPECT_EQ(who_could_write(folder() + "/missing"), "");
  set_mode(file(), 0644);
  set_mode(folder(), 0755);
  EXPECT_EQ(who_could_write(file()), "");
  EXPECT_EQ(who_could_write(folder()), "");
  set_mode(file(), 0664);
  set_mode(folder(), 0757);
  EXPECT_EQ(who_could_write(file()), "its group or others may write to it: mode 0664");
  EXPECT_EQ(who_could_write(folder()), "its group or others may write to it: mode 0757");
  // As /tmp: others may make files there, but not touch those of root.
  set_mode(folder(), 01777);
  EXPECT_EQ(who_could_write(folder()), "");
}

TEST_F(HardeningFiles, AnotherUsersFileCouldBeWrittenByHim) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root: gives a file away";
  ASSERT_EQ(::chown(file().c_str(), 65534, 65534), 0);
  EXPECT_EQ(who_could_write(file()), "it belongs to uid 65534");
}

}  // namespace
}  // namespace weft::agent::hardening
