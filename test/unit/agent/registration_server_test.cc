// SPDX-License-Identifier: Apache-2.0
#include "agent/registration_server.h"

#include <gmock/gmock.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <condition_variable>
#include <cstring>
#include <fstream>
#include <mutex>

#include "test/unit/agent/fakes.h"

namespace weft::agent {
namespace {

using ::testing::HasSubstr;

class RegistrationServerTest : public ::testing::Test {
 protected:
  void start(RegistrationServer::Handler handler = {}) {
    if (!handler) {
      handler = [](cni::Request request) {
        cni::Reply reply;
        reply.enrolled = request.verb == cni::Verb::kRegister && request.netns_fd.valid();
        reply.notes = {request.key.container_id};
        return reply;
      };
    }
    auto server = RegistrationServer::start(config_, std::move(handler));
    ASSERT_TRUE(server) << server.error().message();
    server_ = std::move(*server);
  }

  Fd connect_raw(int type = SOCK_SEQPACKET) const {
    Fd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, config_.socket_path.c_str(), sizeof address.sun_path - 1);
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0) return Fd();
    return fd;
  }

  cni::Request request(cni::Verb verb) const {
    cni::Request made;
    made.verb = verb;
    made.key = {"c1", "eth0"};
    made.netns = "/run/netns/x";
    made.pod_namespace = "shop";
    made.pod_name = "web";
    made.addresses = {test::ip("10.0.0.5")};
    made.ifindex = 2;
    return made;
  }

  test::TemporaryDirectory directory_;
  RegistrationServerConfig config_{.socket_path = directory_.path() + "/deep/agent.sock",
                                   .threads = 2,
                                   .max_waiting = 8,
                                   .io_timeout = milliseconds(200),
                                   .allowed_uids = {::getuid()}};
  std::unique_ptr<RegistrationServer> server_;
};

