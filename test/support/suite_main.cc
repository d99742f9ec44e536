// SPDX-License-Identifier: Apache-2.0
/// main() of programs that ctest runs a suite at a time. GoogleTest skips the cases of a suite that could not be set up
/// and says so in the same words as for cases that skipped themselves; ctest, which goes by what is printed, would take
/// the failure for a skipped test. So what counts as skipped is told here.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>

int main(int argc, char** argv) {
  ::testing::InitGoogleMock(&argc, argv);
  const int status = RUN_ALL_TESTS();
  const auto& run = *::testing::UnitTest::GetInstance();
  if (status == 0 && run.successful_test_count() == 0 && run.skipped_test_count() > 0) {
    std::puts("every case was skipped");
  }
  return status;
}
