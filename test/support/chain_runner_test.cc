// SPDX-License-Identifier: Apache-2.0
#include "test/support/chain_runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <sstream>

#include "test/support/netns.h"

namespace weft::chain {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

/// Plugins that are shell scripts: each writes its verb and name to a log and its stdin to a file of its own.
class ChainRunnerTest : public testing::Test {
 protected:
  void plugin(const std::string& name, const std::string& body) {
    const std::string path =
        dir_.write("bin/" + name, "#!/bin/sh\necho \"$CNI_COMMAND " + name + "\" >> " + dir_.path() + "/log\ncat > " +
                                      dir_.path() + "/" + name + ".$CNI_COMMAND\nenv > " + dir_.path() + "/" + name +
                                      ".env\n" + body + "\n");
    ASSERT_EQ(::chmod(path.c_str(), 0755), 0);
  }
  /// Answers ADD with a result that names the plugin, all else with nothing.
  void working_plugin(const std::string& name) {
    plugin(name, "[ $CNI_COMMAND != ADD ] || echo '{\"cniVersion\":\"1.1.0\",\"by\":\"" + name + "\"}'");
  }
  [[nodiscard]] Result<ChainRunner> load(const std::string& version = "1.1.0", Options options = {}) const {
    Json list = {{"cniVersion", version},
                 {"name", "net"},
                 {"plugins",
                  {{{"type", "first"}, {"capabilities", {{"portMappings", true}, {"bandwidth", false}}}},
                   {{"type", "second"}, {"key", 7}}}}};
    options.plugin_path = {"/nonexistent", dir_.path() + "/bin"};
    options.cache_dir = dir_.path() + "/cache";
    options.cni_args = "A=1";
    return ChainRunner::load(dir_.write("net.conflist", list.dump()), options);
  }
  [[nodiscard]] std::vector<std::string> log() const {
    std::istringstream lines(test::read_file(dir_.path() + "/log"));
    std::vector<std::string> out;
    for (std::string line; std::getline(lines, line);) out.push_back(line);
    return out;
  }
  [[nodiscard]] Json input(const std::string& plugin, const std::string& command) const {
    return Json::parse(test::read_file(dir_.path() + "/" + plugin + "." + command));
  }

