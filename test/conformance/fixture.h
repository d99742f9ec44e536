// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bpf/loader.h"
#include "cni-plugin/json.h"
#include "test/conformance/fake_agent.h"
#include "test/support/netns.h"
#include "test/support/process.h"

/// The black-box suite of the plugin: nothing but its variables, stdin, stdout, exit status, and what it leaves in the
/// kernel. Another binary can be tested with WEFT_CNI=PATH. Tests carry the number of the line of the CNI contract that
/// they hold (test/conformance/README.md).
namespace weft::test {

using cni::Json;

/// One call of the plugin. Variables that are not there are not set.
struct Invocation {
  std::map<std::string, std::string> variables;
  std::string input;
  const Netns* netns = nullptr;  ///< where the runtime runs
};
Finished call_plugin(const Invocation& invocation);
/// The binary under test.
[[nodiscard]] std::string plugin_path();
/// False when WEFT_CNI names another plugin, which calibrates the suite: what the contract asks of every chained plugin
/// must hold for it too. What is Weft's own begins with `WEFT_OWN();`.
[[nodiscard]] bool is_weft_cni();
#define WEFT_OWN() \
  if (!::weft::test::is_weft_cni()) GTEST_SKIP() << "not of the contract of every plugin: Weft's own"

/// The code of an error: Weft's, and which other plugins may give instead, where the contract leaves a choice.
struct ExpectedCode {
  ExpectedCode(int code) : ours(code) {}  // NOLINT(google-explicit-constructor): a code alone is the usual case
  ExpectedCode(int code, std::vector<int> instead) : ours(code), others(std::move(instead)) {}
  int ours;
  std::vector<int> others;
};
/// Expects a failure: not 0, and one JSON document with the code on stdout. Of Weft also all four members and `in_text`
/// in the message; reference plugins leave cniVersion and empty details out. Gives the document.
Json expect_error(const Finished& finished, const ExpectedCode& code, const std::string& in_text = {});
/// Expects exit status 0 and this result: of Weft to the letter, of others what it says.
void expect_result(const Finished& finished, const Json& result);
/// Expects exit status 0 and nothing on stdout.
void expect_silent_success(const Finished& finished);

/// The network configuration `weft-cni` gets, without prevResult.
Json base_conf(const std::string& version = "1.1.0");
/// prevResult as ptp writes it, for one address.
Json ptp_result(const std::string& version, const std::string& sandbox, const std::vector<std::string>& addresses);

/// A host and a pod with a veth between them, as an earlier plugin of the chain leaves them, an agent, and on demand
/// the capture programs in a bpffs of the test's own.
class PodTest : public testing::Test {
 protected:
  static constexpr const char* kContainer = "c0ffee.1";
  static constexpr const char* kHostSide = "weftt0";

  void SetUp() override;
  void TearDown() override;

  void start_agent();
  void stop_agent() { agent_.reset(); }
  /// Pins programs where an agent has pinned its own before any pod comes. They let everything pass: the plugin only
  /// attaches, and the kernel takes much longer to verify the real ones than a test runs.
  void load_programs();
  /// The real ones.
  void load_real_programs();

  [[nodiscard]] Json conf(const std::string& version = "1.1.0") const;
  [[nodiscard]] Json conf_with_result(const std::string& version = "1.1.0") const;
  [[nodiscard]] Invocation invocation(const std::string& command, const Json& conf) const;
  [[nodiscard]] Finished call(const std::string& command, const Json& conf) const {
    return call_plugin(invocation(command, conf));
  }
  /// ADD that must succeed.
  void must_add() const;

  /// Everything that ADD may change in the pod and on the host, for comparing before and after.
  [[nodiscard]] std::string state() const;
  [[nodiscard]] int programs_on(const Netns& netns, const std::string& interface) const;
  [[nodiscard]] int all_programs() const;
  /// The programs of a wired pod; another plugin has none.
  void expect_programs(int count) const { EXPECT_EQ(all_programs(), is_weft_cni() ? count : 0); }
  [[nodiscard]] std::vector<std::string> attachments() const;
  [[nodiscard]] cni::AttachmentKey key() const { return {kContainer, "eth0"}; }
  [[nodiscard]] std::string bpf_root() const { return bpffs_ + "/weft"; }

  std::unique_ptr<ScratchDir> dir_;
  std::unique_ptr<Netns> host_, pod_;
  std::unique_ptr<FakeAgent> agent_;
  std::unique_ptr<bpf::Capture> capture_;
  std::string bpffs_;
};

}  // namespace weft::test
