// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/http_server.h"

#include <httplib.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <thread>

#include "tunnel/base/clock.h"
#include "tunnel/base/log.h"

namespace weft::admin {
namespace {

constexpr time_t kIoTimeoutSeconds = 5;
constexpr std::size_t kMaxBody = 16 * 1024;

HttpRequest request_of(const httplib::Request& from) {
  HttpRequest request{.method = from.method, .path = from.path, .query = {}, .from_loopback = false};
  for (const auto& [key, value] : from.params) request.query.emplace(key, value);
  const auto peer = IpAddress::parse(from.remote_addr);
  request.from_loopback = peer && peer->is_loopback();
  return request;
}

httplib::Server::Handler wrap(HttpHandler handler) {
  return [handler = std::move(handler)](const httplib::Request& from, httplib::Response& to) {
    const HttpResponse response = handler(request_of(from));
    to.status = response.status;
    to.set_content(response.body, response.content_type.c_str());
  };
}

void configure(httplib::Server& server, std::size_t threads) {
  server.new_task_queue = [threads] { return new httplib::ThreadPool(threads); };
  server.set_read_timeout(kIoTimeoutSeconds, 0);
  server.set_write_timeout(kIoTimeoutSeconds, 0);
  server.set_keep_alive_timeout(1);
  server.set_payload_max_length(kMaxBody);
  // Not the library's default of SO_REUSEPORT: a second agent would share the port and nobody would notice.
  server.set_socket_options([](int fd) {
    const int on = 1;
    ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  });
  server.set_error_handler([](const httplib::Request& request, httplib::Response& response) {
    if (response.body.empty()) {
      response.set_content(request.method + " " + request.path + ": " + std::to_string(response.status) + "\n",
                           "text/plain");
    }
  });
}

}  // namespace

HttpResponse HttpResponse::text(int status, std::string lines) {
  HttpResponse response;
  response.status = status;
  response.body = std::move(lines) + "\n";
  return response;
}

HttpResponse HttpResponse::json(std::string document) {
  HttpResponse response = HttpResponse::text(kHttpOk, std::move(document));
  response.content_type = "application/json";
  return response;
}

struct HttpServer::Impl {
  httplib::Server server;
  Endpoint address;
  std::atomic<bool> ended{false};
  std::thread thread;
};

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

HttpServer::~HttpServer() {
  impl_->server.stop();
  if (impl_->thread.joinable()) impl_->thread.join();
}

Endpoint HttpServer::address() const { return impl_->address; }

Result<std::unique_ptr<HttpServer>> HttpServer::start(const std::string& name, const Endpoint& address,
                                                      const HttpRoutes& routes, std::size_t threads) {
  auto impl = std::make_unique<Impl>();
  configure(impl->server, threads);
  for (const auto& [key, handler] : routes) {
    if (key.first == "GET")
      impl->server.Get(key.second, wrap(handler));
    else
      impl->server.Post(key.second, wrap(handler));
  }
  const std::string host = address.address.to_string();
  impl->address = address;
  bool bound = false;
  if (address.port == 0) {
    const int port = impl->server.bind_to_any_port(host);
    bound = port > 0;
    if (bound) impl->address.port = static_cast<std::uint16_t>(port);
  } else {
    bound = impl->server.bind_to_port(host, address.port);
  }
  if (!bound) {
    // The library closes the socket before it returns, and errno with it.
    return fail(ErrorCode::kUnavailable, "bind the " + name + " address " + address.to_string() +
                                             ": failed (is it taken by another agent, or not this machine's?)");
  }
  impl->thread = std::thread([raw = impl.get()] {
    raw->server.listen_after_bind();
    raw->ended = true;
  });
  // stop() before the loop has begun would be lost.
  while (!impl->server.is_running() && !impl->ended) std::this_thread::yield();
  log::info("http server open name={} address={}", name, impl->address.to_string());
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

Result<HttpResponse> http_request(const Endpoint& address, const std::string& method, const std::string& path_and_query,
                                  int timeout_ms) {
  httplib::Client client(address.address.to_string(), address.port);
  const time_t seconds = timeout_ms / 1000;
  const time_t micros = timeout_ms % 1000 * 1000;
  client.set_connection_timeout(seconds, micros);
  client.set_read_timeout(seconds, micros);
  client.set_write_timeout(seconds, micros);
  const SteadyTime asked = Clock::real().now();
  auto result = method == "POST" ? client.Post(path_and_query.c_str()) : client.Get(path_and_query.c_str());
  if (!result) {
    // The library calls it the same when the time is up and when the connection ends.
    const bool late = result.error() == httplib::Error::Read && Clock::real().now() - asked >= milliseconds(timeout_ms);
    return fail(late ? ErrorCode::kTimeout : ErrorCode::kUnavailable,
                method + " http://" + address.to_string() + path_and_query + ": " + httplib::to_string(result.error()) +
                    (late ? " (the agent did not answer in time)"
                          : " (is weft-agent running, and is this its admin address?)"));
  }
  return HttpResponse{
      .status = result->status, .content_type = result->get_header_value("Content-Type"), .body = result->body};
}

}  // namespace weft::admin