TEST_F(RegistrationServerTest, AnswersAndPassesTheDescriptor) {
  start();
  auto registering = request(cni::Verb::kRegister);
  registering.netns_fd = Fd(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
  auto reply = cni::call(config_.socket_path, registering, 2'000);
  ASSERT_TRUE(reply) << reply.error().message();
  EXPECT_TRUE(reply->enrolled);
  EXPECT_THAT(reply->notes, ::testing::ElementsAre("c1"));
  auto status = cni::call(config_.socket_path, request(cni::Verb::kStatus), 2'000);
  ASSERT_TRUE(status) << status.error().message();
  EXPECT_FALSE(status->enrolled);
  EXPECT_EQ(server_->requests(), 2U);
  EXPECT_EQ(server_->errors(), 0U);
}

TEST_F(RegistrationServerTest, CarriesTheHandlersError) {
  start([](cni::Request) {
    cni::Reply reply;
    reply.error = Error{ErrorCode::kInvalid, 0, "pod shop/web has the addresses 1 and 2"};
    return reply;
  });
  auto reply = cni::call(config_.socket_path, request(cni::Verb::kUnregister), 2'000);
  ASSERT_TRUE(reply) << reply.error().message();
  ASSERT_TRUE(reply->error);
  EXPECT_EQ(reply->error->code, ErrorCode::kInvalid);
  EXPECT_THAT(reply->error->message(), HasSubstr("addresses 1 and 2"));
  EXPECT_EQ(server_->errors(), 1U);
}

TEST_F(RegistrationServerTest, SocketIsForItsOwnerOnly) {
  start();
  struct stat st {};
  ASSERT_EQ(::stat(config_.socket_path.c_str(), &st), 0);
  EXPECT_TRUE(S_ISSOCK(st.st_mode));
  EXPECT_EQ(st.st_mode & 0777U, 0600U);
}

TEST_F(RegistrationServerTest, RefusesAnotherUid) {
  config_.allowed_uids = {::getuid() + 1};
  start();
  auto reply = cni::call(config_.socket_path, request(cni::Verb::kStatus), 2'000);
  ASSERT_TRUE(reply) << reply.error().message();
  ASSERT_TRUE(reply->error);
  EXPECT_EQ(reply->error->code, ErrorCode::kDenied);
  EXPECT_THAT(reply->error->message(), HasSubstr("only root may ask"));
}

TEST_F(RegistrationServerTest, ReplacesAStaleSocketOnly) {
  start();
  auto second = RegistrationServer::start(config_, [](cni::Request) { return cni::Reply(); });
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(second.error().message(), HasSubstr("another agent answers"));
  server_.reset();
  EXPECT_FALSE(std::filesystem::exists(config_.socket_path));

  {
    // What a killed agent leaves: a bound node that nobody listens on.
    const Fd dead(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, config_.socket_path.c_str(), sizeof address.sun_path - 1);
    ASSERT_EQ(::bind(dead.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  ASSERT_TRUE(std::filesystem::exists(config_.socket_path));
  start();
  EXPECT_TRUE(cni::call(config_.socket_path, request(cni::Verb::kStatus), 2'000));
}

TEST_F(RegistrationServerTest, RefusesAPathThatIsNoSocketOrTooLong) {
  std::filesystem::create_directories(directory_.path() + "/deep");
  std::ofstream(config_.socket_path) << "precious";
  auto file = RegistrationServer::start(config_, [](cni::Request) { return cni::Reply(); });
  ASSERT_FALSE(file);
  EXPECT_THAT(file.error().message(), HasSubstr("is no socket"));
  EXPECT_TRUE(std::filesystem::exists(config_.socket_path));
  config_.socket_path = "/tmp/" + std::string(200, 'x');
  auto too_long = RegistrationServer::start(config_, [](cni::Request) { return cni::Reply(); });
  ASSERT_FALSE(too_long);
  EXPECT_EQ(too_long.error().code, ErrorCode::kInvalid);
}

TEST_F(RegistrationServerTest, SaysWhatIsWrongWithAPacket) {
  start();
  for (const char* text : {"not json", "{}", R"({"version":1,"verb":"dance"})", R"({"version":99,"verb":"status"})"}) {
    const Fd client = connect_raw();
    ASSERT_TRUE(cni::send_packet(client.get(), text, -1));
    auto packet = cni::receive_packet(client.get());
    ASSERT_TRUE(packet) << text;
    auto reply = cni::parse_reply(packet->text);
    ASSERT_TRUE(!reply || reply->error) << text;
  }
  EXPECT_EQ(server_->errors(), 4U);
}

TEST_F(RegistrationServerTest, ASilentClientDoesNotHoldUpOthers) {
  start();
  std::vector<Fd> silent;
  for (int i = 0; i < 4; ++i) silent.push_back(connect_raw());
  // Two threads, each held for 200 ms at most by each silent client.
  auto reply = cni::call(config_.socket_path, request(cni::Verb::kStatus), 5'000);
  ASSERT_TRUE(reply) << reply.error().message();
  EXPECT_FALSE(reply->error);
  for (const Fd& fd : silent) {
    auto told = cni::receive_packet(fd.get());
    ASSERT_TRUE(told);
    EXPECT_THAT(told->text, HasSubstr("\"ok\":false"));
  }
}

TEST_F(RegistrationServerTest, StopsWithARequestUnderWay) {
  std::atomic<bool> entered{false};
  std::atomic<bool> leave{false};
  start([&](cni::Request) {
    entered = true;
    entered.notify_all();
    leave.wait(false);
    return cni::Reply();
  });
  const Fd client = connect_raw();
  ASSERT_TRUE(cni::send_packet(client.get(), cni::encode(request(cni::Verb::kStatus)), -1));
  entered.wait(false);
  std::thread stopper([&] { server_->stop(); });
  leave = true;
  leave.notify_all();
  auto packet = cni::receive_packet(client.get());
  stopper.join();
  ASSERT_TRUE(packet) << packet.error().message();
  EXPECT_FALSE(connect_raw());
}

TEST_F(RegistrationServerTest, WhatAPluginThatIsGoneRegisteredIsTakenBack) {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<cni::Verb> verbs;
  bool client_gone = false;
  start([&](const cni::Request& asked) {
    std::unique_lock lock(mutex);
    verbs.push_back(asked.verb);
    changed.notify_all();
    changed.wait(lock, [&] { return client_gone; });
    cni::Reply reply;
    reply.created = true;
    return reply;
  });
  {
    const Fd client = connect_raw();
    ASSERT_TRUE(cni::send_packet(client.get(), cni::encode(request(cni::Verb::kRegister)), -1));
    std::unique_lock lock(mutex);
    ASSERT_TRUE(changed.wait_for(lock, std::chrono::seconds(10), [&] { return verbs.size() == 1; }));
  }
  std::unique_lock lock(mutex);
  client_gone = true;
  changed.notify_all();
  ASSERT_TRUE(changed.wait_for(lock, std::chrono::seconds(10), [&] { return verbs.size() == 2; }));
  EXPECT_EQ(verbs[1], cni::Verb::kUnregister);
}

TEST_F(RegistrationServerTest, APluginThatDidNotWaitIsNotRegistered) {
  config_.threads = 1;
  std::mutex mutex;
  std::condition_variable changed;
  int handled = 0;
  bool go_on = false;
  start([&](const cni::Request& /*asked*/) {
    std::unique_lock lock(mutex);
    ++handled;
    changed.notify_all();
    changed.wait(lock, [&] { return go_on; });
    return cni::Reply();
  });
  const Fd busy = connect_raw();
  ASSERT_TRUE(cni::send_packet(busy.get(), cni::encode(request(cni::Verb::kStatus)), -1));
  std::unique_lock lock(mutex);
  ASSERT_TRUE(changed.wait_for(lock, std::chrono::seconds(10), [&] { return handled == 1; }));
  {
    const Fd impatient = connect_raw();
    ASSERT_TRUE(cni::send_packet(impatient.get(), cni::encode(request(cni::Verb::kRegister)), -1));
  }
  go_on = true;
  changed.notify_all();
  lock.unlock();
  // Its turn comes before this one's, which is answered.
  const Fd last = connect_raw();
  ASSERT_TRUE(cni::send_packet(last.get(), cni::encode(request(cni::Verb::kStatus)), -1));
  EXPECT_TRUE(cni::receive_packet(last.get()));
  lock.lock();
  EXPECT_EQ(handled, 2);
}

}  // namespace
}  // namespace weft::agent
