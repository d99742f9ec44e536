// SPDX-License-Identifier: Apache-2.0
// The pure parts of the installer: lists as text, the pace of repairs, the command line.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cni-plugin/install_backoff.h"
#include "cni-plugin/install_command.h"
#include "cni-plugin/install_list.h"
#include "cni-plugin/install_scan.h"

namespace weft::cni::install {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const Json kEntry = {{"type", "weft-cni"}, {"logLevel", "info"}};
const std::string kEntryText = R"({"type":"weft-cni","logLevel":"info"})";

std::string list_of(const std::string& plugins) {
  return R"({"cniVersion":"1.0.0","name":"x","plugins":)" + plugins + "}";
}

std::string with_entry(const std::string& text) {
  const auto list = ConfList::parse(text);
  if (!list) return list.error().message();
  const auto edited = list->with_entry(kEntry);
  return edited ? *edited : edited.error().message();
}

std::string without_entry(const std::string& text) {
  const auto list = ConfList::parse(text);
  if (!list) return list.error().message();
  const auto edited = list->without_entry();
  return edited ? *edited : edited.error().message();
}

std::vector<std::string> parts(const std::string& text) {
  std::vector<std::string> found;
  for (const Span span : plugins_of(text)) found.emplace_back(span.of(text));
  return found;
}

TEST(InstallScan, FindsTheElementsWhateverIsInThem) {
  EXPECT_THAT(parts(R"({"plugins":[{"a":"]}\"["},[1,{"b":2}], 17 ,null,"x"]})"),
              ElementsAre(R"({"a":"]}\"["})", R"([1,{"b":2}])", "17", "null", R"("x")"));
  EXPECT_THAT(parts(R"({"x":{"plugins":[1]},"y":-1.5e3,"plugins" : [ ] })"), ElementsAre());
  EXPECT_THAT(parts(R"({"plu\u0067ins":[1],"plugins":[2]})"), ElementsAre("1", "2"));
  EXPECT_THAT(parts(R"({"plugins":"[1]"})"), ElementsAre());
  EXPECT_THAT(parts("{}"), ElementsAre());
}

TEST(InstallList, AppendsAsTheElementsBeforeStand) {
  EXPECT_EQ(with_entry(list_of(R"([{"type":"a"}])")), list_of(R"([{"type":"a"},)" + kEntryText + "]"));
  EXPECT_EQ(with_entry(list_of("[\n  {\"type\":\"a\"}\n]")),
            list_of("[\n  {\"type\":\"a\"},\n  " + kEntryText + "\n]"));
  EXPECT_EQ(with_entry(list_of(R"([{"type":"a"}, {"type":"b"} ])")),
            list_of(R"([{"type":"a"}, {"type":"b"}, )" + kEntryText + " ]"));
}

TEST(InstallList, OnePlaceAndOneEntry) {
  const std::string wanted = list_of(R"([{"type":"a"},)" + kEntryText + "]");
  EXPECT_EQ(with_entry(wanted), wanted);
  const std::string sorted = list_of(R"([{"type":"a"},{"logLevel":"info","type":"weft-cni"}])");
  EXPECT_EQ(with_entry(sorted), sorted) << "the order of keys is no difference";
  EXPECT_EQ(with_entry(list_of(R"([{"type":"a"},{"type":"weft-cni"}])")), wanted);
  EXPECT_EQ(with_entry(list_of(R"([{"type":"weft-cni"},{"type":"a"}])")), wanted);
  EXPECT_EQ(with_entry(list_of(R"([{"type":"weft-cni"},{"type":"a"},{"type":"weft-cni"}])")), wanted);
}

TEST(InstallList, TakingOutUndoesPuttingIn) {
  for (const std::string plugins : {R"([{"type":"a"}])", "[ {\"type\":\"a\"}\n]",
                                    "[\r\n\t{\"type\":\"a\"} ,{\"type\":\"b\"}]", R"([{"type":"a","t":"}],["}])"}) {
    EXPECT_NE(with_entry(list_of(plugins)), list_of(plugins));
    EXPECT_EQ(without_entry(with_entry(list_of(plugins))), list_of(plugins));
  }
  EXPECT_EQ(without_entry(list_of(R"([ {"type":"weft-cni"}, {"type":"a"} ])")), list_of(R"([ {"type":"a"} ])"));
  EXPECT_EQ(without_entry(list_of(R"([{"type":"weft-cni"}])")), list_of("[]"));
}

TEST(InstallList, RefusesWhatARuntimeRefuses) {
  for (const std::string text :
       {"", "[]", "{", R"({"plugins":[{"type":"a"}]})", R"({"name":"x"})", R"({"name":7,"plugins":[{"type":"a"}]})",
        R"({"name":"x","plugins":{}})", R"({"name":"x","plugins":[{}]})", R"({"name":"x","plugins":["a"]})",
        R"({"name":"x","cniVersion":1,"plugins":[{"type":"a"}]})",
        "\xEF\xBB\xBF{\"name\":\"x\",\"plugins\":[{\"type\":\"a\"}]}",
        R"({"name":"x","plugins":[{"type":"a"}],"plugins":[{"type":"b"}]})"}) {
    EXPECT_FALSE(ConfList::parse(text)) << text;
  }
}

