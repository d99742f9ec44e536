// SPDX-License-Identifier: Apache-2.0
#include "test/unit/agent/hardening/forked.h"

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>

namespace weft::test {

Ended in_child(const std::function<int()>& work) {
  Ended ended;
  int ends[2];
  if (::pipe(ends) != 0) return ended;
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(20);
    ::dup2(ends[1], 2);
    ::_exit(work());
  }
  ::close(ends[1]);
  std::array<char, 4096> block{};
  for (ssize_t got = 0; (got = ::read(ends[0], block.data(), block.size())) > 0;) {
    ended.text.append(block.data(), static_cast<std::size_t>(got));
  }
  ::close(ends[0]);
  int status = 0;
  if (child > 0 && ::waitpid(child, &status, 0) == child)
    ended.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return ended;
}

}  // namespace weft::test
