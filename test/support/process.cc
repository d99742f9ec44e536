// SPDX-License-Identifier: Apache-2.0
#include "test/support/process.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <thread>

#include "test/support/netns.h"
#include "tunnel/base/fd.h"

namespace weft::test {

int from_environment(const char* name, int otherwise, int least) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::max(std::atoi(text), least);
}

milliseconds stretched(milliseconds deadline) {
  static const int times = [] {
    const char* text = std::getenv("WEFT_TEST_SLOW");
    return text == nullptr ? 1 : std::max(1, std::atoi(text));
  }();
  return deadline * times;
}

bool eventually(milliseconds deadline, const std::function<bool()>& holds) {
  constexpr milliseconds kPause{5};
  const auto end = std::chrono::steady_clock::now() + stretched(deadline);
  while (!holds()) {
    if (std::chrono::steady_clock::now() >= end) return holds();
    std::this_thread::sleep_for(kPause);
  }
  return true;
}

struct Process::State {
  pid_t pid = -1;
  Fd pidfd;
  std::string command;
  std::optional<int> status;
  Fd out_pipe, err_pipe;  // the reader's once it runs
  std::atomic<int> open_pipes{2};
  std::atomic<bool> stop{false};
  std::thread reader;
  mutable std::mutex mutex;  // guards out and err
  std::string out, err;

  void read_pipes();
  void append_from(Fd& pipe, std::string& to);
};

namespace {

std::string join(const std::vector<std::string>& arguments) {
  std::string text;
  for (const auto& argument : arguments) text += (text.empty() ? "" : " ") + argument;
  return text;
}

struct Pipe {
  Fd read_end, write_end;
};

Pipe make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) throw TestError(std::string("pipe: ") + std::strerror(errno));
  return {Fd(ends[0]), Fd(ends[1])};
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (auto& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

struct ChildSetup {
  int in, out, err, netns;
  pid_t parent;
  char* const* arguments;
  char* const* environment;
};

/// Between fork and exec: only what is async-signal-safe.
[[noreturn]] void become_child(const ChildSetup& setup) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != setup.parent) ::_exit(127);  // the parent died before prctl
  if (setup.netns >= 0 && ::setns(setup.netns, CLONE_NEWNET) != 0) ::_exit(126);
  ::dup2(setup.in, 0);
  ::dup2(setup.out, 1);
  ::dup2(setup.err, 2);
  ::execvpe(setup.arguments[0], setup.arguments, setup.environment);
  ::_exit(127);
}

int decode(int wait_status) { return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status); }

}  // namespace

void Process::State::append_from(Fd& pipe, std::string& to) {
  std::array<char, 16384> block;
  const ssize_t got = ::read(pipe.get(), block.data(), block.size());
  if (got > 0) {
    const std::lock_guard lock(mutex);
    to.append(block.data(), static_cast<std::size_t>(got));
  } else if (got == 0 || errno != EINTR) {
    pipe.reset();
    --open_pipes;
  }
}

void Process::State::read_pipes() {
  constexpr int kLookAtStopMs = 100;
  while ((out_pipe || err_pipe) && !stop) {
    std::array<pollfd, 2> fds{pollfd{.fd = out_pipe.get(), .events = POLLIN, .revents = 0},
                              pollfd{.fd = err_pipe.get(), .events = POLLIN, .revents = 0}};
    if (::poll(fds.data(), fds.size(), kLookAtStopMs) <= 0) continue;
    if (fds[0].revents != 0) append_from(out_pipe, out);
    if (fds[1].revents != 0) append_from(err_pipe, err);
  }
}

