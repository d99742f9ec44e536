// SPDX-License-Identifier: Apache-2.0
#include "agent/control/local_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>
#include <vector>

namespace weft::control {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

std::string config(const std::string& name) {
  return "workloads: [{name: " + name + ", namespace: ns, workloadIps: [10.0.0.1]}]\n";
}

/// What a source delivered, in order: "name" of the first workload, or "error: TEXT".
class Deliveries {
 public:
  Source::Deliver callback() {
    return [this](Result<std::shared_ptr<const state::State>> outcome) {
      const std::scoped_lock lock(mutex_);
      all_.push_back(!outcome                          ? "error: " + outcome.error().message()
                     : (*outcome)->workloads().empty() ? "none"
                                                       : (*outcome)->workloads()[0]->name);
      changed_.notify_all();
    };
  }
  /// Waits until `count` outcomes are there, and gives them all back.
  std::vector<std::string> wait_for(std::size_t count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(20), [&] { return all_.size() >= count; }))
        << "only " << all_.size() << " of " << count << " outcomes";
    return all_;
  }
  std::string last_of(std::size_t count) {
    const auto all = wait_for(count);
    return all.size() == count ? all.back() : "wrong count " + std::to_string(all.size());
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> all_;
};

/// A directory of its own; events are enough there, so the poll interval is long unless a test is about polling.
class LocalFileTest : public ::testing::Test {
 protected:
  LocalFileTest() {
    std::string pattern = (fs::temp_directory_path() / "weft-local-file-XXXXXX").string();
    directory_ = ::mkdtemp(pattern.data());
    path_ = directory_ / "weft.yaml";
  }
  ~LocalFileTest() override { fs::remove_all(directory_); }

  static void write(const fs::path& path, const std::string& text) { std::ofstream(path, std::ios::trunc) << text; }
  /// As editors and kubectl do: a new file renamed over the old one.
  void replace(const std::string& text) const {
    write(directory_ / "new", text);
    fs::rename(directory_ / "new", path_);
  }
  /// Waits until the source's status says so.
  static void wait_for_status(const Source& source, const std::string& part) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (source.status().find(part) == std::string::npos && std::chrono::steady_clock::now() < end) {
      std::this_thread::yield();
    }
    EXPECT_THAT(source.status(), HasSubstr(part));
  }

  static constexpr milliseconds kNever{3'600'000};
  fs::path directory_, path_;
  Deliveries got_;
};

TEST_F(LocalFileTest, StartDeliversTheFirstVersion) {
  write(path_, config("one"));
  LocalFile source(path_, kNever);
  ASSERT_TRUE(source.start(got_.callback()));
  EXPECT_EQ(got_.last_of(1), "one");
  EXPECT_EQ(source.status(), "file " + path_.string() + ": 1 workloads, 0 services, 0 policies in force");
}

TEST_F(LocalFileTest, StartFailsWithoutTheFile) {
  LocalFile source(path_, kNever);
  const auto started = source.start(got_.callback());
  ASSERT_FALSE(started);
  EXPECT_EQ(started.error().code, ErrorCode::kNotFound);
  EXPECT_EQ(started.error().message(), "open " + path_.string() + ": No such file or directory");
}

TEST_F(LocalFileTest, StartFailsOnABadFile) {
  write(path_, "workloads: 1\n");
  LocalFile source(path_, kNever);
  const auto started = source.start(got_.callback());
  ASSERT_FALSE(started);
  EXPECT_EQ(started.error().message(), path_.string() + ":1: workloads: \"1\": expected a list");
}

TEST_F(LocalFileTest, StartFailsOnAConflict) {
  write(path_,
        "workloads: [{name: a, namespace: ns, workloadIps: [10.0.0.1]}, {name: b, namespace: ns, workloadIps: "
        "[10.0.0.1]}]");
  LocalFile source(path_, kNever);
  const auto started = source.start(got_.callback());
  ASSERT_FALSE(started);
  EXPECT_EQ(started.error().message(),
            path_.string() +
                ": workloads Kubernetes//Pod/ns/a and Kubernetes//Pod/ns/b both have address 10.0.0.1 in network \"\"");
}

TEST_F(LocalFileTest, StartFailsOnWhatIsNoFile) {
  LocalFile source(directory_, kNever);
  const auto started = source.start(got_.callback());
  ASSERT_FALSE(started);
  EXPECT_THAT(started.error().message(), HasSubstr("not a regular file"));
}

TEST_F(LocalFileTest, ARenameIsSeen) {
  write(path_, config("one"));
  LocalFile source(path_, kNever);
  ASSERT_TRUE(source.start(got_.callback()));
  replace(config("two"));
  EXPECT_EQ(got_.last_of(2), "two");
}

