// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "agent/cli/commands.h"
#include "test/unit/agent/admin_fixture.h"

namespace weft::cli::test {

/// weftctl, asking the agent of AdminFixture over HTTP.
class WeftctlFixture : public admin::test::AdminFixture {
 protected:
  void SetUp() override {
    auto server =
        admin::HttpServer::start("admin", Endpoint::parse("127.0.0.1:0").value(), admin::admin_routes(sources_));
    ASSERT_TRUE(server) << server.error().message();
    server_ = std::move(*server);
  }

  int run_with(std::vector<std::string> arguments) {
    std::vector<const char*> argv{"weftctl"};
    for (const auto& argument : arguments) argv.push_back(argument.c_str());
    std::ostringstream out, err;
    const int code = run(static_cast<int>(argv.size()), argv.data(), out, err);
    out_ = out.str();
    err_ = err.str();
    return code;
  }
  /// As run_with(), of this agent.
  int query(std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"--admin", server_->address().to_string()});
    return run_with(std::move(arguments));
  }

  std::unique_ptr<admin::HttpServer> server_;
  std::string out_, err_;
};

}  // namespace weft::cli::test
