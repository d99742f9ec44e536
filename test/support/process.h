// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

/// Helpers of the tests that make network namespaces and start programs. They throw TestError, which GoogleTest reports
/// as the test's failure; tests stay free of error handling.
namespace weft::test {

using std::chrono::milliseconds;

class TestError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class Netns;

/// The number in a variable of the environment, by which a test is made larger by hand; `least` where it is less.
int from_environment(const char* name, int otherwise, int least = 1);

/// A deadline as long as this machine needs: times WEFT_TEST_SLOW of the environment, for guests without KVM. All
/// deadlines of the functions below are stretched so.
milliseconds stretched(milliseconds deadline);

/// Asks `holds` again and again until it says true or the deadline has passed; the last answer. The way to wait.
bool eventually(milliseconds deadline, const std::function<bool()>& holds);

struct SpawnOptions {
  const Netns* netns = nullptr;          ///< run there; null: where the test runs
  std::vector<std::string> environment;  ///< "KEY=value", added to the test's own
  std::string input;                     ///< given on stdin, at most 64 KiB
};

/// How a program ended.
struct Finished {
  int status = -1;  ///< exit status, or 128 + the signal
  std::string out, err;
  [[nodiscard]] bool ok() const { return status == 0; }
};

/// A program of the test's own. It dies with the test, even when that is killed: start it on the test's main thread.
/// Methods are for one thread.
class Process {
 public:
  /// Starts `arguments[0]` (searched in PATH).
  static Process start(const std::vector<std::string>& arguments, const SpawnOptions& options = {});
  Process(Process&& other) noexcept;
  Process& operator=(Process&& other) noexcept;
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process();  ///< kills and reaps

  [[nodiscard]] pid_t pid() const;
  /// What it printed until now.
  [[nodiscard]] std::string out() const;
  [[nodiscard]] std::string err() const;
  [[nodiscard]] std::size_t out_size() const;
  [[nodiscard]] bool running();
  /// The status when it ends in time, nothing otherwise.
  std::optional<int> wait(milliseconds deadline);
  /// Waits until `text` stands in what it printed on either stream; false when it does not come or the program ends
  /// first.
  bool wait_for_output(const std::string& text, milliseconds deadline);
  void signal(int number);
  /// SIGKILL, and waits for the end.
  void kill();
  /// Waits for the end (or kills it and throws) and gives everything.
  Finished finish(milliseconds deadline);

 private:
  struct State;
  explicit Process(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// Starts a program and waits for its end; throws when it takes longer than `deadline`.
Finished run(const std::vector<std::string>& arguments, const SpawnOptions& options = {},
             milliseconds deadline = milliseconds(30'000));
/// The same, but throws when the status is not 0. Gives stdout.
std::string must_run(const std::vector<std::string>& arguments, const SpawnOptions& options = {});

}  // namespace weft::test
