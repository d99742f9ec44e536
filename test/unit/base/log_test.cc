// SPDX-License-Identifier: Apache-2.0
#include "tunnel/base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>

#include <filesystem>
#include <fstream>
#include <sstream>

namespace weft {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;

class LogTest : public ::testing::Test {
 protected:
  LogTest() : before_(spdlog::default_logger()) {
    std::string pattern = (std::filesystem::temp_directory_path() / "weft-log-XXXXXX").string();
    directory_ = ::mkdtemp(pattern.data());
    file_ = directory_ / "log";
  }
  ~LogTest() override {
    spdlog::set_default_logger(before_);
    std::filesystem::remove_all(directory_);
  }
  [[nodiscard]] std::string written() const {
    std::stringstream text;
    text << std::ifstream(file_).rdbuf();
    return text.str();
  }
  std::shared_ptr<spdlog::logger> before_;
  std::filesystem::path directory_, file_;
};

TEST_F(LogTest, TextLine) {
  ASSERT_TRUE(log::init("info", log::Format::kText, file_));
  log::info("pod added pod={} slot={}", "ns/a", 3);
  EXPECT_THAT(written(), MatchesRegex("[0-9-]+T[0-9:.]+Z info pod added pod=ns/a slot=3\n"));
}

TEST_F(LogTest, JsonLineEscapesTheMessage) {
  ASSERT_TRUE(log::init("info", log::Format::kJson, file_));
  log::warn("bad {}", "\"quoted\"\nnext");
  EXPECT_THAT(written(),
              MatchesRegex(R"re(\{"time":"[0-9-]+T[0-9:.]+Z","level":"warning","message":"bad \\"quoted\\"\\nnext"\}
)re"));
}

TEST_F(LogTest, LevelsHideWhatIsBelow) {
  ASSERT_TRUE(log::init("warn", log::Format::kText, file_));
  log::info("hidden");
  log::error("shown");
  ASSERT_TRUE(log::set_level("debug"));
  EXPECT_EQ(log::level(), "debug");
  log::debug("shown too");
  log::trace("hidden");
  ASSERT_TRUE(log::set_level("off"));
  log::error("hidden");
  spdlog::default_logger()->flush();
  const std::string text = written();
  EXPECT_THAT(text, HasSubstr("error shown\n"));
  EXPECT_THAT(text, HasSubstr("debug shown too\n"));
  EXPECT_THAT(text, ::testing::Not(HasSubstr("hidden")));
}

TEST_F(LogTest, EveryLevelHasItsName) {
  ASSERT_TRUE(log::init("info", log::Format::kText, file_));
  for (const char* name : {"error", "warn", "info", "debug", "trace", "off"}) {
    ASSERT_TRUE(log::set_level(name));
    EXPECT_EQ(log::level(), name);
  }
}

TEST_F(LogTest, AnUnknownLevelIsRefusedAndChangesNothing) {
  ASSERT_TRUE(log::init("info", log::Format::kText, file_));
  const auto result = log::set_level("loud");
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().message(), "log level 'loud': expected error, warn, info, debug, trace or off");
  EXPECT_EQ(log::level(), "info");
  EXPECT_FALSE(log::init("", log::Format::kText, file_));
}

TEST_F(LogTest, AFileThatCannotBeOpened) {
  const auto result = log::init("info", log::Format::kText, directory_ / "missing-link" / std::string(300, 'x'));
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().message(), HasSubstr("open log file "));
}

TEST(LogQuote, EscapesWhatWouldBreakALine) {
  EXPECT_EQ(log::quote("plain words"), "\"plain words\"");
  EXPECT_EQ(log::quote("a\"b\\c\nd"), "\"a\\\"b\\\\c\\nd\"");
  EXPECT_EQ(log::quote(std::string("\0\x1b[31m", 6)), "\"\\u0000\\u001b[31m\"");
  EXPECT_EQ(log::quote(""), "\"\"");
}

}  // namespace
}  // namespace weft
