// SPDX-License-Identifier: Apache-2.0
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <map>
#include <random>
#include <vector>

#include "test/support/testapp/modes.h"

namespace weft::testapp {
namespace {

using Clock = std::chrono::steady_clock;
using Bytes = std::vector<std::uint8_t>;

constexpr std::uint16_t kA = 1, kAaaa = 28;

Bytes question(std::uint16_t id, const std::string& name, std::uint16_t type) {
  Bytes out{static_cast<std::uint8_t>(id >> 8U), static_cast<std::uint8_t>(id), 1, 0, 0, 1, 0, 0, 0, 0, 0, 0};
  for (std::size_t at = 0; at < name.size();) {
    const std::size_t dot = std::min(name.find('.', at), name.size());
    out.push_back(static_cast<std::uint8_t>(dot - at));
    out.insert(out.end(), name.begin() + static_cast<std::ptrdiff_t>(at),
               name.begin() + static_cast<std::ptrdiff_t>(dot));
    at = dot + 1;
  }
  for (const int byte : {0, type >> 8, type & 0xff, 0, 1}) out.push_back(static_cast<std::uint8_t>(byte));
  return out;
}

/// A socket of its own port, and what it waits for.
struct Asker {
  Fd fd;
  std::map<std::uint16_t, Clock::time_point> waiting;  ///< when each question was due, by its number
};

class Load {
 public:
  explicit Load(const DnsOptions& options) : options_(options) {}

  Exit run() {
    for (int i = 0; i < options_.sockets; ++i) {
      Fd fd(::socket(options_.to.address.is_v4() ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
      const auto address = options_.to.to_sockaddr();
      if (!fd || ::connect(fd.get(), address.get(), address.length) < 0) {
        print("error connect a socket: errno " + std::to_string(errno));
        return Exit::kError;
      }
      // What comes while this process has no core is not lost here.
      const int room = 8 << 20;
      if (::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room) < 0) {
        ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
      }
      askers_.push_back({std::move(fd), {}});
    }
    const auto start = Clock::now();
    const auto total =
        static_cast<std::uint64_t>(options_.rate * std::chrono::duration<double>(options_.duration).count());
    print("asking");
    while (sent_ < total) {
      const double passed = std::chrono::duration<double>(Clock::now() - start).count();
      const auto due = std::min(total, static_cast<std::uint64_t>(passed * options_.rate) + 1);
      while (sent_ < due) {
        // From when it was due: a generator that is late must not make answers look early.
        ask(start +
            std::chrono::nanoseconds(static_cast<std::int64_t>(static_cast<double>(sent_) * 1e9 / options_.rate)));
      }
      wait(1);
    }
    const auto deadline = Clock::now() + options_.timeout;
    while (is_waiting() && Clock::now() < deadline) wait(10);
    return report();
  }

 private:
  void ask(Clock::time_point due) {
    Asker& asker = askers_[sent_ % askers_.size()];
    const std::string& name = options_.names[sent_ % options_.names.size()];
    const std::uint16_t type = sent_ / options_.names.size() % 2 == 0 ? kA : kAaaa;
    auto id = static_cast<std::uint16_t>(random_());
    while (asker.waiting.contains(id)) ++id;
    const Bytes message = question(id, name, type);
    if (::send(asker.fd.get(), message.data(), message.size(), MSG_NOSIGNAL) < 0) ++refused_;
    asker.waiting.emplace(id, due);
    ++sent_;
  }

  void wait(int ms) {
    std::vector<pollfd> watched;
    for (const auto& asker : askers_) watched.push_back({asker.fd.get(), POLLIN, 0});
    if (::poll(watched.data(), watched.size(), ms) <= 0) return;
    for (std::size_t i = 0; i < askers_.size(); ++i) {
      if (watched[i].revents != 0) receive(askers_[i]);
    }
  }

  void receive(Asker& asker) {
    std::array<std::uint8_t, 4096> buffer;
    for (;;) {
      const ssize_t n = ::recv(asker.fd.get(), buffer.data(), buffer.size(), 0);
      if (n < 0) return;
      if (n < 12) continue;
      const auto found = asker.waiting.find(static_cast<std::uint16_t>(buffer[0] << 8U | buffer[1]));
      if (found == asker.waiting.end()) {
        ++unasked_;
        continue;
      }
      const bool good = (buffer[3] & 0xfU) == 0 && (buffer[6] << 8U | buffer[7]) > 0;
      ++(good ? answered_ : failed_);
      latencies_.push_back(std::chrono::duration<double, std::milli>(Clock::now() - found->second).count());
      asker.waiting.erase(found);
    }
  }

  [[nodiscard]] bool is_waiting() const {
    return std::ranges::any_of(askers_, [](const Asker& asker) { return !asker.waiting.empty(); });
  }

  Exit report() {
    std::ranges::sort(latencies_);
    const auto at = [this](double part) {
      return latencies_.empty()
                 ? 0.0
                 : latencies_[static_cast<std::size_t>(part * static_cast<double>(latencies_.size() - 1))];
    };
    std::uint64_t lost = 0;
    for (const auto& asker : askers_) lost += asker.waiting.size();
    std::array<char, 256> text;
    std::snprintf(text.data(), text.size(),
                  "dns sent=%llu answered=%llu failed=%llu lost=%llu unasked=%llu refused=%llu p50_ms=%.2f p99_ms=%.2f "
                  "max_ms=%.2f",
                  static_cast<unsigned long long>(sent_), static_cast<unsigned long long>(answered_),
                  static_cast<unsigned long long>(failed_), static_cast<unsigned long long>(lost),
                  static_cast<unsigned long long>(unasked_), static_cast<unsigned long long>(refused_), at(0.5),
                  at(0.99), at(1));
    print(text.data());
    return lost == 0 && failed_ == 0 ? Exit::kOk : Exit::kAnswerTimeout;
  }

  const DnsOptions& options_;
  std::vector<Asker> askers_;
  std::vector<double> latencies_;
  std::uint64_t sent_ = 0, answered_ = 0, failed_ = 0, unasked_ = 0, refused_ = 0;
  std::mt19937 random_{std::random_device{}()};
};

}  // namespace

Exit dns(const DnsOptions& options) { return Load(options).run(); }

}  // namespace weft::testapp
