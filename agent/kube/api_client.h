// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "agent/kube/api_config.h"
#include "cni-plugin/json.h"
#include "tunnel/base/clock.h"
#include "tunnel/base/error.h"

struct curl_slist;

namespace weft::kube {

using cni::Json;

/// One request. `path` begins with a slash and carries the query, escaped (see escape()).
struct ApiRequest {
  std::string method = "GET";
  std::string path;
  std::string body = {};
  std::string content_type = "application/json";  ///< of the body
  std::string accept = "application/json";
  milliseconds timeout{0};  ///< of all of it; 0: the client's
  /// Where it is set, a successful answer is not kept but given to it line by line, as it comes; false ends the request
  /// well.
  std::function<bool(std::string_view line)> on_line = {};
};

struct ApiResponse {
  long status = 0;
  std::string body;  ///< empty where it went to on_line
  std::optional<seconds> retry_after;
  [[nodiscard]] bool ok() const { return status >= 200 && status < 300; }
};

/// Asks the Kubernetes API, over TLS that is verified by its own roots alone. A connection is kept for the next
/// request. For one thread; stop() comes from any.
class ApiClient {
 public:
  static constexpr std::size_t kMaxLine = std::size_t{8} << 20;  ///< of a stream: an object has 1.5 MiB at most in etcd
  static constexpr std::size_t kMaxBody = std::size_t{64} << 20;

  explicit ApiClient(ApiConfig config);
  ~ApiClient();
  ApiClient(const ApiClient&) = delete;
  ApiClient& operator=(const ApiClient&) = delete;

  /// Sends the request and waits for the end of the answer, whatever its status. Errors name the request, the server,
  /// and why there is no answer: kUnavailable, kTimeout, kDenied for a server that did not prove itself, kOverLimit for
  /// a line or a body over the bounds.
  Result<ApiResponse> send(const ApiRequest& request);
  /// send(), and the document of an answer that says well done; an error as refusal() says otherwise.
  Result<Json> ask(const ApiRequest& request);

  /// Ends the request under way, at once, and fails all later ones with kUnavailable.
  void stop();

  /// What an answer with another status means: kNotFound (404), kDenied (401, 403), kUnavailable (429, 5xx), kInvalid,
  /// with the API's own message.
  [[nodiscard]] Error refusal(const ApiRequest& request, const ApiResponse& response) const;
  [[nodiscard]] const ApiConfig& config() const { return config_; }

 private:
  struct Curl;
  struct Transfer;
  [[nodiscard]] std::string name_of(const ApiRequest& request) const;
  [[nodiscard]] Result<std::string> token() const;
  void prepare(const ApiRequest& request, curl_slist* headers, Transfer& transfer);
  Result<void> perform(Transfer& transfer, const std::string& name);

  const ApiConfig config_;
  std::unique_ptr<Curl> curl_;
  std::atomic<bool> stopped_{false};
};

/// A value as it may stand in a path or a query.
[[nodiscard]] std::string escape(std::string_view value);

}  // namespace weft::kube
