// SPDX-License-Identifier: Apache-2.0
/// The instruments themselves: what the other tests conclude from must see what is there and tell how it ended.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>

#include "test/support/capture.h"
#include "test/support/mesh.h"
#include "test/support/netns.h"
#include "test/support/process.h"

namespace weft::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

/// Two namespaces joined by a veth pair, with addresses of both families, and a server in the second.
class TwoNamespaces : public ::testing::Test {
 protected:
  void SetUp() override {
    WEFT_NEEDS_ROOT();
    a_.emplace("a");
    b_.emplace("b");
    connect_veth(*a_, "eth0", *b_, "eth0");
    a_->ip("addr add 192.0.2.1/24 dev eth0");
    b_->ip("addr add 192.0.2.2/24 dev eth0");
    a_->ip("addr add 2001:db8::1/64 dev eth0 nodad");
    b_->ip("addr add 2001:db8::2/64 dev eth0 nodad");
    server_.emplace(Process::start({program("weft-testapp"), "serve", "--name", "b"},
                                   {.netns = &*b_, .environment = {}, .input = {}}));
    ASSERT_TRUE(server_->wait_for_output("serving", milliseconds(10'000)));
  }

  Finished client(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), program("weft-testapp"));
    return run(arguments, {.netns = &*a_, .environment = {}, .input = {}});
  }

  std::optional<Netns> a_, b_;
  std::optional<Process> server_;
};

TEST_F(TwoNamespaces, AnswersNameTheClientInBothFamilies) {
  const Finished v4 = client({"get", "192.0.2.2:8080", "--from", "192.0.2.1:4444"});
  EXPECT_TRUE(v4.ok()) << v4.out;
  EXPECT_THAT(v4.out, HasSubstr("server=b client=192.0.2.1:4444 local=192.0.2.2:8080 path=/hello"));
  const Finished v6 = client({"get", "[2001:db8::2]:8080"});
  EXPECT_TRUE(v6.ok()) << v6.out;
  EXPECT_THAT(v6.out, HasSubstr("client=[2001:db8::1]:"));
}

TEST_F(TwoNamespaces, ExitStatusesTellHowAConnectionEnds) {
  EXPECT_EQ(client({"get", "192.0.2.2:9"}).status, 3) << "refused";
  EXPECT_EQ(client({"get", "192.0.2.9:9", "--connect-timeout", "0.2"}).status, 4) << "nobody there";
  Process held = Process::start({program("weft-testapp"), "hold", "192.0.2.2:8080", "--interval", "0.01"},
                                {.netns = &*a_, .environment = {}, .input = {}});
  ASSERT_TRUE(held.wait_for_output("held ", milliseconds(10'000)));
  must_run({"ss", "-K", "sport", "=", ":8080"}, {.netns = &*b_, .environment = {}, .input = {}});
  const Finished ended = held.finish(milliseconds(10'000));
  EXPECT_EQ(ended.status, 5) << ended.out;
  EXPECT_THAT(ended.out, HasSubstr("ended how=reset"));
}

TEST_F(TwoNamespaces, BulkIsByteExactInBothDirectionsWithEitherSideClosingFirst) {
  const Finished client_first =
      client({"bulk", "192.0.2.2:8080", "--send", "1000", "--receive", "20000000", "--seed", "7"});
  EXPECT_TRUE(client_first.ok()) << client_first.out;
  const Finished server_first = client({"bulk", "[2001:db8::2]:8080", "--send", "20000000", "--receive", "1000"});
  EXPECT_TRUE(server_first.ok()) << server_first.out;
  EXPECT_TRUE(server_->wait_for_output("received=20000000", milliseconds(10'000)));
  EXPECT_THAT(server_->out(), Not(HasSubstr("differs")));
  const Finished slow = client({"bulk", "192.0.2.2:8080", "--receive", "200000", "--read-rate", "400000"});
  EXPECT_TRUE(slow.ok()) << slow.out;
}

TEST_F(TwoNamespaces, CaptureSeesPayloadInBothFamiliesAndWithIpOptions) {
  const Capture capture(*a_, "eth0");
  ASSERT_TRUE(client({"get", "192.0.2.2:8080", "--marker", "plain-v4"}).ok());
  ASSERT_TRUE(client({"get", "[2001:db8::2]:8080", "--marker", "plain-v6"}).ok());
  ASSERT_TRUE(client({"get", "192.0.2.2:8080", "--marker", "with-options", "--ip-options", "01010101"}).ok());
  for (const char* marker : {"plain-v4", "plain-v6", "with-options"}) {
    EXPECT_TRUE(eventually(milliseconds(2000), [&] { return capture.contains(marker); })) << marker;
    const auto with_marker =
        capture.segments([&](const Segment& s) { return s.payload.find(marker) != std::string::npos; });
    ASSERT_FALSE(with_marker.empty()) << marker;
    EXPECT_EQ(with_marker[0].destination.port, 8080);
    EXPECT_TRUE(with_marker[0].outgoing);
  }
  EXPECT_FALSE(capture.contains("never-sent"));
  EXPECT_EQ(capture.lost(), 0U);
  EXPECT_EQ(capture.segments([](const Segment& s) { return s.is_syn(); }).size(), 3U);
}

TEST_F(TwoNamespaces, CaptureFindsAMarkerThatIsTornAcrossSegments) {
  const Capture capture(*a_, "eth0");
  run_in(*a_, [] {
    const Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const auto to = Endpoint::parse("192.0.2.2:8080")->to_sockaddr();
    ASSERT_EQ(::connect(fd.get(), to.get(), to.length), 0);
    const int one = 1;
    ::setsockopt(fd.get(), SOL_TCP, TCP_NODELAY, &one, sizeof one);
    for (const char* part : {"HOLD to", "rn-mar", "ker\n"}) ASSERT_GT(::send(fd.get(), part, std::strlen(part), 0), 0);
    char answer[64];
    ASSERT_GT(::recv(fd.get(), answer, sizeof answer, 0), 0);
  });
  EXPECT_TRUE(eventually(milliseconds(2000), [&] { return capture.contains("torn-marker"); }));
  EXPECT_EQ(capture.payload_bytes([](const Segment& s) { return s.destination.port == 8080; }), 17U);
}

TEST_F(TwoNamespaces, ShortCapturesStillCountPayload) {
  const Capture capture(*a_, "eth0", 128);
  ASSERT_TRUE(client({"bulk", "192.0.2.2:8080", "--send", "3000000", "--receive", "0"}).ok());
  const auto to_server = [](const Segment& s) { return s.destination.port == 8080; };
  EXPECT_TRUE(eventually(milliseconds(5000), [&] { return capture.payload_bytes(to_server) >= 3'000'000; }));
}

TEST(Process, GivesOutputAndStatus) {
  const Finished finished =
      run({"sh", "-c", "cat; echo err >&2; exit 7"}, {.netns = nullptr, .environment = {}, .input = "in"});
  EXPECT_EQ(finished.status, 7);
  EXPECT_EQ(finished.out, "in");
  EXPECT_EQ(finished.err, "err\n");
  EXPECT_THROW(must_run({"false"}), TestError);
  EXPECT_EQ(run({"no-such-program-anywhere"}).status, 127);
}

TEST(Process, IsKilledAndReapedAtTheEndOfItsLife) {
  pid_t pid = 0;
  {
    Process sleeper = Process::start({"sleep", "1000"});
    pid = sleeper.pid();
    EXPECT_TRUE(sleeper.running());
    EXPECT_EQ(sleeper.wait(milliseconds(0)), std::nullopt);
  }
  EXPECT_EQ(::kill(pid, 0), -1);
}

TEST(Leftovers, OfAKilledRunAreSweptAway) {
  WEFT_NEEDS_ROOT();
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const Netns netns("left");
    ScratchDir folder;
    folder.mount_bpffs();
    const std::string told = netns.path() + "\n" + folder.path() + "\n";
    if (::write(ends[1], told.data(), told.size()) < 0) ::_exit(1);
    ::kill(::getpid(), SIGKILL);
  }
  ASSERT_GT(child, 0);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  ::close(ends[1]);
  std::string told(4096, '\0');
  const ssize_t got = ::read(ends[0], told.data(), told.size());
  ::close(ends[0]);
  ASSERT_GT(got, 0);
  const auto middle = told.find('\n');
  const std::string netns = told.substr(0, middle);
  const std::string folder = told.substr(middle + 1, told.find('\n', middle + 1) - middle - 1);
  ASSERT_TRUE(std::filesystem::exists(netns));
  ASSERT_TRUE(std::filesystem::exists(folder + "/bpf"));
  sweep_leftovers();
  EXPECT_FALSE(std::filesystem::exists(netns));
  EXPECT_FALSE(std::filesystem::exists(folder));
}

TEST(RunIn, GivesValuesAndPassesOnWhatIsThrown) {
  WEFT_NEEDS_ROOT();
  const Netns netns("values");
  EXPECT_EQ(run_in(netns, [] { return 42; }), 42);
  EXPECT_THROW(run_in(netns, [] { throw TestError("inside"); }), TestError);
  netns.sysctl("net/ipv4/ip_forward", "1");
  EXPECT_EQ(run_in(netns, [] { return read_file("/proc/sys/net/ipv4/ip_forward"); }), "1\n");
}

}  // namespace
}  // namespace weft::test
