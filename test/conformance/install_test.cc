// SPDX-License-Identifier: Apache-2.0
// `weft-cni install` without --watch: what is written, and what is given back.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "test/conformance/install_fixture.h"

namespace weft::test {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

Finished call(const std::vector<std::string>& arguments) {
  std::vector<std::string> all{installer_path()};
  all.insert(all.end(), arguments.begin(), arguments.end());
  return run(all);
}

TEST(InstallCommandLine, HelpIsOnStdoutAndErrorsOnStderr) {
  const auto help = call({"--help"});
  EXPECT_EQ(help.status, 0);
  EXPECT_THAT(help.out, HasSubstr("--conf-dir DIR"));
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
           {"frobnicate"},
           {"install"},
           {"install", "--bin-dir", "/nonexistent"},
           {"install", "--bin-dir", "/nonexistent", "--conf-dir"},
           {"install", "--bin-dir", "/nonexistent", "--conf-dir", "/nonexistent", "--color"},
           {"install", "--bin-dir", "/nonexistent", "--conf-dir", "/nonexistent", "--watch=yes"},
           {"uninstall", "--bin-dir", "/nonexistent", "--conf-dir", "/nonexistent", "--watch"},
           {"install", "--bin-dir", "/nonexistent", "--conf-dir", "/nonexistent", "--failure-policy", "maybe"},
           {"install", "--bin-dir", "/nonexistent", "--conf-dir", "/nonexistent", "--entry", R"({"type":"ptp"})"}}) {
    const auto refused = call(arguments);
    EXPECT_EQ(refused.status, 2) << refused.err;
    EXPECT_EQ(refused.out, "");
    EXPECT_THAT(refused.err, HasSubstr("usage: weft-cni install"));
  }
}

TEST(InstallCommandLine, WithoutArgumentsItIsAPluginAsBefore) {
  const auto about = call({});
  EXPECT_EQ(about.status, 0);
  EXPECT_EQ(about.out, "");
  EXPECT_THAT(about.err, HasSubstr("CNI"));
}

struct Format {
  const char* name;
  std::string text;
};

class InstallFormats : public InstallTest, public testing::WithParamInterface<Format> {};

TEST_P(InstallFormats, TheEntryIsLastAndUninstallGivesBackEveryByte) {
  put("10-net.conflist", GetParam().text);
  const auto installed = install();
  ASSERT_EQ(installed.status, 0) << installed.err;
  EXPECT_EQ(installed.out, "");
  Json expected = Json::parse(GetParam().text);
  expected["plugins"].push_back(
      {{"type", "weft-cni"}, {"capabilities", {{"io.kubernetes.cri.pod-annotations", true}}}});
  EXPECT_EQ(json("10-net.conflist"), expected) << text("10-net.conflist");
  EXPECT_THAT(names(), ElementsAre("10-net.conflist"));

  const auto removed = uninstall();
  ASSERT_EQ(removed.status, 0) << removed.err;
  EXPECT_EQ(text("10-net.conflist"), GetParam().text);
  EXPECT_THAT(names(), ElementsAre("10-net.conflist"));
  EXPECT_TRUE(fs::is_empty(bin()));
}

INSTANTIATE_TEST_SUITE_P(
    , InstallFormats,
    testing::Values(Format{"pretty", kPtpList},
                    Format{"compact", R"({"cniVersion":"1.0.0","name":"x","plugins":[{"type":"bridge"}]})"},
                    Format{"keysBehind",
                           R"({"plugins": [ {"type":"a"} , {"type":"b"} ], "name":"x","cniVersion":"0.4.0"})"},
                    Format{"tabsAndCrLf",
                           "\t{\r\n\t\"cniVersion\":\t\"1.1.0\",\r\n\t\"name\": \"x\",\r\n\t\"plugins\": "
                           "[\r\n\t\t{\"type\": \"a\"}\r\n\t]\r\n}\r\n\r\n"},
                    Format{"trickyTexts", R"({"name":"x","plu\u0067ins":[{"type":"a","b":"\\\"]},{[","c":[[{}],"}"]}],)"
                                          R"("cniVersion":"0.3.1","e":1.50e1,"d":{"plugins":[{"type":"no"}]}})"}),
    [](const auto& instance) { return instance.param.name; });

