// SPDX-License-Identifier: Apache-2.0
#include "agent/registration_server.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "agent/unix_listener.h"
#include "tunnel/base/log.h"

namespace weft::agent {
namespace {

constexpr const char* kWhat = "registration socket";
constexpr int kBacklog = 128;

void set_timeouts(int fd, milliseconds timeout) {
  const timeval value{.tv_sec = static_cast<time_t>(timeout.count() / 1000),
                      .tv_usec = static_cast<suseconds_t>(timeout.count() % 1000 * 1000)};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &value, sizeof value);
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &value, sizeof value);
}

bool is_gone(int client) {
  pollfd watched{client, POLLRDHUP, 0};
  return ::poll(&watched, 1, 0) > 0;
}

}  // namespace

Result<std::unique_ptr<RegistrationServer>> RegistrationServer::start(RegistrationServerConfig config, Handler handler,
                                                                      Fd listener) {
  std::unique_ptr<RegistrationServer> server(new RegistrationServer(std::move(config), std::move(handler)));
  auto opened = listener ? server->use(std::move(listener)) : server->open();
  if (!opened) return Failure(opened.error());
  server->threads_.emplace_back([raw = server.get()] { raw->accept_loop(); });
  for (std::uint32_t i = 0; i < server->config_.threads; ++i) {
    server->threads_.emplace_back([raw = server.get()] { raw->serve_loop(); });
  }
  log::info("registration socket open path={}", server->config_.socket_path);
  return server;
}

Result<void> RegistrationServer::open() {
  const std::string& path = config_.socket_path;
  if (auto address = unix_address(kWhat, path); !address) return Failure(address.error());
  std::error_code error;
  const auto directory = std::filesystem::path(path).parent_path();
  if (!directory.empty()) std::filesystem::create_directories(directory, error);
  if (error) return fail_errno(error.value(), "make the directory " + directory.string());
  auto fd = listen_unix(kWhat, path, kBacklog);
  if (!fd) return Failure(fd.error());
  return use(std::move(*fd));
}

Result<void> RegistrationServer::use(Fd listener) {
  struct stat st {};
  if (::lstat(config_.socket_path.c_str(), &st) == 0) socket_inode_ = st.st_ino;
  wake_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake_) return fail_errno(errno, "make an eventfd");
  listener_ = std::move(listener);
  return {};
}

Fd RegistrationServer::listener() const { return Fd(::fcntl(listener_.get(), F_DUPFD_CLOEXEC, 0)); }

void RegistrationServer::hold() {
  std::unique_lock lock(mutex_);
  held_ = true;
  idle_.wait(lock, [this] { return waiting_.empty() && serving_ == 0; });
}

void RegistrationServer::go_on() {
  const std::lock_guard lock(mutex_);
  held_ = false;
  work_.notify_all();
}

void RegistrationServer::abandon() {
  const std::lock_guard lock(mutex_);
  socket_inode_ = 0;
}

RegistrationServer::~RegistrationServer() { stop(); }

void RegistrationServer::stop() {
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(stopping_, true)) return;
    waiting_.clear();
  }
  work_.notify_all();
  ::eventfd_write(wake_.get(), 1);
  for (auto& thread : threads_) thread.join();
  threads_.clear();
  if (!listener_) return;
  listener_.reset();
  // Only the node that this server made: a successor may have put its own there.
  struct stat st {};
  if (::lstat(config_.socket_path.c_str(), &st) == 0 && st.st_ino == socket_inode_)
    ::unlink(config_.socket_path.c_str());
}

void RegistrationServer::accept_loop() {
  pollfd watched[2] = {{listener_.get(), POLLIN, 0}, {wake_.get(), POLLIN, 0}};
  for (;;) {
    if (::poll(watched, 2, -1) < 0 && errno != EINTR) break;
    if (watched[1].revents != 0) return;
    if ((watched[0].revents & POLLIN) == 0) continue;
    std::unique_lock lock(mutex_);
    work_.wait(lock, [this] { return !held_ || stopping_; });
    // Under the lock, so that hold() knows of whoever has been taken.
    Fd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (client) {
      enqueue(std::move(client));
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM) {
      lock.unlock();
      // The client waits in the backlog; try again when something may have been closed, without spinning.
      log::error("accept on the registration socket failed error={}", log::quote(std::strerror(errno)));
      errors_.fetch_add(1, std::memory_order_relaxed);
      ::poll(&watched[1], 1, 100);
    }
  }
  log::error("registration socket lost error={}", log::quote(std::strerror(errno)));
}

