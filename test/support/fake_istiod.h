// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "ca.pb.h"
#include "test/support/test_ca.h"
#include "xds.pb.h"

namespace grpc {
class Server;
}

namespace weft::test {

/// istiod's discovery service and CA on a port of loopback, over TLS, which do and say what the test tells them:
/// nothing is answered by itself but certificate requests. Thread-safe.
class FakeIstiod {
 public:
  using Request = envoy::service::discovery::v3::DeltaDiscoveryRequest;
  using Response = envoy::service::discovery::v3::DeltaDiscoveryResponse;
  struct Stream {
    std::string token;       ///< the whole `authorization`
    std::string cluster_id;  ///< `clusterid`
  };
  struct Asked {
    std::string csr, impersonated, token, cluster_id;
    std::int64_t seconds = 0;
  };
  /// What the CA answers: the chain, or what the test wants it to fail with.
  struct Answer {
    int code = 0;  ///< of gRPC
    std::string message;
    std::vector<std::string> chain;
    std::chrono::milliseconds delay{0};  ///< at most; a caller that goes away ends it
  };

  /// `port` 0: any. Ends the test where it cannot listen.
  explicit FakeIstiod(const TestCa& ca, int port = 0, const std::string& server_name = "istiod.istio-system.svc");
  ~FakeIstiod();
  FakeIstiod(const FakeIstiod&) = delete;
  FakeIstiod& operator=(const FakeIstiod&) = delete;

  [[nodiscard]] int port() const { return port_; }
  [[nodiscard]] std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

  /// Waits until there have been `count` streams, and gives the last of them; nothing after 10 s.
  std::optional<Stream> stream(std::size_t count);
  [[nodiscard]] std::size_t streams() const;
  /// The next request of the present stream; nothing after `wait`.
  std::optional<Request> next(std::chrono::milliseconds wait = std::chrono::seconds(10));
  /// Sends on the present stream; false where there is none.
  bool send(const Response& response);
  /// Ends the present stream.
  void end_stream();

  void on_certificate(std::function<Answer(const Asked&)> answer);

  // Called by the services.
  class Discovery;
  class Authority;

 private:
  struct Live;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Stream> seen_;
  std::deque<Request> requests_;
  Live* live_ = nullptr;
  bool stopping_ = false;
  std::function<Answer(const Asked&)> answer_;
  int port_ = 0;
  std::unique_ptr<Discovery> discovery_;
  std::unique_ptr<Authority> authority_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace weft::test
