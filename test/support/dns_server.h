// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "test/support/netns.h"
#include "tunnel/base/ip.h"

namespace weft::test {

/// How a server of the test answers for one name.
struct DnsAnswer {
  /// As a zone file has them: "api.test. 60 IN A 192.0.2.1". Those of the type that was asked for and all CNAMEs go
  /// into the answer, whatever their owner.
  std::vector<std::string> records;
  enum class Manner : std::uint8_t {
    kPlain,
    kNoName,         ///< NXDOMAIN
    kServerFailure,  ///< SERVFAIL
    kSilent,
    kGarbage,       ///< bytes that are no message
    kGarbageFirst,  ///< that, an answer with another id and one to another question, then the answer
    kTruncated,     ///< UDP: TC and nothing; TCP: the answer
    kBrokenStream,  ///< UDP: TC; TCP: half an answer, then the end
    kOnlyV4,        ///< silent for AAAA
  } manner = Manner::kPlain;
};

/// A small DNS server, UDP and TCP, on a thread of its own. Names that it was not told get NXDOMAIN.
class DnsServer {
 public:
  /// Listens at `at` (port 0: any) in `netns` (null: where the test runs). Throws TestError.
  explicit DnsServer(const Endpoint& at, const Netns* netns = nullptr);
  DnsServer(const DnsServer&) = delete;
  DnsServer& operator=(const DnsServer&) = delete;
  ~DnsServer();

  [[nodiscard]] std::uint16_t port() const { return port_; }
  /// `name` without a dot at the end, in small letters.
  void set(const std::string& name, DnsAnswer answer);
  void set(const std::string& name, std::vector<std::string> records) { set(name, DnsAnswer{std::move(records)}); }
  /// Questions for the name until now, all types together.
  [[nodiscard]] int asked(const std::string& name) const;

 private:
  using Bytes = std::vector<std::byte>;
  void serve();
  void on_datagram() const;
  void on_stream() const;
  /// What to send back, message by message.
  std::vector<Bytes> answers(const Bytes& question, bool by_tcp) const;

  Fd udp_, tcp_, stop_;
  std::uint16_t port_ = 0;
  mutable std::mutex mutex_;
  std::map<std::string, DnsAnswer> names_;
  mutable std::map<std::string, int> asked_;
  std::thread thread_;
};

}  // namespace weft::test
