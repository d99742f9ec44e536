// SPDX-License-Identifier: Apache-2.0
#include "test/support/chain_runner_process.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "tunnel/base/fd.h"

namespace weft::chain {
namespace {

/// A file in memory that holds the input: unlike a pipe it takes any length before somebody reads.
Result<Fd> input_file(const std::string& input) {
  Fd file(::memfd_create("plugin-stdin", MFD_CLOEXEC));
  if (!file) return fail_errno(errno, "make a file for a plugin's stdin");
  std::string_view left = input;
  while (!left.empty()) {
    const ssize_t n = ::write(file.get(), left.data(), left.size());
    if (n < 0) return fail_errno(errno, "write a plugin's stdin");
    left.remove_prefix(static_cast<std::size_t>(n));
  }
  if (::lseek(file.get(), 0, SEEK_SET) < 0) return fail_errno(errno, "rewind a plugin's stdin");
  return file;
}

Result<std::string> read_all(int fd) {
  std::string text;
  char part[16384];
  while (true) {
    const ssize_t n = ::read(fd, part, sizeof part);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "read a plugin's stdout");
    if (n == 0) return text;
    text.append(part, static_cast<std::size_t>(n));
  }
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (const auto& text : texts) out.push_back(const_cast<char*>(text.c_str()));
  out.push_back(nullptr);
  return out;
}

}  // namespace

Result<PluginRun> run_plugin(const std::string& program, const std::vector<std::string>& environment,
                             const std::string& input) {
  auto file = input_file(input);
  if (!file) return Failure(std::move(file.error()));
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) < 0) return fail_errno(errno, "make a pipe for a plugin's stdout");
  Fd reader(ends[0]);
  Fd writer(ends[1]);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, file->get(), STDIN_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, writer.get(), STDOUT_FILENO);
  char* const arguments[] = {const_cast<char*>(program.c_str()), nullptr};
  pid_t pid = -1;
  const int error = ::posix_spawn(&pid, program.c_str(), &actions, nullptr, arguments, pointers(environment).data());
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return fail_errno(error, "start the plugin " + program);
  writer.reset();
  auto output = read_all(reader.get());
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return fail_errno(errno, "wait for the plugin " + program);
  }
  if (!output) return Failure(std::move(output.error()));
  return PluginRun{WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), std::move(*output)};
}

}  // namespace weft::chain