TEST_F(InstallTest, ModeOwnerAndVersionStay) {
  put("10-net.conflist", kPtpList);
  ASSERT_EQ(::chmod(conf("10-net.conflist").c_str(), 0640), 0);
  if (is_root()) {
    ASSERT_EQ(::chown(conf("10-net.conflist").c_str(), 12, 34), 0);
  }
  struct stat before = {}, after = {};
  ASSERT_EQ(::stat(conf("10-net.conflist").c_str(), &before), 0);
  ASSERT_EQ(install().status, 0);
  ASSERT_EQ(::stat(conf("10-net.conflist").c_str(), &after), 0);
  EXPECT_NE(before.st_ino, after.st_ino) << "written in place, not by rename";
  EXPECT_EQ(before.st_mode, after.st_mode);
  EXPECT_EQ(before.st_uid, after.st_uid);
  EXPECT_EQ(before.st_gid, after.st_gid);
  EXPECT_EQ(json("10-net.conflist")["cniVersion"], "0.3.1");
}

TEST_F(InstallTest, TheSecondTimeNothingIsWritten) {
  put("10-net.conflist", kPtpList);
  ASSERT_EQ(install().status, 0);
  const Untouched list(conf("10-net.conflist")), binary(program());
  ASSERT_EQ(install().status, 0);
  EXPECT_EQ(Untouched(conf("10-net.conflist")), list);
  EXPECT_EQ(Untouched(program()), binary);
}

TEST_F(InstallTest, SettingsGoIntoTheEntryAndLaterOnesReplaceThem) {
  put("10-net.conflist", kPtpList);
  ASSERT_EQ(install({"--failure-policy", "open", "--agent-socket=/run/a.sock", "--exclude-namespaces", "a,b"}).status,
            0);
  EXPECT_EQ(json("10-net.conflist")["plugins"].back(),
            Json::parse(R"({"type":"weft-cni","capabilities":{"io.kubernetes.cri.pod-annotations":true},
                            "failurePolicy":"open","agentSocket":"/run/a.sock","excludeNamespaces":["a","b"]})"));
  ASSERT_EQ(install({"--entry", R"({"type":"weft-cni","logLevel":"debug"})"}).status, 0);
  EXPECT_EQ(json("10-net.conflist")["plugins"].back(), Json::parse(R"({"type":"weft-cni","logLevel":"debug"})"));
  EXPECT_TRUE(has_entry("10-net.conflist"));
  ASSERT_EQ(uninstall().status, 0);
  EXPECT_EQ(text("10-net.conflist"), kPtpList);
}

TEST_F(InstallTest, SeveralEntriesBecomeOneAndItIsTheLast) {
  put("10-net.conflist", R"({"cniVersion":"1.0.0","name":"x","plugins":[{"type":"weft-cni","logLevel":"off"},
      {"type":"a"}, {"type":"weft-cni"}, {"type":"b"}]})");
  ASSERT_EQ(install().status, 0);
  EXPECT_THAT(types("10-net.conflist"), ElementsAre("a", "b", "weft-cni"));
  ASSERT_EQ(uninstall().status, 0);
  EXPECT_THAT(types("10-net.conflist"), ElementsAre("a", "b"));
}

TEST_F(InstallTest, TheFirstValidFileByNameIsTheOne) {
  const std::string corrupt = R"({"cniVersion":"1.0.0","name":"x","plugins":[{"ty)";
  put("00-corrupt.conflist", corrupt);
  put("01-empty.conflist", "");
  put("02-noplugins.conflist", R"({"cniVersion":"1.0.0","name":"x","plugins":[]})");
  put("03-list.conf", kPtpList);
  put("04-net.conflist.bak", kPtpList);
  put("04-net.txt", kPtpList);
  fs::create_directory(conf("05-folder.conflist"));
  put("20-second.conflist", kPtpList);
  put("10-first.conflist", kPtpList);
  const auto installed = install();
  ASSERT_EQ(installed.status, 0) << installed.err;
  EXPECT_TRUE(has_entry("10-first.conflist"));
  EXPECT_EQ(text("20-second.conflist"), kPtpList);
  EXPECT_EQ(text("00-corrupt.conflist"), corrupt);
  EXPECT_EQ(text("03-list.conf"), kPtpList);
  for (const char* name : {"00-corrupt", "01-empty", "02-noplugins", "03-list"}) {
    EXPECT_THAT(installed.err, HasSubstr(name));
  }
}

