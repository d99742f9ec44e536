// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "tunnel/base/error.h"
#include "tunnel/base/fd.h"
#include "tunnel/base/ip.h"

namespace weft::admin {

struct HttpRequest {
  std::string method, path;
  std::map<std::string, std::string> query;  ///< the first value of each
  bool from_loopback = false;
};

inline constexpr int kHttpOk = 200;

struct HttpResponse {
  int status = kHttpOk;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;

  /// Plain text for people; the last line's end is added.
  [[nodiscard]] static HttpResponse text(int status, std::string lines) {
    HttpResponse response;
    response.status = status;
    response.body = std::move(lines) + "\n";
    return response;
  }
  /// 200 with a JSON document; the last line's end is added.
  [[nodiscard]] static HttpResponse json(std::string document) {
    HttpResponse response = text(kHttpOk, std::move(document));
    response.content_type = "application/json";
    return response;
  }
};

using HttpHandler = std::function<HttpResponse(const HttpRequest&)>;
/// By method and exact path.
using HttpRoutes = std::map<std::pair<std::string, std::string>, HttpHandler>;

/// A small HTTP/1.1 server (cpp-httplib) for people and scrapers: few threads, short timeouts, no request bodies to
/// speak of. Handlers run on its threads.
class HttpServer {
 public:
  static constexpr std::size_t kThreads = 2;

  /// Binds, or goes on with the listener of another agent, then serves; as many requests at once as there are threads.
  /// Errors: kUnavailable naming the address that is taken or does not exist.
  static Result<std::unique_ptr<HttpServer>> start(const std::string& name, const Endpoint& address,
                                                   const HttpRoutes& routes, std::size_t threads = kThreads,
                                                   Fd listener = {});
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  [[nodiscard]] const std::string& name() const;
  /// The address with the port that was given where it was 0.
  [[nodiscard]] Endpoint address() const;
  /// A duplicate of the listener, for the agent that takes over; -1 where there is no descriptor left.
  [[nodiscard]] Fd listener() const;
  /// Takes no more requests and leaves the listener to the other agent. The destructor waits for the thread, at most a
  /// second.
  void abandon();

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// GET or POST of "http://ADDRESS:PORT", for weftctl and tests. Errors: kUnavailable (nobody answers there), kTimeout.
Result<HttpResponse> http_request(const Endpoint& address, const std::string& method, const std::string& path_and_query,
                                  int timeout_ms);

}  // namespace weft::admin
