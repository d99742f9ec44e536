// SPDX-License-Identifier: Apache-2.0
// Whatever the text, parsing ends soon and says something: these are the shapes that break parsers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "agent/control/local_config.h"
#include "agent/control/yaml_tree.h"

namespace weft::control {
namespace {

using ::testing::HasSubstr;

std::string error_of(const std::string& text) {
  const auto result = parse_local_config("f", text);
  return result ? "accepted" : result.error().message();
}

std::string repeat(const std::string& part, std::size_t times) {
  std::string out;
  out.reserve(part.size() * times);
  for (std::size_t i = 0; i < times; ++i) out += part;
  return out;
}

TEST(ConfigBounds, TooLarge) {
  EXPECT_EQ(error_of(std::string(kMaxConfigBytes + 1, ' ')), "f: 67108865 bytes: expected at most 67108864");
}

TEST(ConfigBounds, TooDeep) {
  EXPECT_THAT(error_of("workloads: " + repeat("[", 100'000)), HasSubstr("nested deeper than 64"));
  EXPECT_THAT(error_of(repeat("- ", 100'000)), HasSubstr("nested deeper than 64"));
  EXPECT_THAT(error_of("workloads: " + repeat("{a: ", 100'000)), HasSubstr("nested deeper than 64"));
  EXPECT_THAT(error_of(repeat("? ", 100'000)), HasSubstr("nested deeper than 64"));
  // A tag is a level of its own.
  EXPECT_THAT(error_of(repeat("!a [", 33) + repeat("]", 33)), HasSubstr("nested deeper than 64"));
  EXPECT_TRUE(parse_yaml("f", repeat("!a [", 32) + repeat("]", 32)));
}

TEST(ConfigBounds, TooManyValues) {
  const auto tree = parse_yaml("f", "[a, b, c, d]", {.nodes = 4, .depth = 64});
  ASSERT_FALSE(tree);
  EXPECT_EQ(tree.error().message(), "f:1: more than 4 values");
  EXPECT_TRUE(parse_yaml("f", "[a, b, c, d]", {.nodes = 5, .depth = 64}));
}

/// Depth is counted with aliases followed, or a chain of them would overflow the stack when the tree is freed.
TEST(ConfigBounds, DeepChainOfAliases) {
  std::string text = "a0: &a0 " + repeat("[", 40) + repeat("]", 40) + "\n";
  for (int i = 1; i < 2000; ++i) {
    const std::string n = std::to_string(i);
    text += "a" + n + ": &a" + n + " " + repeat("[", 40) + "*a" + std::to_string(i - 1) + repeat("]", 40) + "\n";
  }
  EXPECT_THAT(error_of(text), HasSubstr("f:2: nested deeper than 64"));
}

TEST(ConfigBounds, AnAliasToWhatEnclosesItOrToNothing) {
  EXPECT_THAT(error_of("workloads: &a [*a]"), HasSubstr("an alias to what encloses it"));
  EXPECT_THAT(error_of("workloads: *nothing"), HasSubstr("f:1: not YAML"));
}

/// Each level names the one below it many times: few nodes, an enormous walk.
TEST(ConfigBounds, BillionLaughs) {
  std::string text = "policies:\n";
  const std::string head = "- {name: p, namespace: ns, scope: Global, action: Deny, rules: ";
  text += head + "[[&m [" + repeat("{},", 500) + "]]]}\n";
  text += head + "[&c [" + repeat("*m,", 500) + "]]}\n";
  text += head + "&r [" + repeat("*c,", 500) + "]}\n";
  for (int i = 0; i < 500; ++i) text += head + "*r}\n";
  EXPECT_THAT(error_of(text), HasSubstr("too much to read once its aliases are followed"));
}

TEST(ConfigBounds, ALongTextNamedOften) {
  const std::string text =
      "workloads: [{hostname: &h " + std::string(4'000'000, 'x') + "}, " + repeat("{hostname: *h},", 100'000) + "]";
  EXPECT_THAT(error_of(text), HasSubstr("f: and "));
}

TEST(ConfigBounds, AWideObjectNamedOften) {
  std::string wide = "&w {";
  for (int i = 0; i < 50'000; ++i) wide += "k" + std::to_string(i) + ": 1, ";
  EXPECT_THAT(error_of("workloads: [" + wide + "}, " + repeat("*w,", 50'000) + "]"), HasSubstr("too much to read"));
}

TEST(ConfigBounds, ALongValueIsCutInTheText) {
  const std::string error =
      error_of("workloads: [{name: a, namespace: n, workloadIps: [" + std::string(100'000, 'x') + "]}]");
  EXPECT_LT(error.size(), 300U);
  EXPECT_THAT(error, HasSubstr("xxx...\": expected an IPv4 or IPv6 address"));
}

/// Mutations of a good file: nothing is asserted of the outcome but that there is one, and that a refusal has a text.
TEST(ConfigBounds, MutatedTexts) {
  const std::string good =
      "workloads:\n- {name: a, namespace: ns, workloadIps: [10.0.0.1], services: &s {ns/h: {80: 8080}}}\n"
      "- {name: b, namespace: ns, workloadIps: ['10.0.0.2'], services: *s}\n"
      "services:\n- name: h\n  namespace: ns\n  hostname: h\n  vips: [/10.1.0.1]\n  ports: {80: 80}\n"
      "policies:\n- name: p\n  namespace: ns\n  scope: Global\n  action: Deny\n  rules:\n  - - - {principals: "
      "[{Presence: []}]}\n";
  ASSERT_EQ(error_of(good), "accepted");
  const unsigned seed = 20261124;
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const std::string bytes =
      "{}[]:,-?&*!|>'\"%@`#\n\t ~\\\x01\xff"
      "a0/";
  for (int round = 0; round < 5000; ++round) {
    std::string text = good;
    for (auto edits = random() % 6 + 1; edits > 0; --edits) {
      const std::size_t at = random() % text.size();
      switch (random() % 3) {
        case 0:
          text[at] = bytes[random() % bytes.size()];
          break;
        case 1:
          text.insert(at, 1, bytes[random() % bytes.size()]);
          break;
        default:
          text.erase(at, random() % 8 + 1);
      }
      if (text.empty()) text = "x";
    }
    const auto result = parse_local_config("f", text);
    if (!result) {
      EXPECT_TRUE(result.error().message().starts_with("f:")) << text;
    }
  }
}

}  // namespace
}  // namespace weft::control