TEST_F(InstallTest, AnotherFirstListGetsTheEntryAndTheOldOneItsBytes) {
  put("10-net.conflist", kPtpList);
  ASSERT_EQ(install().status, 0);
  put("05-other.conflist", R"({"cniVersion":"1.1.0","name":"y","plugins":[{"type":"z"}]})");
  ASSERT_EQ(install().status, 0);
  EXPECT_TRUE(has_entry("05-other.conflist"));
  EXPECT_EQ(text("10-net.conflist"), kPtpList);
}

TEST_F(InstallTest, ALoneConfigurationIsFollowedAndNeverTouched) {
  for (const char* suffix : {".conf", ".json"}) {
    const std::string lone = std::string("10-net") + suffix;
    put(lone, "{\"cniVersion\": \"0.4.0\", \"name\": \"lone\",\n \"type\": \"macvlan\", \"mtu\": 1400}\n");
    ASSERT_EQ(::chmod(conf(lone).c_str(), 0640), 0);
    const Untouched before(conf(lone));
    ASSERT_EQ(install().status, 0);
    EXPECT_EQ(Untouched(conf(lone)), before);
    ASSERT_THAT(names(), ElementsAre("10-net-weft.conflist", lone)) << "runtimes take the first";
    const Json list = json("10-net-weft.conflist");
    EXPECT_EQ(list["cniVersion"], "0.4.0");
    EXPECT_EQ(list["name"], "lone");
    EXPECT_EQ(list["plugins"][0], json(lone));
    EXPECT_TRUE(has_entry("10-net-weft.conflist"));
    struct stat state = {};
    ASSERT_EQ(::stat(conf("10-net-weft.conflist").c_str(), &state), 0);
    EXPECT_EQ(state.st_mode & 07777, 0640U);
    const Untouched ours(conf("10-net-weft.conflist"));
    ASSERT_EQ(install().status, 0);
    EXPECT_EQ(Untouched(conf("10-net-weft.conflist")), ours);
    ASSERT_EQ(uninstall().status, 0);
    EXPECT_EQ(Untouched(conf(lone)), before);
    EXPECT_THAT(names(), ElementsAre(lone));
    fs::remove(conf(lone));
  }
}

TEST_F(InstallTest, AListThatComesInPlaceOfALoneOneEndsOurs) {
  put("10-net.conf", R"({"cniVersion":"0.4.0","name":"lone","type":"ptp"})");
  ASSERT_EQ(install().status, 0);
  fs::remove(conf("10-net.conf"));
  put("10-net.conflist", kPtpList);
  ASSERT_EQ(install().status, 0);
  EXPECT_THAT(names(), ElementsAre("10-net.conflist"));
  EXPECT_TRUE(has_entry("10-net.conflist"));
}

TEST_F(InstallTest, ThereIsNeverANetworkOfOursAlone) {
  const auto empty = install();
  EXPECT_EQ(empty.status, 3);
  EXPECT_THAT(empty.err, HasSubstr("waiting for the primary CNI plugin"));
  EXPECT_THAT(names(), IsEmpty());
  put("10-net.conf", R"({"cniVersion":"0.4.0","name":"lone","type":"ptp"})");
  ASSERT_EQ(install().status, 0);
  fs::remove(conf("10-net.conf"));
  EXPECT_EQ(install().status, 3);
  EXPECT_THAT(names(), IsEmpty());
  fs::remove(conf());
  EXPECT_EQ(install().status, 3);
  EXPECT_FALSE(fs::exists(conf()));
}

TEST_F(InstallTest, WaitsForThePrimaryPluginIfTold) {
  auto waiting = Process::start(command("install", {"--wait-seconds", "30"}));
  ASSERT_TRUE(waiting.wait_for_output("waiting for the primary CNI plugin", kSoon));
  put("10-net.conflist", kPtpList);
  EXPECT_EQ(waiting.finish(kSoon).status, 0);
  EXPECT_TRUE(has_entry("10-net.conflist"));
}

