// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>

#include "cni-plugin/registration.h"
#include "test/conformance/fake_agent.h"

namespace weft::cni {
namespace {

using test::FakeAgent;
using testing::AllOf;
using testing::HasSubstr;
using Kind = FakeAgent::Answer::Kind;

/// A folder for the socket, and an agent at it when a test wants one.
class RegistrationCall : public testing::Test {
 protected:
  void SetUp() override {
    char pattern[] = "/tmp/weft-call-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern), nullptr);
    folder_ = pattern;
    path_ = folder_ + "/agent.sock";
  }
  void TearDown() override {
    ::unlink(path_.c_str());
    ::rmdir(folder_.c_str());
  }

  static Request status() { return {}; }

  std::string folder_, path_;
};

TEST_F(RegistrationCall, AsksAndIsAnswered) {
  const FakeAgent agent(path_);
  const auto reply = call(path_, status(), 5000);
  ASSERT_TRUE(reply) << reply.error().message();
  EXPECT_FALSE(reply->error);
  EXPECT_THAT(agent.requests(), testing::ElementsAre(R"({"version":1,"verb":"status"})"));
}

TEST_F(RegistrationCall, TheDescriptorArrives) {
  const FakeAgent agent(path_);
  Request request;
  request.verb = Verb::kRegister;
  request.key = {"c", "eth0"};
  request.netns = path_;
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const Fd other(ends[1]);
  request.netns_fd.reset(ends[0]);
  struct stat info {};
  ASSERT_EQ(::fstat(ends[0], &info), 0);
  const auto reply = call(path_, request, 5000);
  ASSERT_TRUE(reply) << reply.error().message();
  EXPECT_TRUE(reply->enrolled);
  EXPECT_EQ(agent.registrations().at({"c", "eth0"}), info.st_ino);
}

TEST_F(RegistrationCall, NoSocketIsAnAgentThatIsAway) {
  const auto reply = call(path_, status(), 5000);
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(reply.error().message(),
              AllOf(HasSubstr(path_), HasSubstr("No such file"), HasSubstr("is weft-agent running")));
}

TEST_F(RegistrationCall, ASocketWithNobodyBehindItToo) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path_.c_str(), path_.size() + 1);
  {
    const Fd bound(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::bind(bound.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  const auto reply = call(path_, status(), 5000);
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(reply.error().message(), HasSubstr("Connection refused"));
}

TEST_F(RegistrationCall, AnotherKindOfSocketIsNoAgent) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path_.c_str(), path_.size() + 1);
  const Fd stream(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::bind(stream.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(stream.get(), 1), 0);
  const auto reply = call(path_, status(), 5000);
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ErrorCode::kInvalid);
}

TEST_F(RegistrationCall, AnAgentThatClosesIsAway) {
  FakeAgent agent(path_);
  agent.answer_all({Kind::kClose, {}});
  const auto reply = call(path_, status(), 5000);
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ErrorCode::kUnavailable);
  EXPECT_THAT(reply.error().message(), HasSubstr("closed the connection"));
}

TEST_F(RegistrationCall, AnAgentThatSaysNothingTimesOut) {
  FakeAgent agent(path_);
  agent.answer_all({Kind::kSilence, {}});
  const auto start = std::chrono::steady_clock::now();
  const auto reply = call(path_, status(), 150);
  const auto took = std::chrono::steady_clock::now() - start;
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ErrorCode::kTimeout);
  EXPECT_THAT(reply.error().message(), AllOf(HasSubstr("150 ms"), HasSubstr(path_)));
  EXPECT_GE(took, std::chrono::milliseconds(149));
  EXPECT_LT(took, std::chrono::seconds(5));
}

TEST_F(RegistrationCall, AFullQueueTimesOut) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path_.c_str(), path_.size() + 1);
  const Fd listener(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(listener.get(), 0), 0);
  // Nobody accepts: the queue takes one connection.
  const Fd first(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::connect(first.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  const auto reply = call(path_, status(), 100);
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ErrorCode::kTimeout);
}

TEST_F(RegistrationCall, AnAnswerOverTheLimitIsRefused) {
  FakeAgent agent(path_);
  agent.answer_all({Kind::kReply, std::string(kMaxMessage + 1, ' ')});
  const auto reply = call(path_, status(), 5000);
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ErrorCode::kInvalid);
  EXPECT_THAT(reply.error().message(), HasSubstr("more than 65536 bytes"));
}

