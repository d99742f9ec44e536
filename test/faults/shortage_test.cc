// SPDX-License-Identifier: Apache-2.0
/// Single failures where it is known what must come of them.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cerrno>
#include <thread>

#include "test/faults/records.h"
#include "tunnel/base/log.h"
#include "tunnel/proxy/context.h"

namespace weft::test {
namespace {

using testing::AllOf, testing::Contains, testing::ElementsAre, testing::HasSubstr, testing::Pair;

constexpr std::uint64_t kNoSeed = 0;
constexpr milliseconds kSoon{30'000};

/// A mesh in which nothing fails but what the test says.
class Shortage : public testing::Test {
 protected:
  void SetUp() override {
    WEFT_NEEDS_ROOT();
    ASSERT_TRUE(log::init("info", log::Format::kText, log_path()));
    ground_ = std::make_unique<Ground>();
    client_ = std::make_unique<End>(*ground_, End::Role::kClient, kNoSeed, Harm::kForced);
    server_ = std::make_unique<End>(*ground_, End::Role::kServer, kNoSeed, Harm::kForced);
    for (End* end : {client_.get(), server_.get()}) {
      end->begin_faults();
      for (std::uint32_t slot = 1; slot <= end->pods(); ++slot) end->add_pod(slot);
    }
  }
  [[nodiscard]] std::string log_path() const { return scratch_.path() + "/log"; }
  std::vector<Record> records(std::size_t count) const {
    std::vector<Record> out;
    eventually(kSoon, [&] { return (out = records_in(read_file(log_path()))).size() >= count; });
    return out;
  }

  ScratchDir scratch_;
  std::unique_ptr<Ground> ground_;
  std::unique_ptr<End> client_, server_;
};

TEST_F(Shortage, WithoutDescriptorsAConnectionIsRefusedAndRecorded) {
  client_->force(Call::kAccept, EMFILE, 1);
  Flows flows = Flows::undisturbed(*ground_, 0, {Flow::Way::kTunnel});
  ASSERT_TRUE(flows.run([](std::size_t) {}));
  EXPECT_EQ(flows.all().front().client->ending(), Peer::Ending::kReset);
  EXPECT_THAT(records(1),
              ElementsAre(AllOf(Contains(Pair("src.addr", flows.all().front().local.to_string())),
                                Contains(Pair("dst.addr", Ground::kService[0].to_string())),
                                Contains(Pair("direction", "outbound")), Contains(Pair("response_flags", "UO")),
                                Contains(Pair("error", HasSubstr("file descriptors"))))));
}

TEST_F(Shortage, WhereNotEvenThatCanBeSaidAConnectionWaits) {
  // One for the connection, one for refusing it.
  client_->force(Call::kAccept, EMFILE, 2);
  Flows flows = Flows::undisturbed(*ground_, 0, {Flow::Way::kTunnel});
  ASSERT_TRUE(flows.run([](std::size_t) {}));
  EXPECT_TRUE(flows.all().front().well()) << flows.describe();
}

TEST_F(Shortage, WithoutMemoryAListenerRests) {
  constexpr std::size_t kTimes = 6;
  server_->force(Call::kAccept, ENOMEM, kTimes);
  Flows flows = Flows::undisturbed(*ground_, 0, {Flow::Way::kPlaintext});
  const auto start = std::chrono::steady_clock::now();
  ASSERT_TRUE(flows.run([](std::size_t) {}));
  EXPECT_TRUE(flows.all().front().well()) << flows.describe();
  EXPECT_GE(std::chrono::steady_clock::now() - start, kTimes * milliseconds(10)) << "it was asked again and again";
}

TEST_F(Shortage, AListenerThatCannotBeWatchedIsTriedAgain) {
  server_->remove_pod(1);
  server_->force(Call::kWatch, ENOSPC, 7);
  server_->add_pod(1);
  Flows flows = Flows::undisturbed(*ground_, 0, {Flow::Way::kTunnel, Flow::Way::kPlaintext});
  ASSERT_TRUE(flows.run([](std::size_t) {}));
  for (const Flow& flow : flows.all()) EXPECT_TRUE(flow.well()) << flow.describe();
}

TEST_F(Shortage, AnHboneConnectionThatFailsBeforeTlsIsRecorded) {
  server_->force(Call::kPeerName, ENOBUFS, 1);
  Flows flows = Flows::undisturbed(*ground_, 0, {Flow::Way::kTunnel});
  ASSERT_TRUE(flows.run([](std::size_t) {}));
  EXPECT_THAT(records(2), Contains(AllOf(Contains(Pair("direction", "inbound")),
                                         Contains(Pair("src.addr", HasSubstr(Ground::kClient[0].address.to_string()))),
                                         Contains(Pair("response_flags", "CONNECT")),
                                         Contains(Pair("error", HasSubstr("getpeername"))))));
}

unsigned long own_netns() {
  struct stat info {};
  EXPECT_EQ(::stat("/proc/thread-self/ns/net", &info), 0);
  return info.st_ino;
}

/// The next pod's descriptor may lie where the last one's lay.
TEST(NetnsSwitch, AThreadThatCouldNotLeaveAPodDoesNotTakeTheNextForIt) {
  WEFT_NEEDS_ROOT();
  const Netns first("first"), second("second");
  std::thread worker([&] {
    FaultInjector injector(kNoSeed, 0, Harm::kForced);
    injector.enter();
    proxy::NetnsSwitch netns;
    ASSERT_TRUE(netns.init());
    Fd place(::open(first.path().c_str(), O_RDONLY | O_CLOEXEC));
    const auto of_pod = [&place] { return std::shared_ptr<const Fd>(std::shared_ptr<void>(), &place); };
    ASSERT_TRUE(netns.enter(of_pod()));
    ASSERT_EQ(own_netns(), first.inode());
    injector.force(Call::kSetns, ENOMEM);
    netns.leave(of_pod());
    ASSERT_EQ(own_netns(), first.inode());
    place.reset(::open(second.path().c_str(), O_RDONLY | O_CLOEXEC));
    ASSERT_TRUE(netns.enter(of_pod()));
    EXPECT_EQ(own_netns(), second.inode());
    injector.leave();
  });
  worker.join();
}

}  // namespace
}  // namespace weft::test