  test::ScratchDir dir_;
  Attachment attachment_{"/run/netns/x", "c1", "eth0"};
};

TEST_F(ChainRunnerTest, AddCheckDelInTheirOrders) {
  working_plugin("first");
  working_plugin("second");
  const auto runner = load();
  ASSERT_TRUE(runner) << runner.error().message();
  const auto added = runner->add(attachment_);
  ASSERT_TRUE(added && added->ok);
  EXPECT_EQ(added->document, R"({"cniVersion":"1.1.0","by":"second"})");
  EXPECT_TRUE(runner->check(attachment_)->ok);
  EXPECT_TRUE(runner->del(attachment_)->ok);
  EXPECT_THAT(log(), ElementsAre("ADD first", "ADD second", "CHECK first", "CHECK second", "DEL second", "DEL first"));
  EXPECT_FALSE(input("first", "ADD").contains("prevResult"));
  EXPECT_EQ(input("second", "ADD")["prevResult"]["by"], "first");
  EXPECT_EQ(input("first", "CHECK")["prevResult"]["by"], "second");
  EXPECT_EQ(input("second", "DEL")["prevResult"]["by"], "second");
}

TEST_F(ChainRunnerTest, PluginsGetTheListsNameVersionAndTheEnvironment) {
  working_plugin("first");
  working_plugin("second");
  Options options;
  options.capability_args = {{"portMappings", {1}}, {"bandwidth", 2}, {"other", 3}};
  const auto runner = load("1.1.0", options);
  ASSERT_TRUE(runner->add(attachment_)->ok);
  EXPECT_EQ(input("second", "ADD")["name"], "net");
  EXPECT_EQ(input("second", "ADD")["cniVersion"], "1.1.0");
  EXPECT_EQ(input("second", "ADD")["key"], 7);
  EXPECT_FALSE(input("second", "ADD").contains("runtimeConfig"));
  EXPECT_EQ(input("first", "ADD")["runtimeConfig"], (Json{{"portMappings", {1}}}));
  const std::string environment = test::read_file(dir_.path() + "/first.env");
  for (const char* line : {"CNI_COMMAND=ADD\n", "CNI_CONTAINERID=c1\n", "CNI_NETNS=/run/netns/x\n", "CNI_IFNAME=eth0\n",
                           "CNI_ARGS=A=1\n", "CNI_PATH=/nonexistent:"}) {
    EXPECT_THAT(environment, HasSubstr(line));
  }
}

TEST_F(ChainRunnerTest, AFailingAddIsTakenBack) {
  working_plugin("first");
  plugin("second", "[ $CNI_COMMAND != ADD ] || { echo '{\"code\": 11, \"msg\": \"away\"}'; exit 1; }");
  const auto runner = load();
  const auto added = runner->add(attachment_);
  ASSERT_TRUE(added);
  EXPECT_FALSE(added->ok);
  EXPECT_EQ(added->document, R"({"code":11,"msg":"away"})");
  EXPECT_THAT(log(), ElementsAre("ADD first", "ADD second", "DEL second", "DEL first"));
  EXPECT_FALSE(input("second", "DEL").contains("prevResult"));
  EXPECT_FALSE(runner->check(attachment_));
}

TEST_F(ChainRunnerTest, APluginThatDiesOrSaysNothingIsNamed) {
  working_plugin("first");
  plugin("second", "[ $CNI_COMMAND != ADD ] || kill -9 $$");
  const auto killed = load()->add(attachment_);
  ASSERT_TRUE(killed);
  EXPECT_FALSE(killed->ok);
  EXPECT_THAT(killed->document, HasSubstr("second ended with status 137"));
  plugin("second", "exit 0");
  const auto silent = load()->add(attachment_);
  ASSERT_TRUE(silent);
  EXPECT_FALSE(silent->ok);
  EXPECT_THAT(silent->document, HasSubstr("second succeeded without a result"));
}

TEST_F(ChainRunnerTest, OldListsHaveFewerVerbs) {
  working_plugin("first");
  working_plugin("second");
  const auto runner = load("0.3.1");
  ASSERT_TRUE(runner->add(attachment_)->ok);
  EXPECT_FALSE(runner->check(attachment_));
  EXPECT_TRUE(runner->del(attachment_)->ok);
  EXPECT_FALSE(input("second", "DEL").contains("prevResult"));
  EXPECT_TRUE(runner->gc()->ok);
  EXPECT_TRUE(runner->status()->ok);
  EXPECT_THAT(log(), ElementsAre("ADD first", "ADD second", "DEL second", "DEL first"));
}

TEST_F(ChainRunnerTest, GcHasAListOnlyWhenOneIsGiven) {
  working_plugin("first");
  working_plugin("second");
  EXPECT_TRUE(load()->gc()->ok);
  EXPECT_FALSE(input("second", "GC").contains("cni.dev/valid-attachments"));
  Options options;
  options.valid = {"c1/eth0"};
  EXPECT_TRUE(load("1.1.0", options)->gc()->ok);
  EXPECT_EQ(input("second", "GC")["cni.dev/valid-attachments"],
            Json::parse(R"([{"containerID":"c1","ifname":"eth0"}])"));
  options.valid.emplace();
  EXPECT_TRUE(load("1.1.0", options)->gc()->ok);
  EXPECT_EQ(input("second", "GC")["cni.dev/valid-attachments"], Json::array());
}

TEST_F(ChainRunnerTest, AMissingPluginIsNamed) {
  working_plugin("first");
  const auto added = load()->add(attachment_);
  ASSERT_FALSE(added);
  EXPECT_EQ(added.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(added.error().message(), HasSubstr("find the plugin second in CNI_PATH /nonexistent:"));
}

TEST_F(ChainRunnerTest, ListsThatAreNoneAreRefused) {
  for (const char* text : {"", "{", "[]", R"({"name":"x"})", R"({"name":"x","plugins":[]})", R"({"plugins":[{}]})",
                           R"({"name":"x","plugins":[{"type":"../x"}]})"}) {
    const auto runner = ChainRunner::load(dir_.write("bad.conflist", text), {});
    ASSERT_FALSE(runner) << text;
    EXPECT_EQ(runner.error().code, ErrorCode::kInvalid) << text;
  }
  EXPECT_FALSE(ChainRunner::load(dir_.path() + "/missing", {}));
}

}  // namespace
}  // namespace weft::chain