TEST_F(InstallTest, AListInWhichItCannotWorkIsLeftAlone) {
  for (const char* list :
       {R"({"cniVersion":"0.2.0","name":"x","plugins":[{"type":"a"}]})", R"({"name":"x","plugins":[{"type":"a"}]})",
        R"({"cniVersion":"1.0.0","name":"x","plugins":[{"type":"weft-cni"}]})"}) {
    put("10-net.conflist", list);
    put("20-net.conflist", kPtpList);
    const auto refused = install();
    EXPECT_EQ(refused.status, 3) << refused.err;
    EXPECT_THAT(refused.err, HasSubstr("10-net.conflist"));
    EXPECT_EQ(text("10-net.conflist"), list);
    EXPECT_EQ(text("20-net.conflist"), kPtpList) << "the runtime does not use it";
  }
}

TEST_F(InstallTest, AFolderThatCannotBeWrittenIsAnErrorAndKeepsItsFiles) {
  put("10-net.conflist", kPtpList);
  const Untouched before(conf("10-net.conflist"));
  const auto refused = on_read_only_folder("install");
  EXPECT_EQ(refused.status, 1) << refused.err;
  EXPECT_THAT(refused.err, HasSubstr(conf()));
  EXPECT_EQ(Untouched(conf("10-net.conflist")), before);
  EXPECT_THAT(names(), ElementsAre("10-net.conflist"));
}

TEST_F(InstallTest, WithoutTheProgramThereIsNoEntry) {
  put("10-net.conflist", kPtpList);
  fs::remove(bin());
  EXPECT_EQ(install().status, 1);
  EXPECT_EQ(text("10-net.conflist"), kPtpList);
}

TEST_F(InstallTest, TheProgramComesByRename) {
  put("10-net.conflist", kPtpList);
  { std::ofstream(program()) << "an old one"; }
  const int running = ::open(program().c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_EQ(install().status, 0);
  char old[16] = {};
  EXPECT_EQ(::read(running, old, sizeof old), 10) << "a process that runs the old one must keep it";
  ::close(running);
  EXPECT_EQ(read_file(program()), read_file(installer_path()));
  fs::permissions(program(), fs::perms(0644));
  ASSERT_EQ(install().status, 0);
  EXPECT_EQ(::access(program().c_str(), X_OK), 0);
  EXPECT_EQ(run({program(), "--version"}).status, 0);
}

TEST_F(InstallTest, ASymbolicLinkStaysALink) {
  fs::create_directory(dir_.path() + "/elsewhere");
  dir_.write("elsewhere/real.conflist", kPtpList);
  fs::create_symlink(dir_.path() + "/elsewhere/real.conflist", conf("10-net.conflist"));
  ASSERT_EQ(install().status, 0);
  EXPECT_TRUE(fs::is_symlink(conf("10-net.conflist")));
  EXPECT_TRUE(has_entry("10-net.conflist"));
  ASSERT_EQ(uninstall().status, 0);
  EXPECT_TRUE(fs::is_symlink(conf("10-net.conflist")));
  EXPECT_EQ(text("10-net.conflist"), kPtpList);
}

TEST_F(InstallTest, WhatAKilledRunLeftBehindIsTidiedUp) {
  put("10-net.conflist", kPtpList);
  put(".weft-Ab12Cd.weft-tmp", "half of a li");
  { std::ofstream(bin() + "/.weft-Ab12Cd.weft-tmp") << "half of a program"; }
  ASSERT_EQ(install().status, 0);
  EXPECT_THAT(names(), ElementsAre("10-net.conflist"));
  EXPECT_FALSE(fs::exists(bin() + "/.weft-Ab12Cd.weft-tmp"));
}

/// The owner writes where the file is, at any moment of an install: his last word must stand.
TEST_F(InstallTest, NothingThatTheOwnerWritesIsLost) {
  constexpr int kRounds = 60;
  for (int round = 0; round < kRounds; ++round) {
    put("10-net.conflist", kPtpList);
    auto installing = Process::start(command("install", {}));
    std::this_thread::sleep_for(std::chrono::microseconds(round * 400));  // another moment each time
    Json changed = Json::parse(kPtpList);
    changed["round"] = round;
    put_in_place("10-net.conflist", changed.dump());
    ASSERT_EQ(installing.finish(kSoon).status, 0);
    ASSERT_EQ(json("10-net.conflist").value("round", -1), round) << text("10-net.conflist");
  }
}

}  // namespace
}  // namespace weft::test
