// SPDX-License-Identifier: Apache-2.0
/// What the capture programs cost a packet: nanoseconds by BPF_PROG_TEST_RUN, the median of the rounds. Needs root.

#include <bpf/bpf.h>
#include <net/if.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "test/bpf/fixture.h"

namespace weft::test {
namespace {

constexpr int kRepeat = 100'000;
constexpr int kSingleRuns = 2'000;

struct Case {
  const char* name;
  std::string program;
  Frame frame;
  Context context;
  /// The program changes the packet's mark, so that a second run on it would go another way. Runs one by one include
  /// the reading of the clock.
  bool once = false;
  std::vector<double> ns = {};
};

/// A pod whose DNS is captured.
const IpAddress kAsking = IpAddress::parse("10.0.0.77").value();

class PacketBench {
 public:
  PacketBench() : netns_("bench") {
    enter(netns_);
    root_ = folder_.mount_bpffs() + "/weft";
    auto loaded = bpf::Capture::load({.root = root_, .max_pods = 512, .max_destinations = 65'536});
    if (!loaded) throw TestError(loaded.error().message());
    capture_ = std::move(*loaded);
    netns_.ip("link add veth0 type veth peer name veth1");
    const Family& f = family(4);
    const std::uint32_t host = ::if_nametoindex("veth0"), other = ::if_nametoindex("veth1");
    const bool ready = capture_->set_capture_all(false) &&
                       capture_->set_pod({.slot = 0, .addresses = {f.pod}, .host_ifindex = host, .enrolled = true}) &&
                       capture_->set_pod({.slot = 1, .addresses = {f.other_pod}, .host_ifindex = other}) &&
                       capture_->set_pod({.slot = 2, .addresses = {kAsking}, .enrolled = true, .dns = true}) &&
                       capture_->set_destinations({{&f.mesh, 1}, {}});
    if (!ready) throw TestError("the maps cannot be written");
    pair_ = connect_on_lo(netns_, f.pod, f.mesh);
    add_cases(f, host);
  }

  void run(int rounds) {
    for (int i = 0; i < rounds; ++i) {
      for (Case& c : cases_) c.ns.push_back(measure(c));
    }
    for (Case& c : cases_) {
      std::ranges::sort(c.ns);
      std::printf("%-12s %-52s %7.1f ns\n", c.program.c_str(), c.name, c.ns[c.ns.size() / 2]);
    }
  }

 private:
  void add_cases(const Family& f, std::uint32_t host) {
    const Frame out{.source = f.pod, .destination = f.outside, .flags = kAck, .payload = 1000};
    Frame plain = out, udp = out, syn = out, captured = out, in = out;
    plain.source = f.other_pod;
    udp.protocol = 17;
    syn.flags = kSyn;
    captured.destination = f.mesh;
    captured.source_port = pair_.client_end.port;
    captured.destination_port = pair_.server_end.port;
    in.source = f.mesh;
    in.destination = f.pod;
    in.source_port = pair_.server_end.port;
    in.destination_port = pair_.client_end.port;
    Frame udp_in = in;
    udp_in.protocol = 17;
    Frame dns = udp, question = udp;
    dns.destination_port = 53;
    question = dns;
    question.source = kAsking;
    cases_ = {{"UDP out of a mesh pod", "from_pod", udp, {}},
              {"DNS out of a mesh pod, not captured", "from_pod", dns, {}},
              {"DNS out of a mesh pod, captured", "from_pod", question, {}},
              {"TCP out of a pod that is not enrolled", "from_pod", plain, {}},
              {"TCP out of a mesh pod, not captured", "from_pod", out, {}},
              {"a new connection to outside the mesh", "from_pod", syn, {}},
              {"TCP out of a mesh pod, captured (one by one)", "from_pod", captured, {}, true},
              {"captured, on its way to the agent", "deliver", captured, {.ifindex = 0, .mark = 0x1000}},
              {"UDP into a mesh pod", "to_pod", udp_in, {}},
              {"TCP of a connection into a mesh pod", "to_pod", in, {}},
              {"UDP out of a mesh pod", "guard", udp, {.ifindex = host, .mark = 0}},
              {"TCP out of a mesh pod", "guard", out, {.ifindex = host, .mark = 0}}};
  }

  [[nodiscard]] double measure(const Case& c) const {
    if (!c.once) return run_once(c, kRepeat);
    std::vector<double> all;
    for (int i = 0; i < kSingleRuns; ++i) all.push_back(run_once(c, 1));
    std::ranges::sort(all);
    return all[all.size() / 2];
  }

  [[nodiscard]] double run_once(const Case& c, int repeat) const {
    const Fd fd(bpf_obj_get((root_ + "/programs/" + c.program).c_str()));
    auto bytes = c.frame.bytes();
    __sk_buff context{};
    context.ifindex = c.context.ifindex;
    context.mark = c.context.mark;
    bpf_test_run_opts options{};
    options.sz = sizeof options;
    options.data_in = bytes.data();
    options.data_size_in = static_cast<std::uint32_t>(bytes.size());
    options.ctx_in = &context;
    options.ctx_size_in = sizeof context;
    options.repeat = repeat;
    if (bpf_prog_test_run_opts(fd.get(), &options) != 0) throw TestError("run " + c.program);
    return options.duration;
  }

  ScratchDir folder_;
  Netns netns_;
  std::string root_;
  std::unique_ptr<bpf::Capture> capture_;
  Pair pair_;
  std::vector<Case> cases_;
};

}  // namespace
}  // namespace weft::test

int main(int argc, char** argv) {
  if (!weft::test::is_root()) {
    std::puts("skipped: needs root: makes network namespaces");
    return 0;
  }
  try {
    weft::test::PacketBench().run(argc > 1 ? std::max(std::atoi(argv[1]), 1) : 21);
    return 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "bench_packet: %s\n", e.what());
    return 2;
  }
}
