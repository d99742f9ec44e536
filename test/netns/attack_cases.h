// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <span>
#include <string>

/// What the attacks of this folder and of test/kernel try. docs/security.md has the same table: a test compares them.
namespace weft::test {

struct AttackCase {
  int number;  ///< 1 to 20
  const char* tried;
  const char* stopped_by;
  const char* test;  ///< Suite.Case
};

[[nodiscard]] std::span<const AttackCase> attack_cases();

/// Prints `case N: tried …; stopped by …` for each case that this test shows. For the end of a test that went well.
void tell_cases_of(const ::testing::TestInfo& test);

/// As it stands in the documentation: one row of the table.
[[nodiscard]] std::string row_of(const AttackCase& one);

}  // namespace weft::test