TEST_F(RegistrationCall, AnAnswerOfTheLimitIsRead) {
  FakeAgent agent(path_);
  std::string text = R"({"version":1,"ok":true})";
  text.resize(kMaxMessage, ' ');
  agent.answer_all({Kind::kReply, text});
  EXPECT_TRUE(call(path_, status(), 5000));
}

TEST_F(RegistrationCall, ARequestOverTheLimitIsNotSent) {
  const FakeAgent agent(path_);
  Request request;
  request.verb = Verb::kGc;
  for (int i = 0; i < 1000; ++i) request.valid.push_back({std::string(64, 'c') + std::to_string(i), "eth0"});
  const auto reply = call(path_, request, 5000);
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ErrorCode::kInvalid);
  EXPECT_TRUE(agent.requests().empty());
}

TEST_F(RegistrationCall, AnswersThatAreNoneAreRefused) {
  FakeAgent agent(path_);
  agent.answer_all({Kind::kReply, "hello"});
  const auto reply = call(path_, status(), 5000);
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ErrorCode::kInvalid);
}

TEST_F(RegistrationCall, RefusalsOfTheAgentComeThrough) {
  FakeAgent agent(path_);
  agent.refuse_all(ErrorCode::kDenied, "addresses differ");
  const auto reply = call(path_, status(), 5000);
  ASSERT_TRUE(reply);
  ASSERT_TRUE(reply->error);
  EXPECT_EQ(reply->error->code, ErrorCode::kDenied);
  EXPECT_EQ(reply->error->message(), "addresses differ");
}

TEST_F(RegistrationCall, ANewPluginAndAnOldAgentNameBothVersions) {
  const FakeAgent agent(path_);  // speaks version 1
  Request request;
  request.version = 2;
  const auto reply = call(path_, request, 5000);
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(reply.error().message(), AllOf(HasSubstr("it speaks version 1"), HasSubstr("this plugin version 2")));
}

TEST_F(RegistrationCall, AnOldPluginAndANewAgentWorkOrNameBothVersions) {
  FakeAgent agent(path_);
  // A new agent that still speaks our version answers in it, with keys that we do not know.
  agent.answer_all({Kind::kReply, R"({"version":1,"ok":true,"enrolled":true,"since2":{}})"});
  EXPECT_TRUE(call(path_, status(), 5000));
  // One that does not says so.
  agent.answer_all({Kind::kReply, R"({"version":3,"ok":false,"code":"unsupported","message":"speak 3"})"});
  const auto refused = call(path_, status(), 5000);
  ASSERT_TRUE(refused);
  ASSERT_TRUE(refused->error);
  EXPECT_EQ(refused->error->code, ErrorCode::kUnsupported);
  // One that answers in its own version all the same is not understood.
  agent.answer_all({Kind::kReply, R"({"version":3,"ok":true})"});
  const auto reply = call(path_, status(), 5000);
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(reply.error().message(), AllOf(HasSubstr("version 3"), HasSubstr("at most 1")));
}

TEST_F(RegistrationCall, APathThatIsTooLongIsNamed) {
  const auto reply = call("/" + std::string(108, 'x'), status(), 100);
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ErrorCode::kInvalid);
  EXPECT_THAT(reply.error().message(), HasSubstr("1 to 107 bytes"));
}

TEST(RegistrationPacket, DescriptorsBeyondTheFirstAreClosed) {
  int pair[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
  Fd near(pair[0]), far(pair[1]);
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  Fd reader(ends[0]), writer(ends[1]);
  // Three copies of the pipe's writing end in one message.
  char control[CMSG_SPACE(3 * sizeof(int))] = {};
  char byte = 'x';
  iovec part{&byte, 1};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(3 * sizeof(int));
  const int copies[3] = {writer.get(), writer.get(), writer.get()};
  std::memcpy(CMSG_DATA(header), copies, sizeof copies);
  ASSERT_EQ(::sendmsg(near.get(), &message, 0), 1);
  {
    const auto packet = receive_packet(far.get());
    ASSERT_TRUE(packet);
    EXPECT_EQ(packet->text, "x");
    EXPECT_TRUE(packet->fd);
    EXPECT_NE(::fcntl(packet->fd.get(), F_GETFD) & FD_CLOEXEC, 0);
  }
  // With every copy closed the reading end sees the end of the stream.
  writer.reset();
  EXPECT_EQ(::read(reader.get(), &byte, 1), 0);
}

}  // namespace
}  // namespace weft::cni
