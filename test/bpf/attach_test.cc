// SPDX-License-Identifier: Apache-2.0
#include "bpf/attach.h"

#include <bpf/bpf.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "test/bpf/wired.h"

namespace weft::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

TEST(AttachmentId, IsUniqueAndFitForBpffs) {
  EXPECT_EQ(bpf::attachment_id("0a1B", "eth0"), "0a1B-eth0");
  EXPECT_EQ(bpf::attachment_id("0a1B", "eth0.5"), "0a1B-eth0_2e5");
  EXPECT_NE(bpf::attachment_id("a-b", "c"), bpf::attachment_id("a", "b-c"));
  EXPECT_NE(bpf::attachment_id("a_2e", "c"), bpf::attachment_id("a.", "c"));
  EXPECT_EQ(bpf::attachment_id("../x", "/"), "_2e_2e_2fx-_2f");
}

class Attach : public WiredTest {
 protected:
  [[nodiscard]] std::vector<std::string> verify(const bpf::Target& target) const {
    auto wrong = bpf::verify(target);
    if (!wrong) throw TestError(wrong.error().message());
    return *wrong;
  }
  [[nodiscard]] std::string pin(const std::string& hook) const {
    return root_ + "/links/" + a_.target.attachment + "/" + hook;
  }
  /// Another interface of pod a, not attached yet.
  [[nodiscard]] bpf::Target second_interface() const {
    connect_veth(*netns_, "vetha2", *a_.netns, "net1");
    bpf::Target second = a_.target;
    second.attachment = a_.target.attachment.substr(0, a_.target.attachment.find('-')) + "-net1";
    second.ifindex = static_cast<std::uint32_t>(std::stoul(a_.netns->ip("-o link show net1")));
    second.host_ifindex = static_cast<std::uint32_t>(std::stoul(netns_->ip("-o link show vetha2")));
    return second;
  }
  [[nodiscard]] unsigned long netns_of_thread() const {
    struct stat st {};
    EXPECT_EQ(::stat("/proc/thread-self/ns/net", &st), 0);
    return st.st_ino;
  }
};
INSTANTIATE_TEST_SUITE_P(Both, Attach, ::testing::Combine(::testing::Values(4), ::testing::Bool()), wired_name);

TEST_P(Attach, IsIdempotentAndVerified) {
  EXPECT_THAT(verify(a_.target), IsEmpty());
  EXPECT_THAT(*bpf::attachments(root_), UnorderedElementsAre("c1-eth0", "c2-eth0"));
  struct stat before {
  }, after{};
  ASSERT_EQ(::lstat(pin("from_pod").c_str(), &before), 0);
  EXPECT_EQ(S_ISLNK(before.st_mode), std::get<1>(GetParam()));
  ASSERT_TRUE(bpf::attach(a_.target));
  ASSERT_EQ(::lstat(pin("from_pod").c_str(), &after), 0);
  EXPECT_EQ(before.st_ino, after.st_ino);
  EXPECT_THAT(verify(a_.target), IsEmpty());
  EXPECT_EQ(netns_of_thread(), netns_->inode());
}

TEST_P(Attach, DetachTakesEverythingOff) {
  ASSERT_TRUE(bpf::detach(root_, a_.target.attachment));
  EXPECT_THAT(*bpf::attachments(root_), ElementsAre("c2-eth0"));
  EXPECT_EQ(verify(a_.target).size(), 5U);
  ASSERT_TRUE(bpf::detach(root_, a_.target.attachment));
  ASSERT_TRUE(bpf::detach(root_, "never-was"));
  EXPECT_THAT(verify(b_.target), IsEmpty());
  EXPECT_EQ(netns_of_thread(), netns_->inode());
  // The pod is on its own now.
  Fd app = socket_in(*a_.netns, a_.address);
  EXPECT_TRUE(connect_error(app.get(), {f().mesh, 80}, milliseconds(100)));
  EXPECT_EQ(counter("from_pod", "a new connection to the mesh"), 0U);
  ASSERT_TRUE(bpf::attach(a_.target));
  EXPECT_THAT(verify(a_.target), IsEmpty());
}

TEST_P(Attach, FailureLeavesNothing) {
  ASSERT_TRUE(bpf::detach(root_, a_.target.attachment));
  bpf::Target bad = a_.target;
  bad.host_ifindex = 9999;
  const auto result = bpf::attach(bad);
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().message(), HasSubstr("attach to_pod_host on ifindex 9999 of the host"));
  EXPECT_THAT(*bpf::attachments(root_), ElementsAre("c2-eth0"));
  bad.root += "-elsewhere";
  const auto nowhere = bpf::attach(bad);
  ASSERT_FALSE(nowhere);
  EXPECT_THAT(nowhere.error().message(), HasSubstr("has weft-agent run on this node?"));
}

TEST_P(Attach, ANewAgentsProgramsReplaceTheOldOnes) {
  capture_.reset();
  auto loaded = bpf::Capture::load(settings());
  ASSERT_TRUE(loaded) << loaded.error().message();
  capture_ = std::move(*loaded);
  EXPECT_THAT(verify(a_.target), IsEmpty());
  EXPECT_THAT(verify(b_.target), IsEmpty());
}

