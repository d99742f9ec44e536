// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <exception>

#include "agent/agent.h"
#include "agent/config.h"
#include "tunnel/base/log.h"

namespace {

int fail_start(const weft::Error& error) {
  std::fprintf(stderr, "weft-agent: %s\n", error.message().c_str());
  return 1;
}

int run(int argc, char** argv) {
  auto parsed = weft::agent::parse_config(argc, argv);
  if (!parsed) return fail_start(parsed.error());
  if (const auto* shown = std::get_if<weft::agent::Shown>(&*parsed)) {
    std::fputs(shown->text.c_str(), stdout);
    return 0;
  }
  const auto& config = std::get<weft::agent::Config>(*parsed);
  if (auto logging = weft::log::init(config.log_level, config.log_format, ""); !logging) {
    return fail_start(logging.error());
  }
  auto agent = weft::agent::Agent::start(config);
  if (!agent) return fail_start(agent.error());
  (*agent)->run();
  agent->reset();
  weft::log::info("weft-agent ended");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "weft-agent: %s\n", e.what());
    return 1;
  }
}