Process Process::start(const std::vector<std::string>& arguments, const SpawnOptions& options) {
  auto state = std::make_unique<State>();
  state->command = join(arguments);
  std::vector<std::string> argument_copy = arguments;
  std::vector<std::string> environment = options.environment;
  for (char** entry = environ; *entry != nullptr; ++entry) environment.emplace_back(*entry);
  const auto argument_pointers = pointers(argument_copy);
  const auto environment_pointers = pointers(environment);
  Pipe in = make_pipe(), out = make_pipe(), err = make_pipe();

  const ChildSetup setup{.in = in.read_end.get(),
                         .out = out.write_end.get(),
                         .err = err.write_end.get(),
                         .netns = options.netns != nullptr ? options.netns->fd() : -1,
                         .parent = ::getpid(),
                         .arguments = argument_pointers.data(),
                         .environment = environment_pointers.data()};
  state->pid = ::fork();
  if (state->pid < 0) throw TestError("fork for " + state->command + ": " + std::strerror(errno));
  if (state->pid == 0) become_child(setup);
  state->pidfd = Fd(static_cast<int>(::syscall(SYS_pidfd_open, state->pid, 0)));  // glibc 2.36's header is not for C++
  // A pipe takes 64 KiB before anybody reads, so this never waits.
  if (!options.input.empty() && ::write(in.write_end.get(), options.input.data(), options.input.size()) < 0) {
    throw TestError("write stdin of " + state->command + ": " + std::strerror(errno));
  }
  state->out_pipe = std::move(out.read_end);
  state->err_pipe = std::move(err.read_end);
  state->reader = std::thread([raw = state.get()] { raw->read_pipes(); });
  return Process(std::move(state));
}

Process::Process(std::unique_ptr<State> state) : state_(std::move(state)) {}
Process::Process(Process&& other) noexcept = default;
Process& Process::operator=(Process&& other) noexcept {
  if (this != &other) {
    const Process old(std::move(state_));
    state_ = std::move(other.state_);
  }
  return *this;
}

Process::~Process() {
  if (!state_) return;
  kill();
  // A grandchild that holds the pipes open must not hold the test.
  eventually(milliseconds(500), [this] { return state_->open_pipes == 0; });
  state_->stop = true;
  if (state_->reader.joinable()) state_->reader.join();
}

pid_t Process::pid() const { return state_->pid; }

std::string Process::out() const {
  const std::lock_guard lock(state_->mutex);
  return state_->out;
}

std::string Process::err() const {
  const std::lock_guard lock(state_->mutex);
  return state_->err;
}

std::size_t Process::out_size() const {
  const std::lock_guard lock(state_->mutex);
  return state_->out.size();
}

std::optional<int> Process::wait(milliseconds deadline) {
  if (state_->status) return state_->status;
  pollfd ended{.fd = state_->pidfd.get(), .events = POLLIN, .revents = 0};
  if (::poll(&ended, 1, static_cast<int>(stretched(deadline).count())) <= 0) return {};
  int wait_status = 0;
  if (::waitpid(state_->pid, &wait_status, 0) == state_->pid) state_->status = decode(wait_status);
  return state_->status;
}

bool Process::running() { return !wait(milliseconds(0)); }

bool Process::wait_for_output(const std::string& text, milliseconds deadline) {
  const auto printed = [&] {
    const std::lock_guard lock(state_->mutex);
    return state_->out.find(text) != std::string::npos || state_->err.find(text) != std::string::npos;
  };
  bool ended = false;
  eventually(deadline, [&] {
    if (printed()) return true;
    ended = !running();
    return ended;
  });
  // Its last words may still be in the pipe.
  return ended ? eventually(milliseconds(500), printed) : printed();
}

void Process::signal(int number) {
  if (running()) ::kill(state_->pid, number);
}

void Process::kill() {
  signal(SIGKILL);
  wait(milliseconds(10'000));
}

Finished Process::finish(milliseconds deadline) {
  const auto status = wait(deadline);
  if (!status) {
    kill();
    throw TestError(state_->command + ": still running after " + std::to_string(stretched(deadline).count()) +
                    " ms, killed; stdout: " + out() + " stderr: " + err());
  }
  eventually(milliseconds(500), [this] { return state_->open_pipes == 0; });
  return {.status = *status, .out = out(), .err = err()};
}

Finished run(const std::vector<std::string>& arguments, const SpawnOptions& options, milliseconds deadline) {
  return Process::start(arguments, options).finish(deadline);
}

std::string must_run(const std::vector<std::string>& arguments, const SpawnOptions& options) {
  const Finished finished = run(arguments, options);
  if (!finished.ok()) {
    throw TestError(join(arguments) + ": exit status " + std::to_string(finished.status) + ", stderr: " + finished.err +
                    (finished.out.empty() ? "" : ", stdout: " + finished.out));
  }
  return finished.out;
}

}  // namespace weft::test
