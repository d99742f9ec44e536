// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace weft::test {

/// A cgroup with a memory limit, of version 2 or 1, for programs that the test starts. It goes with the object, and
/// those that killed tests left go when the next one is made.
class MemoryCgroup {
 public:
  /// Null where this machine lets nobody make one.
  static std::unique_ptr<MemoryCgroup> make(std::uint64_t limit_bytes);
  MemoryCgroup(const MemoryCgroup&) = delete;
  MemoryCgroup& operator=(const MemoryCgroup&) = delete;
  ~MemoryCgroup();

  /// What the test starts while this lives runs in the cgroup: the test itself is in it so long.
  class Inside {
   public:
    explicit Inside(const MemoryCgroup& group);
    Inside(const Inside&) = delete;
    Inside& operator=(const Inside&) = delete;
    ~Inside();

   private:
    const MemoryCgroup& group_;
  };

 private:
  MemoryCgroup(std::string home, std::string folder) : home_(std::move(home)), folder_(std::move(folder)) {}

  std::string home_, folder_;  ///< of the test's own cgroup, and of this one
};

}  // namespace weft::test
