// SPDX-License-Identifier: Apache-2.0
#include "test/conformance/fixture.h"

#include <bpf/bpf.h>
#include <net/if.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <sstream>

#include "bpf/attach.h"
#include "bpf/hook.h"

namespace weft::test {
namespace {

constexpr auto kTcxIngress = static_cast<bpf_attach_type>(46);
constexpr auto kTcxEgress = static_cast<bpf_attach_type>(47);

/// The kernel adds routes of its own for IPv6 addresses some time after those appear.
std::string without_lines(const std::string& text, const std::string& with) {
  std::istringstream lines(text);
  std::string kept;
  for (std::string line; std::getline(lines, line);) {
    if (line.find(with) == std::string::npos) kept += line + "\n";
  }
  return kept;
}

int lines_of(const std::string& text, const std::string& with) {
  int lines = 0;
  for (auto at = text.find(with); at != std::string::npos; at = text.find(with, at + 1)) ++lines;
  return lines;
}

}  // namespace

std::string plugin_path() {
  const char* other = std::getenv("WEFT_CNI");
  return other != nullptr ? other : WEFT_CNI_BINARY;
}

bool is_weft_cni() { return std::filesystem::path(plugin_path()).filename() == "weft-cni"; }

Finished call_plugin(const Invocation& invocation) {
  SpawnOptions options;
  options.netns = invocation.netns;
  options.input = invocation.input;
  for (const auto& [name, value] : invocation.variables) options.environment.push_back(name + "=" + value);
  return run({plugin_path()}, options);
}

Json expect_error(const Finished& finished, const ExpectedCode& code, const std::string& in_text) {
  EXPECT_NE(finished.status, 0) << finished.out;
  EXPECT_LT(finished.status, 128) << "killed by a signal";
  Json document = Json::parse(finished.out, nullptr, false);
  EXPECT_TRUE(document.is_object()) << "stdout is no JSON object: " << finished.out;
  if (!document.is_object()) return document;
  if (!is_weft_cni()) {
    std::vector<int> codes = code.others;
    codes.push_back(code.ours);
    EXPECT_THAT(codes, testing::Contains(document.value("code", -1))) << finished.out;
    EXPECT_NE(cni::text_member(document, "msg"), "") << finished.out;
    return document;
  }
  EXPECT_EQ(document.size(), 4U) << finished.out;
  EXPECT_TRUE(document.contains("cniVersion") && document["cniVersion"].is_string()) << finished.out;
  EXPECT_TRUE(document.contains("details") && document["details"].is_string()) << finished.out;
  EXPECT_EQ(document.value("code", -1), code.ours) << finished.out;
  EXPECT_THAT(cni::text_member(document, "msg"), testing::HasSubstr(in_text));
  return document;
}

void expect_silent_success(const Finished& finished) {
  EXPECT_EQ(finished.status, 0) << finished.out << finished.err;
  EXPECT_EQ(finished.out, "");
}

void expect_result(const Finished& finished, const Json& result) {
  ASSERT_EQ(finished.status, 0) << finished.out << finished.err;
  if (is_weft_cni()) {
    EXPECT_EQ(finished.out, cni::to_text(result) + "\n");
    return;
  }
  // Reference plugins sort the members of an object anew and leave empty ones out.
  auto expected = nlohmann::json::parse(cni::to_text(result));
  auto given = nlohmann::json::parse(finished.out, nullptr, false);
  for (auto* document : {&expected, &given}) {
    if (document->is_object() && document->contains("dns") && document->at("dns").empty()) document->erase("dns");
  }
  EXPECT_EQ(given, expected);
}

Json base_conf(const std::string& version) {
  return {{"cniVersion", version}, {"name", "pods"}, {"type", "weft-cni"}, {"agentSocket", "/nonexistent/agent.sock"}};
}

Json ptp_result(const std::string& version, const std::string& sandbox, const std::vector<std::string>& addresses) {
  Json result = {{"cniVersion", version},
                 {"interfaces", Json::array({{{"name", "weftt0"}, {"mac", "02:00:00:00:00:01"}},
                                             {{"name", "eth0"}, {"mac", "02:00:00:00:00:02"}, {"sandbox", sandbox}}})},
                 {"ips", Json::array()},
                 {"routes", Json::array({{{"dst", "0.0.0.0/0"}}})},
                 {"dns", Json::object()}};
  for (const auto& address : addresses) {
    Json entry = {{"interface", 1}, {"address", address}};
    if (version < "1") entry["version"] = address.find(':') == std::string::npos ? "4" : "6";
    result["ips"].push_back(entry);
  }
  return result;
}

void PodTest::SetUp() {
  WEFT_NEEDS_ROOT();
  dir_ = std::make_unique<ScratchDir>();
  bpffs_ = dir_->mount_bpffs();
  host_ = std::make_unique<Netns>("host");
  pod_ = std::make_unique<Netns>("pod");
  connect_veth(*host_, kHostSide, *pod_, "eth0");
  pod_->ip("addr add 10.77.0.2/24 dev eth0");
  pod_->ip("addr add fd77::2/64 dev eth0 nodad");
  start_agent();
}

void PodTest::TearDown() {
  agent_.reset();
  capture_.reset();
}

void PodTest::start_agent() { agent_ = std::make_unique<FakeAgent>(dir_->path() + "/agent.sock"); }

void PodTest::load_programs() {
  constexpr int kNext = -1;  // TC_ACT_UNSPEC
  bpf_insn instructions[2] = {};
  instructions[0].code = BPF_ALU64 | BPF_MOV | BPF_K;
  instructions[0].imm = kNext;
  instructions[1].code = BPF_JMP | BPF_EXIT;
  for (const char* folder : {"", "/programs", "/links"}) std::filesystem::create_directory(bpf_root() + folder);
  for (const auto& hook : bpf::kHooks) {
    const Fd program(bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, hook.name, "GPL", instructions, 2, nullptr));
    ASSERT_TRUE(program) << "load a program: " << std::strerror(errno);
    ASSERT_EQ(bpf_obj_pin(program.get(), (bpf_root() + "/programs/" + hook.name).c_str()), 0) << std::strerror(errno);
  }
}