TEST_F(LocalFileTest, AWriteInPlaceIsSeen) {
  write(path_, config("one"));
  LocalFile source(path_, kNever);
  ASSERT_TRUE(source.start(got_.callback()));
  write(path_, config("two"));
  EXPECT_EQ(got_.last_of(2), "two");
}

/// A mounted ConfigMap: FILE -> ..data/FILE, ..data -> a directory of this version, swapped by rename.
TEST_F(LocalFileTest, ASymlinkSwapIsSeen) {
  for (const char* version : {"v1", "v2"}) {
    fs::create_directory(directory_ / version);
    write(directory_ / version / "weft.yaml", config(version));
  }
  fs::create_symlink("v1", directory_ / "..data");
  fs::create_symlink("..data/weft.yaml", path_);
  LocalFile source(path_, kNever);
  ASSERT_TRUE(source.start(got_.callback()));
  fs::create_symlink("v2", directory_ / "..data_tmp");
  fs::rename(directory_ / "..data_tmp", directory_ / "..data");
  EXPECT_EQ(got_.last_of(2), "v2");
}

TEST_F(LocalFileTest, ABadVersionIsRefusedWholeAndTheOldOneStays) {
  write(path_, config("one"));
  LocalFile source(path_, kNever);
  ASSERT_TRUE(source.start(got_.callback()));
  replace("workloads: [{name: two, namespace: ns, workloadIps: [10.0.0.2]}, {}]\n");
  EXPECT_THAT(got_.last_of(2), HasSubstr("error: " + path_.string() + ":1: workloads[1].namespace: missing"));
  EXPECT_THAT(source.status(),
              HasSubstr("1 workloads, 0 services, 0 policies in force; the version in the file is refused: "));
  replace(config("three"));
  EXPECT_EQ(got_.last_of(3), "three");
  EXPECT_THAT(source.status(), Not(HasSubstr("refused")));
}

TEST_F(LocalFileTest, AnEmptiedFileIsABadVersion) {
  write(path_, config("one"));
  LocalFile source(path_, kNever);
  ASSERT_TRUE(source.start(got_.callback()));
  replace("");
  EXPECT_THAT(got_.last_of(2), HasSubstr("empty: expected"));
}

TEST_F(LocalFileTest, SameContentIsNotDeliveredAgain) {
  write(path_, config("one"));
  LocalFile source(path_, kNever);
  ASSERT_TRUE(source.start(got_.callback()));
  replace(config("one"));
  write(path_, config("one"));
  replace(config("two"));
  EXPECT_EQ(got_.last_of(2), "two");
}

TEST_F(LocalFileTest, AVanishedFileLeavesTheOldVersionInForce) {
  write(path_, config("one"));
  LocalFile source(path_, kNever);
  ASSERT_TRUE(source.start(got_.callback()));
  fs::remove(path_);
  wait_for_status(
      source, "1 workloads, 0 services, 0 policies in force; open " + path_.string() + ": No such file or directory");
  write(path_, config("two"));
  EXPECT_EQ(got_.last_of(2), "two");
  EXPECT_THAT(source.status(), Not(HasSubstr("No such file")));
}

TEST_F(LocalFileTest, ADirectoryThatIsReplacedIsWatchedAgain) {
  const fs::path inner = directory_ / "inner";
  fs::create_directory(inner);
  write(inner / "weft.yaml", config("one"));
  LocalFile source(inner / "weft.yaml", milliseconds(20));
  ASSERT_TRUE(source.start(got_.callback()));
  fs::rename(inner, directory_ / "old");
  fs::create_directory(inner);
  write(inner / "weft.yaml", config("two"));
  EXPECT_EQ(got_.last_of(2), "two");
  write(inner / "weft.yaml", config("three"));
  EXPECT_EQ(got_.last_of(3), "three");
}

/// The file is a link into a directory that is not watched: only looking at the content tells.
TEST_F(LocalFileTest, AChangeWithoutAnEventIsSeenByPolling) {
  fs::create_directory(directory_ / "away");
  fs::create_directory(directory_ / "here");
  write(directory_ / "away" / "real.yaml", config("one"));
  fs::create_symlink("../away/real.yaml", directory_ / "here" / "weft.yaml");
  LocalFile source(directory_ / "here" / "weft.yaml", milliseconds(20));
  ASSERT_TRUE(source.start(got_.callback()));
  write(directory_ / "away" / "real.yaml", config("two"));
  EXPECT_EQ(got_.last_of(2), "two");
}

TEST_F(LocalFileTest, StopEndsTheThreadAtOnceAndDeliversNothingAfterwards) {
  write(path_, config("one"));
  LocalFile source(path_, kNever);
  ASSERT_TRUE(source.start(got_.callback()));
  const auto before = std::chrono::steady_clock::now();
  source.stop();
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(10));
  source.stop();
  EXPECT_EQ(got_.wait_for(1).size(), 1U);
}

}  // namespace
}  // namespace weft::control