TEST_P(Attach, ALostDeviceIsSeenAndReplaced) {
  netns_->ip("link del vetha");
  const auto wrong = verify(a_.target);
  EXPECT_EQ(wrong.size(), 4U);  // lo is still there
  EXPECT_THAT(wrong[0], HasSubstr(std::get<1>(GetParam()) ? "the filter is gone" : "that it was attached to is gone"));
  connect_veth(*netns_, "vetha", *a_.netns, "eth0");
  a_.target.ifindex = static_cast<std::uint32_t>(std::stoul(a_.netns->ip("-o link show eth0")));
  a_.target.host_ifindex = static_cast<std::uint32_t>(std::stoul(netns_->ip("-o link show vetha")));
  ASSERT_TRUE(bpf::attach(a_.target));
  EXPECT_THAT(verify(a_.target), IsEmpty());
}

TEST_P(Attach, RefreshForgetsLostDevices) {
  if (std::get<1>(GetParam())) GTEST_SKIP() << "a filter's record says only that nothing is there";
  netns_->ip("link del vetha");
  EXPECT_THAT(*bpf::refresh(root_), IsEmpty());
  for (const auto& text : verify(a_.target)) EXPECT_THAT(text, HasSubstr(": not attached"));
}

TEST_P(Attach, AMissingHookIsNamed) {
  if (std::get<1>(GetParam())) {
    a_.netns->ip("link set eth0 down");
    must_run_in(*a_.netns, {"tc", "qdisc", "del", "dev", "eth0", "clsact"});
    EXPECT_THAT(verify(a_.target), ElementsAre(HasSubstr("to_pod on ifindex"), HasSubstr("from_pod on ifindex")));
  } else {
    ASSERT_EQ(::unlink(pin("guard").c_str()), 0);
    EXPECT_THAT(verify(a_.target), ElementsAre(HasSubstr("guard on ifindex")));
  }
  // A link without a pin lingers for a moment.
  EXPECT_TRUE(eventually(milliseconds(5000), [&] { return bpf::attach(a_.target).has_value(); }));
  EXPECT_THAT(verify(a_.target), IsEmpty());
}

TEST_P(Attach, AttachesAgainAtOnce) {
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(bpf::detach(root_, a_.target.attachment));
    const auto attached = bpf::attach(a_.target);
    ASSERT_TRUE(attached) << attached.error().message();
  }
}

TEST_P(Attach, TheInterfacesOfAPodShareItsLoopback) {
  bpf::Target second = second_interface();
  const auto attached = bpf::attach(second);
  ASSERT_TRUE(attached) << attached.error().message();
  EXPECT_THAT(verify(second), IsEmpty());
  // In either order of leaving the other one keeps what it needs.
  ASSERT_TRUE(bpf::detach(root_, second.attachment));
  EXPECT_THAT(verify(a_.target), IsEmpty());
  ASSERT_TRUE(bpf::attach(second));
  ASSERT_TRUE(bpf::detach(root_, a_.target.attachment));
  EXPECT_THAT(verify(second), IsEmpty());
  EXPECT_EQ(verify(a_.target).size(), 5U);
  ASSERT_TRUE(bpf::attach(a_.target));
  ASSERT_TRUE(bpf::detach(root_, second.attachment));
  EXPECT_THAT(verify(a_.target), IsEmpty());
}

TEST_P(Attach, FiltersBecomeLinks) {
  const bool filters = std::get<1>(GetParam());
  bpf::Target second = second_interface();
  ASSERT_TRUE(bpf::attach(second));
  const auto is_filter = [&] { return std::filesystem::is_symlink(pin("deliver")); };
  EXPECT_EQ(is_filter(), filters);
  auto promoted = bpf::promote(a_.target);
  ASSERT_TRUE(promoted) << promoted.error().message();
  EXPECT_EQ(*promoted, filters && kernel_has_tcx());
  EXPECT_EQ(is_filter(), filters && !kernel_has_tcx());
  for (const auto& target : {a_.target, second}) EXPECT_THAT(verify(target), IsEmpty());
  EXPECT_EQ(bpf::promote(second).value(), filters && kernel_has_tcx());
  EXPECT_FALSE(bpf::promote(second).value());
  for (const auto& target : {a_.target, second}) EXPECT_THAT(verify(target), IsEmpty());
  ASSERT_TRUE(bpf::detach(root_, second.attachment));
  EXPECT_THAT(verify(a_.target), IsEmpty());
  auto [application, agent] = captured();
  expect_talk(application.get(), agent.get());
  second.attachment = "none-eth0";
  const auto missing = bpf::promote(second);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
}

TEST_P(Attach, CallsAtTheSameTimeDoNotDisturbEachOther) {
  std::vector<std::thread> threads;
  std::atomic<int> failures{0};
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      enter(*netns_);
      for (int round = 0; round < 5; ++round) {
        const bool done =
            i == 0 ? bpf::detach(root_, a_.target.attachment).has_value() : bpf::attach(a_.target).has_value();
        if (!done) ++failures;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(failures, 0);
  ASSERT_TRUE(bpf::attach(a_.target));
  EXPECT_THAT(verify(a_.target), IsEmpty());
}

TEST_P(Attach, WithoutAHostSideThePodIsUnguarded) {
  ASSERT_TRUE(bpf::detach(root_, a_.target.attachment));
  a_.target.host_ifindex = 0;
  ASSERT_TRUE(bpf::attach(a_.target));
  EXPECT_THAT(verify(a_.target), IsEmpty());
  EXPECT_NE(::access(pin("guard").c_str(), F_OK), 0);
}

}  // namespace
}  // namespace weft::test
