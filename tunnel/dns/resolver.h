// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "tunnel/dns/name_cache.h"
#include "tunnel/dns/query.h"

namespace weft::dns {

struct ResolverConfig {
  std::string resolv_conf = "/etc/resolv.conf";  ///< names the servers; read again when it changes
  std::uint16_t port = 53;                       ///< of the servers
  QuerySettings query;
  CacheLimits cache;
  std::size_t lookups_max = 256;  ///< at one time; each has two sockets. The others wait
};

/// Looks names up, in the network namespace of the thread that made it, and remembers the answers for their time. Names
/// are absolute: no search domains. One thread of its own does all the work; find() only looks and asks for more.
class Resolver {
 public:
  /// `on_answer` is called from the resolver's thread when a name has been looked up for which somebody was told
  /// kPending. Errors: the loop cannot be made. A resolv.conf that cannot be read fails names, not this.
  static Result<std::unique_ptr<Resolver>> start(ResolverConfig config, std::function<void()> on_answer);
  ~Resolver();
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;

  /// What is known of `hostname` now; starts to look it up where that is wanted. Returns at once. From any thread.
  [[nodiscard]] state::NameAnswer find(const std::string& hostname);
  /// Ends the thread: nothing is looked up and nobody called back from here on. May be called twice, from one thread.
  void stop();
  /// The names that are remembered. From any thread.
  [[nodiscard]] std::size_t names() const;

 private:
  class Impl;
  explicit Resolver(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft::dns
