// SPDX-License-Identifier: Apache-2.0
#include <csignal>
#include <iostream>

#include "agent/cli/commands.h"

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  return weft::cli::run(argc, argv, std::cout, std::cerr);
}
