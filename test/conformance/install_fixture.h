// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "test/support/netns.h"
#include "test/support/process.h"

/// The installer as a process on folders of the test's own; needs no root. Another binary can be tested with
/// WEFT_CNI=PATH.
namespace weft::test {

using Json = nlohmann::ordered_json;

/// A list as a primary plugin writes it.
inline constexpr const char* kPtpList = R"({
  "cniVersion": "0.3.1",
  "name": "kindnet",
  "plugins": [
    {
      "type": "ptp",
      "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.1.0/24"}]]}
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
)";

class InstallTest : public testing::Test {
 protected:
  InstallTest();

  [[nodiscard]] std::string bin() const { return dir_.path() + "/bin"; }
  [[nodiscard]] std::string conf() const { return dir_.path() + "/net.d"; }
  [[nodiscard]] std::string conf(const std::string& name) const { return conf() + "/" + name; }
  [[nodiscard]] std::string ready_file() const { return dir_.path() + "/ready"; }
  [[nodiscard]] std::string program() const { return bin() + "/weft-cni"; }

  /// The owner's file, by rename.
  void put(const std::string& name, const std::string& text) const;
  /// The owner's file, written where it is: empty for a moment, then with the text.
  void put_in_place(const std::string& name, const std::string& text) const;
  [[nodiscard]] std::string text(const std::string& name) const { return read_file(conf(name)); }
  [[nodiscard]] Json json(const std::string& name) const;
  /// The types of a list's plugins.
  [[nodiscard]] std::vector<std::string> types(const std::string& name) const;
  /// Whether the list is valid and our entry is in it, last and once.
  [[nodiscard]] bool has_entry(const std::string& name) const;
  /// All names in the folder of configurations but the watcher's lock.
  [[nodiscard]] std::vector<std::string> names() const;
  [[nodiscard]] bool ready() const;

  [[nodiscard]] std::vector<std::string> command(const std::string& verb, const std::vector<std::string>& more) const;
  [[nodiscard]] Finished install(const std::vector<std::string>& more = {}) const;
  [[nodiscard]] Finished uninstall(const std::vector<std::string>& more = {}) const;
  /// Runs the verb as somebody to whom modes apply while the folder of configurations may not be written.
  [[nodiscard]] Finished on_read_only_folder(const std::string& verb) const;
  /// `install --watch` with a ready file.
  [[nodiscard]] Process watch(const std::vector<std::string>& more = {}) const;
  /// The same, and waits until the entry is in place.
  [[nodiscard]] Process watch_in_place(const std::vector<std::string>& more = {}) const;

  ScratchDir dir_;
};

/// The binary under test.
[[nodiscard]] std::string installer_path();

/// What stat(2) says of a file that nobody touched.
struct Untouched {
  explicit Untouched(const std::string& path);
  unsigned long inode = 0;
  long seconds = 0, nanoseconds = 0;
  std::string text;
  bool operator==(const Untouched&) const = default;
};

inline constexpr milliseconds kSoon{5000};

}  // namespace weft::test
