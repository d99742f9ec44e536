// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "cni-plugin/commands.h"
#include "cni-plugin/install_command.h"

namespace {

using weft::Result;

constexpr std::size_t kMaxInput = 16 * 1024 * 1024;
constexpr int kVersionWaitMs = 200;

constexpr const char* kAbout =
    "weft-cni " WEFT_VERSION
    ": puts pods into the Weft mesh as the last plugin of a CNI chain (CNI 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0)\n"
    "It is called by a container runtime with CNI_COMMAND and the network configuration on stdin.\n"
    "weft-cni install puts it there: see weft-cni --help.\n";

/// All of stdin. VERSION must work whatever stdin is, so it waits only `wait_ms` for each part; -1: for ever.
Result<std::string> read_input(int wait_ms) {
  std::string text;
  char part[65536];
  while (text.size() <= kMaxInput) {
    pollfd ready{STDIN_FILENO, POLLIN, 0};
    const int polled = ::poll(&ready, 1, wait_ms);
    if (polled < 0 && errno == EINTR) continue;
    if (polled == 0) return text;
    const ssize_t n = ::read(STDIN_FILENO, part, sizeof part);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return weft::fail_errno(errno, "read the network configuration from stdin");
    if (n == 0) return text;
    text.append(part, static_cast<std::size_t>(n));
  }
  return weft::fail(weft::ErrorCode::kInvalid, "read the network configuration from stdin: it has more than 16 MiB");
}

/// False when the document did not get out whole: the runtime must not take the call for a success then.
bool write_output(std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(STDOUT_FILENO, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      std::fprintf(stderr, "weft-cni: write the result to stdout: %s\n", ::strerrordesc_np(errno));
      return false;
    }
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

/// A runtime may start us with some of the first three descriptors closed. Then a socket would get one of their
/// numbers, and log lines would go to the agent.
void fill_standard_descriptors() {
  for (int fd = 0; fd <= 2; ++fd) {
    if (::fcntl(fd, F_GETFD) < 0) (void)::open("/dev/null", O_RDWR);
  }
}

}  // namespace

int main(int argc, char** argv) {
  fill_standard_descriptors();
  std::signal(SIGPIPE, SIG_IGN);
  // Runtimes give no arguments.
  if (argc > 1) return weft::cni::install::run_command_line(argc, argv, WEFT_VERSION);
  const auto environment = weft::cni::Environment::from_process();
  if (environment.command.empty()) {
    std::fputs(kAbout, stderr);
    return 0;
  }
  auto input = read_input(environment.command == "VERSION" ? kVersionWaitMs : -1);
  weft::cni::Outcome outcome;
  if (input || environment.command == "VERSION") {
    outcome = weft::cni::run(environment, input ? *input : std::string());
  } else {
    outcome = {1, weft::cni::error_document({weft::cni::Code::kIo, input.error().message(), {}}, {})};
  }
  return write_output(outcome.standard_output) ? outcome.exit_status : 1;
}
