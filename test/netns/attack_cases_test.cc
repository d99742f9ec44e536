// SPDX-License-Identifier: Apache-2.0
/// The table of attacks is the documentation's, complete, and about tests that there are.

#include "test/netns/attack_cases.h"

#include <algorithm>
#include <filesystem>
#include <regex>
#include <set>
#include <sstream>

#include "test/support/netns.h"

namespace weft::test {
namespace {

constexpr int kCases = 20;

/// Suite.Case of every TEST_F in the sources of a folder whose names begin so.
std::set<std::string> tests_in(const std::string& folder, const std::string& prefix) {
  const std::regex test("TEST_F\\((\\w+), (\\w+)\\)");
  std::set<std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator(std::string(WEFT_SOURCES) + "/test/" + folder)) {
    if (!entry.path().filename().string().starts_with(prefix) || entry.path().extension() != ".cc") continue;
    const std::string text = read_file(entry.path());
    for (std::sregex_iterator at(text.begin(), text.end(), test), end; at != end; ++at) {
      found.insert((*at)[1].str() + "." + (*at)[2].str());
    }
  }
  return found;
}

TEST(AttackCases, AreThoseOfTheDocumentation) {
  std::string documented, expected;
  std::istringstream lines(read_file(std::string(WEFT_SOURCES) + "/docs/security.md"));
  const std::regex row(R"(\| \d+ \|.*`\w+\.\w+` \|)");
  for (std::string line; std::getline(lines, line);) {
    if (std::regex_match(line, row)) documented += line + "\n";
  }
  for (const auto& one : attack_cases()) expected += row_of(one) + "\n";
  EXPECT_EQ(documented, expected) << "the table of docs/security.md is to read\n" << expected;
}

TEST(AttackCases, AreAllThereAndInOrder) {
  std::set<int> numbers;
  int last = 1;
  for (const auto& one : attack_cases()) {
    EXPECT_GE(one.number, last) << one.test;
    last = one.number;
    numbers.insert(one.number);
  }
  EXPECT_EQ(numbers.size(), static_cast<std::size_t>(kCases));
  EXPECT_EQ(*numbers.begin(), 1);
  EXPECT_EQ(*numbers.rbegin(), kCases);
}

TEST(AttackCases, HaveATestEachAndEveryTestIsOne) {
  auto all = tests_in("netns", "");
  all.merge(tests_in("kernel", ""));
  ASSERT_FALSE(all.empty());
  std::set<std::string> listed;
  for (const auto& one : attack_cases()) {
    EXPECT_TRUE(all.contains(one.test)) << "there is no test " << one.test;
    listed.insert(one.test);
  }
  const auto attacks = tests_in("netns", "attack_");
  EXPECT_FALSE(attacks.empty());
  for (const auto& attack : attacks) EXPECT_TRUE(listed.contains(attack)) << attack << " is in no case";
}

}  // namespace
}  // namespace weft::test
