// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <sys/wait.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cstdio>
#include <set>
#include <sstream>

#include "agent/cli/commands.h"
#include "agent/cli/completion.h"
#include "agent/cli/suggest.h"
#include "test/unit/agent/fakes.h"

namespace weft::cli {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using ::testing::Not;

std::string script(const std::string& shell) {
  const std::array<const char*, 3> argv{"weftctl", "completion", shell.c_str()};
  std::ostringstream out, err;
  EXPECT_EQ(run(argv.size(), argv.data(), out, err), kOk) << err.str();
  return out.str();
}

std::string output_of(const std::string& command) {
  std::string text;
  FILE* pipe = ::popen(command.c_str(), "r");
  std::array<char, 4096> block{};
  while (pipe != nullptr && std::fgets(block.data(), block.size(), pipe) != nullptr) text += block.data();
  EXPECT_EQ(pipe != nullptr ? ::pclose(pipe) : -1, 0) << command;
  return text;
}

/// What bash would offer behind these words; the last one is being typed.
std::vector<std::string> completed(const std::vector<std::string>& typed) {
  const agent::test::TemporaryDirectory directory;
  const std::string path = directory.path() + "/weftctl.bash";
  FILE* file = std::fopen(path.c_str(), "w");
  const std::string text = script("bash");
  EXPECT_EQ(std::fwrite(text.data(), 1, text.size(), file), text.size());
  EXPECT_EQ(std::fclose(file), 0);
  std::string words;
  for (const auto& word : typed) words += " '" + word + "'";
  std::istringstream out(output_of("bash -c 'source " + path + "; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); " +
                                   "_weftctl; echo \"${COMPREPLY[@]}\"' bash" + words));
  return {std::istream_iterator<std::string>(out), {}};
}

TEST(Completion, BashOffersCommandsOptionsAndValues) {
  EXPECT_THAT(completed({"weftctl", ""}), IsSupersetOf({"status", "pods", "policies", "explain", "ca", "--help"}));
  EXPECT_THAT(completed({"weftctl", "po"}), ElementsAre("pods", "policies"));
  EXPECT_THAT(completed({"weftctl", "pods", "--o"}), ElementsAre("--output"));
  EXPECT_THAT(completed({"weftctl", "pods", "-o", ""}), ElementsAre("table", "json"));
  EXPECT_THAT(completed({"weftctl", "pods", "--output", "j"}), ElementsAre("json"));
  EXPECT_THAT(completed({"weftctl", "pods", "--admin", ""}), ElementsAre());
  EXPECT_THAT(completed({"weftctl", "ca", ""}), IsSupersetOf({"init", "issue"}));
  EXPECT_THAT(completed({"weftctl", "ca", "issue", "--"}), IsSupersetOf({"--identity", "--out", "--ttl"}));
  EXPECT_THAT(completed({"weftctl", "log-level", "de"}), ElementsAre("debug"));
  EXPECT_THAT(completed({"weftctl", "completion", "z"}), ElementsAre("zsh"));
}

/// Whatever is added to the application is in all three.
TEST(Completion, ComesFromTheApplication) {
  CLI::App app{"", "weftctl"};
  app.add_subcommand("dance", "it's a dance")->add_option("--with", "whom")->check(CLI::IsMember({"you", "me"}));
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const std::string text = completion_script(app, shell);
    EXPECT_THAT(text, ::testing::AllOf(HasSubstr("weftctl dance"), HasSubstr("with"), HasSubstr("'you me'")));
    EXPECT_THAT(text, Not(HasSubstr("explain")));
  }
  EXPECT_THAT(completion_script(app, "fish"), HasSubstr("-a dance -d 'it'\\''s a dance'"));
  EXPECT_THAT(completion_script(app, "zsh"), HasSubstr("#compdef weftctl"));
}

TEST(Suggest, TheNearestWordOrNone) {
  const std::vector<std::string> known{"pods", "policies", "services"};
  EXPECT_EQ(nearest("pod", known), "pods");
  EXPECT_EQ(nearest("polices", known), "policies");
  EXPECT_EQ(nearest("serv", known), "services");
  EXPECT_EQ(nearest("sevrices", known), "services");
  EXPECT_EQ(nearest("zebra", known), std::nullopt);
  EXPECT_EQ(nearest("", known), std::nullopt);
}

TEST(Suggest, FindsTheWordThatDoesNotExist) {
  CLI::App app{"", "weftctl"};
  auto* ca = app.add_subcommand("ca");
  ca->add_subcommand("issue")->add_option("--identity");
  EXPECT_EQ(unknown_word(app, {"cs"}), "unknown command \"cs\": did you mean \"ca\"?");
  EXPECT_EQ(unknown_word(app, {"ca", "isue"}), "unknown command \"isue\": did you mean \"issue\"?");
  EXPECT_EQ(unknown_word(app, {"ca", "zebra"}), "unknown command \"zebra\"");
  EXPECT_EQ(unknown_word(app, {"ca", "issue", "--identiy=x"}),
            "unknown option \"--identiy\": did you mean \"--identity\"?");
  EXPECT_EQ(unknown_word(app, {"ca", "issue", "--identity", "x", "word"}), "");
}

}  // namespace
}  // namespace weft::cli