TEST(InstallList, KnowsWhereItCanWork) {
  const auto accepts = [](const std::string& text) { return ConfList::parse(text)->accepts_entry().has_value(); };
  EXPECT_TRUE(accepts(list_of(R"([{"type":"a"}])")));
  EXPECT_FALSE(accepts(list_of(R"([{"type":"weft-cni"}])")));
  EXPECT_FALSE(accepts(R"({"name":"x","plugins":[{"type":"a"}]})"));
  EXPECT_FALSE(accepts(R"({"name":"x","cniVersion":"0.2.0","plugins":[{"type":"a"}]})"));
  EXPECT_TRUE(accepts(R"({"name":"x","cniVersions":["0.2.0","1.1.0"],"plugins":[{"type":"a"}]})"));
}

TEST(InstallList, FollowsALoneConfigurationFromBeforeIt) {
  EXPECT_EQ(following_name("10-net.conf"), "10-net-weft.conflist");
  for (const std::string file : {"10-net.conf", "a.json", "00-multus.conf", ".conf"}) {
    EXPECT_LT(following_name(file), file);
    EXPECT_TRUE(is_following_name(following_name(file)));
  }
  const auto text = following_list("10-net.conf", R"( {"cniVersion":"0.4.0","name":"n","type":"a"} )", kEntry);
  ASSERT_TRUE(text) << text.error().message();
  const auto list = ConfList::parse(*text);
  ASSERT_TRUE(list);
  EXPECT_EQ(list->follows(), "10-net.conf");
  EXPECT_TRUE(list->has_entry(kEntry));
  for (const char* lone : {R"({"cniVersion":"0.4.0","type":"a"})", R"({"name":"n","type":"a"})", R"({"name":"n"})",
                           R"({"cniVersion":"0.4.0","name":"n","type":"weft-cni"})"}) {
    EXPECT_FALSE(following_list("10-net.conf", lone, kEntry)) << lone;
  }
}

TEST(InstallBackoff, TheFirstRepairIsAtOnceAndTheNextEverLater) {
  Backoff backoff;
  std::int64_t now = 1'000'000;
  EXPECT_EQ(backoff.due_ms(now), now);
  std::vector<std::int64_t> gaps;
  for (int repair = 0; repair < 10; ++repair) {
    backoff.repaired(now);
    gaps.push_back(backoff.due_ms(now) - now);
    now = backoff.due_ms(now);
  }
  EXPECT_THAT(gaps, ElementsAre(100, 200, 400, 800, 1600, 3200, 6400, 10'000, 10'000, 10'000));
  EXPECT_EQ(backoff.due_ms(now + Backoff::kCalmMs), now + Backoff::kCalmMs) << "a minute of rest ends it";
  EXPECT_EQ(backoff.in_a_row(now + Backoff::kCalmMs), 0);
}

TEST(InstallBackoff, AQuarrelMakesTheEntryCountOnlyLater) {
  Backoff backoff;
  for (int repair = 1; repair < Backoff::kQuarrel; ++repair) {
    backoff.repaired(1000);
    EXPECT_EQ(backoff.settled_ms(1000), 1000);
  }
  backoff.repaired(2000);
  EXPECT_EQ(backoff.settled_ms(2000), 2000 + Backoff::kStayMs);
  EXPECT_LE(backoff.settled_ms(2000 + Backoff::kStayMs), 2000 + Backoff::kStayMs);
}

Result<Parsed> parse(std::vector<std::string> more) {
  std::vector<std::string> arguments{"install", "--bin-dir=/b/", "--conf-dir", "/c"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return parse_arguments(arguments);
}

TEST(InstallArguments, BuildTheEntry) {
  const auto parsed = parse({"--bpf-root", "/bpf", "--registration-timeout-ms=250", "--unsupported-interface", "pass",
                             "--exclude-namespaces", "", "--log-file", "/l", "--entry", R"({"x":1,"bpfRoot":"/old"})"});
  ASSERT_TRUE(parsed) << parsed.error().message();
  EXPECT_EQ(parsed->action, Action::kInstall);
  EXPECT_EQ(parsed->options.bin_dir, "/b");
  EXPECT_EQ(parsed->options.conf_dir, "/c");
  EXPECT_EQ(to_text(parsed->options.entry), R"({"type":"weft-cni","x":1,"bpfRoot":"/bpf","registrationTimeoutMs":250,)"
                                            R"("unsupportedInterface":"pass","excludeNamespaces":[],"logFile":"/l"})");
}

TEST(InstallArguments, AreJudgedByTheCodeThatReadsTheEntry) {
  const std::pair<std::vector<std::string>, const char*> wrong[] = {
      {{"--failure-policy", "maybe"}, "failurePolicy is \"maybe\""},
      {{"--agent-socket", "relative"}, "agentSocket"},
      {{"--registration-timeout-ms", "0"}, "registrationTimeoutMs"},
      {{"--registration-timeout-ms", "1s"}, "whole number"},
      {{"--exclude-namespaces", "a,,b"}, "excludeNamespaces"},
      {{"--entry", R"({"logLevel":"loud"})"}, "logLevel"},
      {{"--entry", R"({"name":"x"})"}, "name"},
      {{"--entry", "{"}, "JSON"},
      {{"--entry", "[]"}, "object"},
      {{"--log-level"}, "needs a value"},
      {{"--ready-file="}, "is empty"},
      {{"stray"}, "unknown argument 'stray'"},
      {{"--keep-binary"}, "unknown argument"},
  };
  for (const auto& [arguments, in_text] : wrong) {
    const auto parsed = parse(arguments);
    ASSERT_FALSE(parsed) << arguments[0];
    EXPECT_THAT(parsed.error().message(), HasSubstr(in_text));
  }
}

}  // namespace
}  // namespace weft::cni::install
