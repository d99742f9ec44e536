// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>

#include "agent/kube/api_client.h"
#include "test/support/fake_api.h"
#include "test/support/process.h"

namespace weft::kube {

using test::eventually;
using test::FakeApi;

inline constexpr milliseconds kPatience{10'000};

/// A fake API and how to reach it.
class KubeTest : public ::testing::Test {
 protected:
  // As in the agent: OpenSSL writes to connections that have been cut.
  KubeTest() { std::signal(SIGPIPE, SIG_IGN); }
  [[nodiscard]] ApiConfig config() const {
    return {.server = api.url(), .token_file = api.token_file(), .root_file = api.root_file()};
  }

  test::ScratchDir folder;
  FakeApi api{folder.path()};
};

}  // namespace weft::kube