/// Under the lock.
void RegistrationServer::enqueue(Fd client) {
  set_timeouts(client.get(), config_.io_timeout);
  if (stopping_ || waiting_.size() >= config_.max_waiting) {
    errors_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  waiting_.push_back(std::move(client));
  work_.notify_all();
}

void RegistrationServer::serve_loop() {
  for (;;) {
    Fd client;
    {
      std::unique_lock lock(mutex_);
      work_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
      if (stopping_) return;
      client = std::move(waiting_.front());
      waiting_.pop_front();
      ++serving_;
    }
    serve(client);
    const std::lock_guard lock(mutex_);
    if (--serving_ == 0 && waiting_.empty()) idle_.notify_all();
  }
}

void RegistrationServer::serve(const Fd& client) {
  requests_.fetch_add(1, std::memory_order_relaxed);
  std::optional<cni::AttachmentKey> registered;
  const cni::Reply reply = answer(client, registered);
  if (reply.error) {
    errors_.fetch_add(1, std::memory_order_relaxed);
    log::warn("registration request refused error={}", log::quote(reply.error->message()));
  }
  if (auto sent = cni::send_packet(client.get(), cni::encode(reply), -1); !sent) {
    errors_.fetch_add(1, std::memory_order_relaxed);
    log::warn("registration reply not delivered error={}", log::quote(sent.error().message()));
    if (registered) take_back(*registered);
  }
}

/// The plugin that asked is gone: its ADD has failed, and its DEL may have been here already.
void RegistrationServer::take_back(const cni::AttachmentKey& key) {
  cni::Request request;
  request.verb = cni::Verb::kUnregister;
  request.key = key;
  (void)handler_(std::move(request));
  log::info("registration taken back, the plugin is gone container={} interface={}", key.container_id, key.if_name);
}

cni::Reply RegistrationServer::answer(const Fd& client, std::optional<cni::AttachmentKey>& registered) {
  cni::Reply reply;
  // Read first: closing on an unread packet would reset the connection and lose the reply that says why.
  auto packet = cni::receive_packet(client.get());
  if (!packet) {
    reply.error = packet.error();
    return reply;
  }
  if (auto allowed = check_peer(client.get()); !allowed) {
    reply.error = allowed.error();
    return reply;
  }
  auto request = cni::parse_request(packet->text);
  if (!request) {
    reply.error = request.error();
    return reply;
  }
  request->netns_fd = std::move(packet->fd);
  const bool registers = request->verb == cni::Verb::kRegister;
  if (registers && is_gone(client.get())) {
    reply.error =
        Error{ErrorCode::kUnavailable, 0,
              "register " + request->key.container_id + "/" + request->key.if_name +
                  ": the plugin did not wait (was the agent busy for longer than its registrationTimeoutMs?)"};
    return reply;
  }
  const cni::AttachmentKey key = request->key;
  reply = handler_(std::move(*request));
  if (registers && reply.created && !reply.error) registered = key;
  return reply;
}

Result<void> RegistrationServer::check_peer(int client) const {
  ucred peer{};
  socklen_t length = sizeof peer;
  if (::getsockopt(client, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0)
    return fail_errno(errno, "read the peer's credentials");
  if (std::find(config_.allowed_uids.begin(), config_.allowed_uids.end(), peer.uid) != config_.allowed_uids.end())
    return {};
  return fail(ErrorCode::kDenied, "registration: process " + std::to_string(peer.pid) + " has uid " +
                                      std::to_string(peer.uid) + ", only root may ask");
}

}  // namespace weft::agent
