// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "cni-plugin/registration.h"
#include "tunnel/base/fd.h"

namespace weft::test {

/// The agent's end of the registration socket and nothing behind it: it keeps a list of registrations and answers as an
/// agent does, or as a test tells it to. One thread of its own serves one connection after the other.
class FakeAgent {
 public:
  /// What a connection gets.
  struct Answer {
    enum class Kind : std::uint8_t { kReply, kClose, kSilence } kind = Kind::kReply;
    std::string text;  ///< kReply
  };
  using Handler = std::function<Answer(const std::string& text, const Fd& fd)>;

  /// Listens at `path` from now on; throws std::runtime_error when it cannot.
  explicit FakeAgent(std::string path);
  FakeAgent(const FakeAgent&) = delete;
  FakeAgent& operator=(const FakeAgent&) = delete;
  ~FakeAgent();  ///< stops, and removes the socket

  [[nodiscard]] const std::string& path() const { return path_; }
  /// Answers everything with `handler`; an empty one brings the ordinary behaviour back.
  void set_handler(Handler handler);
  void answer_all(Answer answer);
  /// Refuses every request with this code and text.
  void refuse_all(ErrorCode code, const std::string& message);

  /// The requests that came, as text.
  [[nodiscard]] std::vector<std::string> requests() const;
  /// The registrations and the inode of the netns that came with each.
  [[nodiscard]] std::map<cni::AttachmentKey, std::uint64_t> registrations() const;
  void forget(const cni::AttachmentKey& key);

 private:
  void serve();
  void serve_one(int socket);
  Answer answer(const std::string& text, const Fd& fd);
  cni::Reply carry_out(const cni::Request& request, const Fd& fd);

  std::string path_;
  Fd listener_, stop_;
  mutable std::mutex mutex_;  // guards what follows
  Handler handler_;
  std::vector<std::string> requests_;
  std::map<cni::AttachmentKey, std::uint64_t> registrations_;
  std::vector<Fd> silent_;  // the serving thread's alone
  std::thread thread_;
};

}  // namespace weft::test