void PodTest::load_real_programs() {
  auto capture = bpf::Capture::load({.root = bpf_root(), .max_pods = 8, .max_destinations = 8, .workers = 1});
  ASSERT_TRUE(capture) << capture.error().message();
  capture_ = std::move(*capture);
}

Json PodTest::conf(const std::string& version) const {
  Json out = base_conf(version);
  out["agentSocket"] = dir_->path() + "/agent.sock";
  out["bpfRoot"] = bpf_root();
  return out;
}

Json PodTest::conf_with_result(const std::string& version) const {
  Json out = conf(version);
  out["prevResult"] = ptp_result(version, pod_->path(), {"10.77.0.2/24", "fd77::2/64"});
  return out;
}

Invocation PodTest::invocation(const std::string& command, const Json& conf) const {
  return {{{"CNI_COMMAND", command},
           {"CNI_CONTAINERID", kContainer},
           {"CNI_NETNS", pod_->path()},
           {"CNI_IFNAME", "eth0"},
           {"CNI_PATH", "/usr/lib/cni"},
           {"CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=7b"}},
          cni::to_text(conf),
          host_.get()};
}

void PodTest::must_add() const {
  const Finished finished = call("ADD", conf_with_result());
  ASSERT_EQ(finished.status, 0) << finished.out << finished.err;
}

std::string PodTest::state() const {
  std::string text =
      pod_->ip("rule show") + pod_->ip("-6 rule show") +
      without_lines(pod_->ip("route show table all") + pod_->ip("-6 route show table all"), "proto kernel");
  text += run_in(*pod_, [] { return read_file("/proc/sys/net/ipv4/conf/lo/accept_local"); });
  text += "programs: " + std::to_string(all_programs()) + "\n";
  for (const auto& name : attachments()) text += "attachment: " + name + "\n";
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(bpf_root() + "/records", ignored)) {
    text += "record: " + entry.path().filename().string() + "\n";
  }
  for (const auto& [registered, inode] : agent_ ? agent_->registrations() : decltype(agent_->registrations())()) {
    text += "registration: " + registered.container_id + "\n";
  }
  return text;
}

int PodTest::programs_on(const Netns& netns, const std::string& interface) const {
  int programs = run_in(netns, [&] {
    const auto ifindex = static_cast<int>(::if_nametoindex(interface.c_str()));
    std::uint32_t total = 0;
    for (const auto hook : {kTcxIngress, kTcxEgress}) {
      std::uint32_t ids[64];
      std::uint32_t count = 64;
      if (bpf_prog_query(ifindex, hook, 0, nullptr, ids, &count) == 0) total += count;
    }
    return static_cast<int>(total);
  });
  for (const char* direction : {"ingress", "egress"}) {
    const auto filters =
        run({"tc", "filter", "show", "dev", interface, direction}, {.netns = &netns, .environment = {}, .input = {}});
    programs += lines_of(filters.out, " bpf ") > 0 ? lines_of(filters.out, "direct-action") : 0;
  }
  return programs;
}

int PodTest::all_programs() const {
  return programs_on(*pod_, "eth0") + programs_on(*pod_, "lo") + programs_on(*host_, kHostSide);
}

std::vector<std::string> PodTest::attachments() const {
  auto names = bpf::attachments(bpf_root());
  return names ? *names : std::vector<std::string>();
}

}  // namespace weft::test
