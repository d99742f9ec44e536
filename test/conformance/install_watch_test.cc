// SPDX-License-Identifier: Apache-2.0
// `weft-cni install --watch`: the entry stays in place, whatever the owners of the lists do.
#include <atomic>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <thread>

#include "test/conformance/install_fixture.h"

namespace weft::test {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kCiliumList =
    R"({"cniVersion":"0.3.1","name":"cilium","plugins":[{"type":"cilium-cni","enable-debug":false}]})";

std::size_t count(const std::string& text, const std::string& of) {
  std::size_t found = 0;
  for (auto at = text.find(of); at != std::string::npos; at = text.find(of, at + 1)) ++found;
  return found;
}

/// Does something again and again, as an owner who fights does, until its end.
class Repeating {
 public:
  Repeating(milliseconds pause, std::function<void()> what)
      : thread_([this, pause, what = std::move(what)] {
          while (!stop_) {
            what();
            std::this_thread::sleep_for(pause);
          }
        }) {}
  ~Repeating() {
    stop_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

class InstallWatch : public InstallTest {};

TEST_F(InstallWatch, WaitsForThePrimaryAndStaysInPlaceAtItsEnd) {
  auto watcher = watch();
  ASSERT_TRUE(watcher.wait_for_output("waiting for the primary CNI plugin", kSoon));
  EXPECT_FALSE(ready());
  put("10-net.conflist", kPtpList);
  ASSERT_TRUE(eventually(kSoon, [&] { return ready(); })) << watcher.err();
  EXPECT_TRUE(has_entry("10-net.conflist"));
  EXPECT_EQ(read_file(ready_file()), conf("10-net.conflist") + "\n");
  watcher.signal(SIGTERM);
  EXPECT_EQ(watcher.finish(kSoon).status, 0);
  EXPECT_TRUE(has_entry("10-net.conflist")) << "a reboot must not take the guard away";
  EXPECT_TRUE(fs::exists(program()));
  EXPECT_FALSE(ready());
  ASSERT_EQ(uninstall().status, 0);
  EXPECT_EQ(text("10-net.conflist"), kPtpList);
  EXPECT_FALSE(fs::exists(conf(".weft-cni.lock")));
}

TEST_F(InstallWatch, PutsItselfBack) {
  put("10-net.conflist", kPtpList);
  auto watcher = watch_in_place({"--failure-policy", "closed"});
  const auto back = [&] {
    return eventually(kSoon, [&] {
      return has_entry("10-net.conflist") && json("10-net.conflist")["plugins"].back()["failurePolicy"] == "closed";
    });
  };
  const std::string with_entry = text("10-net.conflist");
  put("10-net.conflist", kPtpList);
  EXPECT_TRUE(back()) << "rewritten by rename: " << watcher.err();
  put_in_place("10-net.conflist", kPtpList);
  EXPECT_TRUE(back()) << "rewritten in place: " << watcher.err();
  fs::remove(conf("10-net.conflist"));
  put("10-net.conflist", kPtpList);
  EXPECT_TRUE(back()) << "removed and made again: " << watcher.err();
  std::string other = with_entry;
  other.replace(other.find("closed"), 6, "open");
  put("10-net.conflist", other);
  EXPECT_TRUE(back()) << "other settings: " << watcher.err();
  EXPECT_THAT(watcher.err(), HasSubstr("rewrote it without weft-cni"));
  EXPECT_THAT(watcher.err(), HasSubstr("changed the entry of weft-cni"));
}

TEST_F(InstallWatch, AHalfWrittenListIsLeftUntilItIsWhole) {
  put("10-net.conflist", kPtpList);
  auto watcher = watch_in_place();
  const std::string whole = kPtpList;
  put_in_place("10-net.conflist", whole.substr(0, 100));
  ASSERT_TRUE(watcher.wait_for_output("skipped invalid files", kSoon));
  EXPECT_TRUE(eventually(kSoon, [&] { return !ready(); }));
  EXPECT_EQ(text("10-net.conflist"), whole.substr(0, 100));
  put_in_place("10-net.conflist", whole);
  EXPECT_TRUE(eventually(kSoon, [&] { return has_entry("10-net.conflist") && ready(); })) << watcher.err();
}

TEST_F(InstallWatch, AnOwnerWhoFightsIsAnsweredEverMoreSlowly) {
  put("10-net.conflist", kPtpList);
  auto watcher = watch_in_place();
  {
    const Repeating owner(milliseconds(20), [&] { put("10-net.conflist", kPtpList); });
    ASSERT_TRUE(watcher.wait_for_output("quarrel=true", kSoon)) << watcher.err();
    const auto start = std::chrono::steady_clock::now();
    eventually(milliseconds(3000), [&] { return !watcher.running(); });
    // 100, 200, 400, 800, 1600 ms: after three of them some three seconds have room for few more.
    EXPECT_LE(count(watcher.err(), "putting it back"), 9U) << watcher.err();
    EXPECT_GE(std::chrono::steady_clock::now() - start, milliseconds(3000));
    EXPECT_FALSE(ready());
    const std::string stat = read_file("/proc/" + std::to_string(watcher.pid()) + "/stat");
    long user = 0, system = 0;
    std::istringstream fields(stat.substr(stat.rfind(')') + 2));
    std::string skipped;
    for (int field = 3; field < 14; ++field) fields >> skipped;
    fields >> user >> system;
    EXPECT_LT(user + system, 100) << "a second of processor time in three: a hot loop";
  }
  EXPECT_TRUE(eventually(milliseconds(12'000), [&] { return has_entry("10-net.conflist"); })) << watcher.err();
}

TEST_F(InstallWatch, FollowsTheFirstList) {
  put("10-net.conflist", kPtpList);
  auto watcher = watch_in_place();
  put("05-other.conflist", R"({"cniVersion":"1.1.0","name":"y","plugins":[{"type":"z"}]})");
  EXPECT_TRUE(eventually(kSoon, [&] { return has_entry("05-other.conflist") && text("10-net.conflist") == kPtpList; }))
      << watcher.err();
  fs::remove(conf("05-other.conflist"));
  EXPECT_TRUE(eventually(kSoon, [&] { return has_entry("10-net.conflist"); })) << watcher.err();
}

TEST_F(InstallWatch, FollowsALoneConfigurationAndGoesWithIt) {
  put("10-net.conf", R"({"cniVersion":"0.4.0","name":"lone","type":"ptp"})");
  auto watcher = watch_in_place();
  put("10-net.conf", R"({"cniVersion":"0.4.0","name":"lone","type":"ptp","mtu":1300})");
  EXPECT_TRUE(eventually(kSoon, [&] {
    return has_entry("10-net-weft.conflist") && json("10-net-weft.conflist")["plugins"][0].contains("mtu");
  })) << watcher.err();
  fs::remove(conf("10-net.conf"));
  EXPECT_TRUE(eventually(kSoon, [&] { return names().empty(); })) << "ours must not be there alone: " << watcher.err();
  EXPECT_TRUE(eventually(kSoon, [&] { return !ready(); })) << watcher.err();
}

TEST_F(InstallWatch, TheFolderMayBeReplaced) {
  put("10-net.conflist", kPtpList);
  auto watcher = watch_in_place();
  fs::rename(conf(), conf() + ".old");
  fs::create_directory(conf());
  put("10-net.conflist", kPtpList);
  EXPECT_TRUE(eventually(kSoon, [&] { return has_entry("10-net.conflist"); })) << "renamed away: " << watcher.err();
  fs::remove_all(conf());
  ASSERT_TRUE(eventually(kSoon, [&] { return !ready(); }));
  fs::create_directory(conf());
  put("10-net.conflist", kPtpList);
  EXPECT_TRUE(eventually(kSoon, [&] { return has_entry("10-net.conflist") && ready(); })) << watcher.err();
  put("10-net.conflist", kPtpList);
  EXPECT_TRUE(eventually(kSoon, [&] { return has_entry("10-net.conflist"); })) << "not watched: " << watcher.err();
}

TEST_F(InstallWatch, AProgramThatIsGoneComesBack) {
  put("10-net.conflist", kPtpList);
  auto watcher = watch_in_place();
  fs::remove(program());
  EXPECT_TRUE(eventually(kSoon, [&] { return fs::exists(program()); })) << watcher.err();
  EXPECT_EQ(read_file(program()), read_file(installer_path()));
}

TEST_F(InstallWatch, AnExclusiveCiliumIsNamedAndTheNodeIsNotReady) {
  put("10-net.conflist", kPtpList);
  auto watcher = watch_in_place();
  fs::rename(conf("10-net.conflist"), conf("10-net.conflist.cilium_bak"));
  ASSERT_TRUE(watcher.wait_for_output("set cni.exclusive=false", kSoon)) << watcher.err();
  EXPECT_TRUE(eventually(kSoon, [&] { return !ready(); }));
  {
    // What Cilium's agent does at each event in the folder.
    const Repeating cilium(milliseconds(50), [&] {
      if (!fs::exists(conf("05-cilium.conflist")) || text("05-cilium.conflist") != kCiliumList) {
        put("05-cilium.conflist", kCiliumList);
      }
    });
    ASSERT_TRUE(watcher.wait_for_output("quarrel=true", milliseconds(10'000))) << watcher.err();
    EXPECT_FALSE(eventually(milliseconds(2000), [&] { return ready(); })) << watcher.err();
  }
  EXPECT_THAT(names(), testing::Contains("10-net.conflist.cilium_bak"));
}

TEST_F(InstallWatch, LeftoversOfAnExclusiveCiliumCountOnlyUntilTheEntryHasStayed) {
  put("05-cilium.conflist", kCiliumList);
  put("10-net.conflist.cilium_bak", kPtpList);
  auto watcher = watch();
  ASSERT_TRUE(watcher.wait_for_output("has yet to stay there", kSoon)) << watcher.err();
  EXPECT_TRUE(has_entry("05-cilium.conflist"));
  EXPECT_FALSE(ready());
  EXPECT_TRUE(eventually(milliseconds(8000), [&] { return ready(); })) << watcher.err();
}

TEST_F(InstallWatch, CiliumsOwnLegacyFileSaysNothing) {
  put("05-cilium.conflist", kCiliumList);
  put("05-cilium.conf.cilium_bak", R"({"cniVersion":"0.3.1","name":"cilium","type":"cilium-cni"})");
  auto watcher = watch_in_place();
  EXPECT_THAT(watcher.err(), Not(HasSubstr("cni.exclusive")));
}

/// At every moment a runtime must find a whole list, and the next start must mend all.
TEST_F(InstallWatch, KilledAtAnyMomentItLeavesWholeFiles) {
  put("10-net.conflist", kPtpList);
  constexpr int kRounds = 40;
  for (int round = 0; round < kRounds; ++round) {
    auto watcher = watch();
    put("10-net.conflist", kPtpList);
    std::this_thread::sleep_for(std::chrono::microseconds(round * 500));  // another moment each time
    watcher.kill();
    const auto found = types("10-net.conflist");
    ASSERT_TRUE(found == (std::vector<std::string>{"ptp", "portmap"}) ||
                found == (std::vector<std::string>{"ptp", "portmap", "weft-cni"}))
        << text("10-net.conflist");
  }
  ASSERT_EQ(install().status, 0);
  EXPECT_TRUE(has_entry("10-net.conflist"));
  EXPECT_THAT(names(), ElementsAre("10-net.conflist"));
  ASSERT_EQ(uninstall().status, 0) << "the lock of a killed watcher must not count";
  EXPECT_EQ(text("10-net.conflist"), kPtpList);
  EXPECT_TRUE(fs::is_empty(bin()));
}

TEST_F(InstallWatch, TheNewestWatcherHasTheSay) {
  put("10-net.conflist", kPtpList);
  auto older = watch_in_place({"--log-level", "info"});
  auto newer = watch_in_place({"--log-level", "debug"});
  const auto level = [&] { return json("10-net.conflist")["plugins"].back().value("logLevel", ""); };
  EXPECT_TRUE(eventually(kSoon, [&] { return has_entry("10-net.conflist") && level() == "debug"; }));
  put("10-net.conflist", kPtpList);
  EXPECT_TRUE(eventually(kSoon, [&] { return has_entry("10-net.conflist"); }));
  EXPECT_EQ(level(), "debug") << "the older one took part";
  newer.kill();
  put("10-net.conflist", kPtpList);
  EXPECT_TRUE(eventually(kSoon, [&] { return has_entry("10-net.conflist"); })) << older.err();
  EXPECT_EQ(level(), "info");
}

TEST_F(InstallWatch, AnInstallBesideAWatcherSaysThatItDoesNotLast) {
  put("10-net.conflist", kPtpList);
  auto watcher = watch_in_place({"--log-level", "info"});
  const auto beside = install({"--log-level", "debug"});
  EXPECT_EQ(beside.status, 0);
  EXPECT_THAT(beside.err, HasSubstr("puts its own settings back"));
  EXPECT_TRUE(eventually(kSoon, [&] { return json("10-net.conflist")["plugins"].back()["logLevel"] == "info"; }));
}

TEST_F(InstallWatch, UninstallRefusesWhileAWatcherWouldUndoIt) {
  put("10-net.conflist", kPtpList);
  auto watcher = watch_in_place();
  const auto refused = uninstall();
  EXPECT_EQ(refused.status, 1);
  EXPECT_THAT(refused.err, HasSubstr("stop it first"));
  EXPECT_TRUE(has_entry("10-net.conflist"));
  EXPECT_TRUE(fs::exists(program()));
  watcher.signal(SIGTERM);
  ASSERT_EQ(watcher.finish(kSoon).status, 0);
  EXPECT_EQ(uninstall().status, 0);
  EXPECT_EQ(text("10-net.conflist"), kPtpList);
}

}  // namespace
}  // namespace weft::test
