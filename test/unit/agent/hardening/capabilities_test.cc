// SPDX-License-Identifier: Apache-2.0
#include "agent/hardening/capabilities.h"

#include <gmock/gmock.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <map>
#include <set>
#include <sstream>

#include "agent/hardening/hardening.h"
#include "test/unit/agent/hardening/forked.h"

namespace weft::agent::hardening {
namespace {

using test::in_child;
using ::testing::HasSubstr;

std::set<unsigned> numbers() {
  std::set<unsigned> all;
  for (const auto& capability : capabilities()) all.insert(capability.number);
  return all;
}

std::string refusal(const std::set<unsigned>& had, bool memlock_counts = false) {
  const auto checked = check_capabilities([&](unsigned number) { return had.contains(number); }, memlock_counts);
  return checked ? "" : checked.error().message();
}

std::string text_of(const std::string& path) {
  std::ifstream file(std::string(WEFT_SOURCE) + "/" + path);
  EXPECT_TRUE(file) << path;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(Capabilities, EachThatIsMissingIsNamedWithItsPurpose) {
  EXPECT_EQ(refusal(numbers(), true), "");
  for (const auto& capability : capabilities()) {
    auto had = numbers();
    had.erase(capability.number);
    const std::string said = refusal(had, true);
    EXPECT_THAT(said, HasSubstr(std::string(capability.name) + " is missing, it is needed to " + capability.purpose));
    EXPECT_THAT(said, HasSubstr("capabilities: " + std::string(capability.name).substr(4) + ")"));
    for (const auto& other : capabilities()) {
      EXPECT_EQ(said.find(other.name) != std::string::npos, other.number == capability.number) << other.name;
    }
  }
}

TEST(Capabilities, AllThatAreMissingAreNamedAtOnce) {
  const std::string said = refusal({}, true);
  for (const auto& capability : capabilities()) EXPECT_THAT(said, HasSubstr(capability.name));
  EXPECT_THAT(said, HasSubstr("SYS_ADMIN, NET_ADMIN, NET_BIND_SERVICE, IPC_LOCK, SYS_RESOURCE)"));
}

TEST(Capabilities, TheOneForOldKernelsIsAskedForThereAlone) {
  for (const auto& capability : capabilities()) {
    auto had = numbers();
    had.erase(capability.number);
    EXPECT_EQ(refusal(had, false).empty(), capability.use == Use::kStartMemlock) << capability.name;
  }
}

/// The documentation has the list row by row, so that neither can change alone.
TEST(Capabilities, AreDocumentedAsTheyAre) {
  const std::string security = text_of("docs/security.md");
  const std::string manifests = text_of("manifests/README.md");
  const std::map<Use, std::string> kept{
      {Use::kRun, "always"},
      {Use::kStart, "at its start"},
      {Use::kStartMemlock, "at its start, before Linux 5.11 where locked memory is limited"}};
  std::size_t rows = 0;
  for (std::size_t at = 0; (at = security.find("\n| `CAP_", at)) != std::string::npos; ++at) {
    // Other tables begin with one that is qualified.
    if (security.compare(security.find('`', at + 4), 4, "` | ") == 0) ++rows;
  }
  EXPECT_EQ(rows, capabilities().size());
  for (const auto& capability : capabilities()) {
    const std::string row = "\n| `" + std::string(capability.name) + "` | " + kept.at(capability.use) + " | to " +
                            capability.purpose + " |\n";
    EXPECT_NE(security.find(row), std::string::npos) << "docs/security.md has no row" << row;
    const std::string item = "- " + std::string(capability.name).substr(4) + "\n";
    EXPECT_NE(manifests.find(item), std::string::npos) << "manifests/README.md has no item " << item;
  }
}

TEST(Hardening, StartsAsRootOnly) {
  const auto ended = in_child([] {
    if (::geteuid() == 0 && ::setresuid(65534, 65534, 65534) != 0) return 2;
    const auto done = harden(
        {.seccomp = SeccompMode::kEnforce, .run_dir = "/x", .bpf_root = "/x", .socket = "/x/y", .local_config = ""});
    if (!done) std::fputs(done.error().message().c_str(), stderr);
    return done ? 0 : 1;
  });
  EXPECT_EQ(ended.status, 1);
  EXPECT_THAT(ended.text, HasSubstr("weft-agent runs as root"));
  EXPECT_THAT(ended.text, HasSubstr("start as uid "));
}

}  // namespace
}  // namespace weft::agent::hardening
