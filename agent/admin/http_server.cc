// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/http_server.h"

#include <fcntl.h>
#include <httplib.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <cerrno>
#include <thread>

#include "tunnel/base/clock.h"
#include "tunnel/base/log.h"
#include "tunnel/base/sys.h"

namespace weft::admin {
namespace {

constexpr time_t kIoTimeoutSeconds = 5;
constexpr time_t kIdleSeconds = 1;
constexpr std::size_t kMaxBody = 16 * 1024;
constexpr int kBacklog = 128;

/// The library shuts its listener down when it stops, for every process that has it: one that is handed over must be
/// taken from it before.
class Server final : public httplib::Server {
 public:
  void adopt(int listener) { svr_sock_ = listener; }
  void abandon() { svr_sock_ = -1; }
};

/// Not with SO_REUSEPORT: a second agent would share the port and nobody would notice.
Result<Fd> listen_on(const std::string& name, const Endpoint& address) {
  const auto failed = [&](Error error) {
    const char* cause = error.errno_value == EADDRINUSE      ? " (is it taken by another agent?)"
                        : error.errno_value == EADDRNOTAVAIL ? " (it is no address of this machine)"
                                                             : "";
    error.code = ErrorCode::kUnavailable;
    error.context = "open the " + name + " address: " + error.context + cause;
    return Failure(std::move(error));
  };
  auto fd = sys::socket(address.address.is_v6() ? AF_INET6 : AF_INET, SOCK_STREAM);
  if (!fd) return fd;
  if (auto reused = sys::set_option(fd->get(), SOL_SOCKET, SO_REUSEADDR, 1); !reused) return Failure(reused.error());
  // An agent that another one has taken over from lets go within kIdleSeconds; that other one may have died.
  const SteadyTime until = Clock::real().now() + std::chrono::seconds(2 * kIdleSeconds);
  auto bound = sys::bind(fd->get(), address.to_sockaddr());
  while (!bound && bound.error().errno_value == EADDRINUSE && Clock::real().now() < until) {
    ::poll(nullptr, 0, 20);
    bound = sys::bind(fd->get(), address.to_sockaddr());
  }
  if (!bound) return failed(bound.error());
  if (auto listening = sys::listen(fd->get(), kBacklog); !listening) return failed(listening.error());
  return fd;
}

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
  // So that the loop notices in time when it is to leave a listener that lives on.
  server.set_idle_interval(kIdleSeconds, 0);
  server.set_error_handler([](const httplib::Request& request, httplib::Response& response) {
    if (response.body.empty()) {
      response.set_content(request.method + " " + request.path + ": " + std::to_string(response.status) + "\n",
                           "text/plain");
    }
  });
}

}  // namespace

struct HttpServer::Impl {
  std::string name;
  Server server;
  Fd listener;
  Endpoint address;
  bool abandoned = false;
  std::atomic<bool> ended{false};
  std::thread thread;
};

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

HttpServer::~HttpServer() {
  if (!impl_->abandoned) {
    // The library closes what it stops.
    [[maybe_unused]] const int closed = impl_->listener.release();
    impl_->server.stop();
  }
  if (impl_->thread.joinable()) impl_->thread.join();
}

const std::string& HttpServer::name() const { return impl_->name; }

Endpoint HttpServer::address() const { return impl_->address; }

Fd HttpServer::listener() const { return Fd(::fcntl(impl_->listener.get(), F_DUPFD_CLOEXEC, 0)); }

void HttpServer::abandon() {
  impl_->abandoned = true;
  impl_->server.abandon();
}

Result<std::unique_ptr<HttpServer>> HttpServer::start(const std::string& name, const Endpoint& address,
                                                      const HttpRoutes& routes, std::size_t threads, Fd listener) {
  auto impl = std::make_unique<Impl>();
  impl->name = name;
  configure(impl->server, threads);
  for (const auto& [key, handler] : routes) {
    if (key.first == "GET")
      impl->server.Get(key.second, wrap(handler));
    else
      impl->server.Post(key.second, wrap(handler));
  }
  if (!listener) {
    auto made = listen_on(name, address);
    if (!made) return Failure(made.error());
    listener = std::move(*made);
  }
  auto local = sys::local_endpoint(listener.get());
  if (!local) return Failure(local.error());
  impl->address = *local;
  impl->listener = std::move(listener);
  impl->server.adopt(impl->listener.get());
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
