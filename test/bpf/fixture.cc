// SPDX-License-Identifier: Apache-2.0
#include "test/bpf/fixture.h"

#include <bpf/bpf.h>
#include <net/if.h>
#include <sys/socket.h>

#include <map>

#include "tunnel/base/sys.h"

namespace weft::test {
namespace {

template <class T>
T must(Result<T> result) {
  if (!result) throw TestError(result.error().message());
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

IpAddress address(const char* text) { return must(IpAddress::parse(text)); }

}  // namespace

const Family& family(int version) {
  static const Family v4{"IPv4",
                         address("10.1.0.2"),
                         address("10.1.0.3"),
                         address("10.2.0.9"),
                         address("10.3.7.7"),
                         address("198.51.100.1"),
                         address("169.254.9.9"),
                         must(Cidr::parse("10.3.0.0/16"))};
  static const Family v6{"IPv6",
                         address("fd01::2"),
                         address("fd01::3"),
                         address("fd02::9"),
                         address("fd03:7::7"),
                         address("2001:db8::1"),
                         address("fe80::9"),
                         must(Cidr::parse("fd03::/16"))};
  return version == 4 ? v4 : v6;
}

std::string family_name(const ::testing::TestParamInfo<int>& info) { return family(info.param).name; }

bpf::Settings CaptureTest::settings() const { return {.root = root_, .max_pods = 8, .max_destinations = 16}; }

void CaptureTest::SetUp() {
  WEFT_NEEDS_ROOT();
  folder_ = std::make_unique<ScratchDir>();
  netns_ = std::make_unique<Netns>("bpf");
  enter(*netns_);
  root_ = folder_->mount_bpffs() + "/weft";
  capture_ = must(bpf::Capture::load(settings()));
  must(capture_->set_capture_all(false));
}

void CaptureTest::TearDown() { capture_.reset(); }

Outcome CaptureTest::run(const std::string& program, const Frame& frame, const Context& context) const {
  const Fd fd(bpf_obj_get((root_ + "/programs/" + program).c_str()));
  if (!fd) throw TestError("no pinned program " + program);
  auto bytes = frame.bytes();
  std::vector<std::uint8_t> out(bytes.size() + 64);
  __sk_buff in_context{}, out_context{};
  in_context.ifindex = context.ifindex;
  in_context.mark = context.mark;
  in_context.ingress_ifindex = context.ingress_ifindex;
  bpf_test_run_opts options{};
  options.sz = sizeof options;
  options.data_in = bytes.data();
  options.data_size_in = static_cast<std::uint32_t>(bytes.size());
  options.data_out = out.data();
  options.data_size_out = static_cast<std::uint32_t>(out.size());
  options.ctx_in = &in_context;
  options.ctx_size_in = sizeof in_context;
  options.ctx_out = &out_context;
  options.ctx_size_out = sizeof out_context;
  options.repeat = 1;
  if (const int error = bpf_prog_test_run_opts(fd.get(), &options); error != 0) {
    throw TestError("run " + program + " on a frame: " + std::to_string(error));
  }
  return {static_cast<int>(options.retval), out_context.mark};
}

std::string CaptureTest::verdict(const std::string& program, const Frame& frame, const Context& context) const {
  const auto before = must(capture_->counters());
  const Outcome ran = run(program, frame, context);
  const auto after = must(capture_->counters());
  std::string found;
  for (std::size_t i = 0; i < after.size(); ++i) {
    const std::uint64_t more = after[i].packets - before[i].packets;
    if (more == 0) continue;
    if (after[i].program != program || more != 1 || !found.empty()) {
      ADD_FAILURE() << "counted " << more << " more of " << after[i].program << ": " << after[i].reason;
    }
    found = std::string(after[i].verdict) + ": " + std::string(after[i].reason);
    // "assigned" goes on to the stack; only from_pod redirects.
    const int fits = after[i].verdict == "drop"                               ? kDrop
                     : after[i].verdict == "capture" && program == "from_pod" ? kRedirect
                                                                              : kNext;
    EXPECT_EQ(ran.action, fits) << found;
    EXPECT_EQ(ran.mark, fits == kRedirect ? 0x1000U : context.mark) << found;
  }
  if (found.empty()) {
    EXPECT_EQ(ran.action, kNext);
    return "uncounted";
  }
  return found;
}

Fd CaptureTest::map(const std::string& name) const {
  Fd fd(bpf_obj_get((root_ + "/maps/" + name).c_str()));
  if (!fd) throw TestError("no pinned map " + name);
  return fd;
}

std::uint64_t CaptureTest::counter(const std::string& program, const std::string& reason) const {
  for (const bpf::Counter& c : must(capture_->counters())) {
    if (c.program == program && c.reason == reason) return c.packets;
  }
  throw TestError("no counter " + program + ": " + reason);
}

void FamilyTest::SetUp() {
  CaptureTest::SetUp();
  if (IsSkipped()) return;
  netns_->ip("link add veth0 type veth peer name veth1");
  host_ifindex_ = ::if_nametoindex("veth0");
  other_ifindex_ = ::if_nametoindex("veth1");
  pod_ = {.slot = 0, .addresses = {f().pod}, .host_ifindex = host_ifindex_, .enrolled = true};
  must(capture_->set_pod(pod_));
  must(capture_->set_pod({.slot = 1, .addresses = {f().other_pod}, .host_ifindex = other_ifindex_}));
  must(capture_->set_destinations({{&f().mesh, 1}, {&f().range, 1}}));
}

void FamilyTest::set_inbound(bpf::InboundPlaintext inbound) {
  pod_.inbound = inbound;
  must(capture_->set_pod(pod_));
}

void FamilyTest::listen(bpf::Listener kind, std::uint32_t worker) {
  Fd fd = must(sys::socket(AF_INET6, SOCK_STREAM));
  must(sys::bind(fd.get(), Endpoint{address("::1"), 0}.to_sockaddr()));
  must(sys::listen(fd.get(), 8));
  must(capture_->set_listener(0, kind, worker, fd.get()));
  listeners_.push_back(std::move(fd));
}

Pair connect_on_lo(const Netns& netns, const IpAddress& client, const IpAddress& server) {
  for (const IpAddress& a : {client, server}) {
    netns.ip("addr replace " + a.to_string() + (a.is_v4() ? "/32" : "/128") + " dev lo" + (a.is_v6() ? " nodad" : ""));
  }
  // A work queue of the kernel makes an IPv6 address local, some time after the command.
  const auto is_local = [&](const IpAddress& a) {
    return a.is_v4() || netns.ip("-6 route show table local").find("local " + a.to_string() + " ") != std::string::npos;
  };
  if (!eventually(milliseconds(10'000), [&] { return is_local(client) && is_local(server); })) {
    throw TestError("the addresses on lo do not become local");
  }
  const int af = client.is_v4() ? AF_INET : AF_INET6;
  Pair pair;
  pair.listener = must(sys::socket(af, SOCK_STREAM));
  must(sys::bind(pair.listener.get(), Endpoint{server, 0}.to_sockaddr()));
  must(sys::listen(pair.listener.get(), 1));
  pair.server_end = must(sys::local_endpoint(pair.listener.get()));
  pair.client = must(sys::socket(af, SOCK_STREAM));
  must(sys::bind(pair.client.get(), Endpoint{client, 0}.to_sockaddr()));
  must(sys::connect(pair.client.get(), pair.server_end.to_sockaddr()));
  pair.client_end = must(sys::local_endpoint(pair.client.get()));
  const bool accepted = eventually(milliseconds(10'000), [&] {
    auto got = must(sys::accept(pair.listener.get()));
    if (got) pair.server = std::move(got->fd);
    return got.has_value();
  });
  if (!accepted) throw TestError("no connection on lo");
  return pair;
}

}  // namespace weft::test
