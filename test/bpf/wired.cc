// SPDX-License-Identifier: Apache-2.0
#include "test/bpf/wired.h"

#include <linux/tcp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include "tunnel/base/sys.h"

namespace weft::test {
namespace {

constexpr milliseconds kPatience{5000};

template <class T>
T must(Result<T> result) {
  if (!result) throw TestError(result.error().message());
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

bool ready(int fd, short events, milliseconds deadline) {
  pollfd wanted{fd, events, 0};
  return ::poll(&wanted, 1, static_cast<int>(deadline.count())) > 0;
}

IpAddress address(const std::string& text) { return must(IpAddress::parse(text)); }

}  // namespace

void must_run_in(const Netns& netns, const std::vector<std::string>& arguments) {
  SpawnOptions options;
  options.netns = &netns;
  must_run(arguments, options);
}

Fd socket_in(const Netns& netns, const IpAddress& like) {
  return run_in(netns, [&] { return must(sys::socket(like.is_v4() ? AF_INET : AF_INET6, SOCK_STREAM)); });
}

std::optional<int> connect_error(int fd, const Endpoint& to, milliseconds deadline) {
  auto connected = sys::connect(fd, to.to_sockaddr());
  if (!connected) return connected.error().errno_value;
  if (*connected) return std::nullopt;
  if (!ready(fd, POLLOUT, deadline)) return ETIMEDOUT;
  const int error = sys::take_error(fd);
  return error == 0 ? std::nullopt : std::optional<int>(error);
}

void must_connect(int fd, const Endpoint& to) {
  if (const auto error = connect_error(fd, to))
    throw TestError("connect " + to.to_string() + ": errno " + std::to_string(*error));
}

Fd must_accept(int listener) {
  if (!ready(listener, POLLIN, kPatience)) throw TestError("nobody connected");
  auto accepted = must(sys::accept(listener));
  if (!accepted) throw TestError("who connected is gone");
  return std::move(accepted->fd);
}

bool nobody_waits(int listener) { return !ready(listener, POLLIN, milliseconds(0)); }

void must_send(int fd, const std::string& text) {
  const auto sent = must(sys::send(fd, std::as_bytes(std::span(text))));
  if (!sent || *sent != text.size()) throw TestError("the send buffer is full");
}

std::string must_receive(int fd, std::size_t size) {
  std::string text;
  while (text.size() < size) {
    if (!ready(fd, POLLIN, kPatience)) throw TestError("nothing arrived behind '" + text + "'");
    std::string part(size - text.size(), '\0');
    const auto got = must(sys::recv(fd, std::as_writable_bytes(std::span(part))));
    if (!got) continue;
    if (*got == 0) break;
    text += part.substr(0, *got);
  }
  return text;
}

void expect_talk(int a, int b) {
  must_send(a, "question");
  EXPECT_EQ(must_receive(b, 8), "question");
  must_send(b, "answer");
  EXPECT_EQ(must_receive(a, 6), "answer");
}

void vanish(Fd& fd) {
  must(sys::set_option(fd.get(), IPPROTO_TCP, TCP_REPAIR, 1));
  fd.reset();
}

int wait_for_error(int fd) {
  if (!ready(fd, 0, kPatience)) throw TestError("the socket has no error");
  return sys::take_error(fd);
}

std::string wired_name(const ::testing::TestParamInfo<std::tuple<int, bool>>& info) {
  return std::string(family(std::get<0>(info.param)).name) + (std::get<1>(info.param) ? "Clsact" : "Tcx");
}

bpf::Settings WiredTest::settings() const {
  auto s = CaptureTest::settings();
  s.max_pods = 4;
  return s;
}

WiredPod WiredTest::wire(const std::string& name, int number) {
  WiredPod pod;
  pod.netns = std::make_unique<Netns>(name);
  const std::string host_side = "veth" + name;
  connect_veth(*netns_, host_side, *pod.netns, "eth0");
  const std::string n = std::to_string(number);
  const auto net = [&](const std::string& host) { return (v4() ? "10.1." + n + "." : "fd01:" + n + "::") + host; };
  pod.address = address(net("2"));
  pod.gateway = address(net("1"));
  const std::string v = v4() ? "-4 " : "-6 ", bits = v4() ? "/24" : "/64 nodad";
  netns_->ip(v + "addr add " + net("1") + bits + " dev " + host_side);
  pod.netns->ip(v + "addr add " + net("2") + bits + " dev eth0");
  pod.netns->ip(v + "route add default via " + net("1"));
  pod.netns->ip(v + "rule add pref 1 fwmark 0x1000/0x1000 lookup 15008");
  pod.netns->ip(v + "route add local default dev lo table 15008");
  pod.netns->sysctl("net/ipv4/conf/lo/accept_local", "1");
  pod.target = {.root = root_,
                .attachment = bpf::attachment_id("c" + n, "eth0"),
                .pod_netns = pod.netns->fd(),
                .ifindex = run_in(*pod.netns, [] { return ::if_nametoindex("eth0"); }),
                .host_ifindex = ::if_nametoindex(host_side.c_str()),
                .as_filters = std::get<1>(GetParam())};
  must(bpf::attach(pod.target));
  return pod;
}

void WiredTest::set_pod(const WiredPod& pod, std::uint32_t slot, bool enrolled, bpf::InboundPlaintext inbound) {
  must(capture_->set_pod({.slot = slot,
                          .addresses = {pod.address},
                          .host_ifindex = pod.target.host_ifindex,
                          .enrolled = enrolled,
                          .inbound = inbound}));
}

void WiredTest::SetUp() {
  CaptureTest::SetUp();
  if (IsSkipped()) return;
  netns_->sysctl("net/ipv4/ip_forward", "1");
  netns_->sysctl("net/ipv6/conf/all/forwarding", "1");
  a_ = wire("a", 1);
  b_ = wire("b", 2);
  set_pod(a_, 0, true);
  set_pod(b_, 1, false);
  must(capture_->set_destinations({{&f().mesh, 1}, {&f().range, 1}}));
  outbound_ = agent_listener(bpf::Listener::kOutbound);
  hbone_ = agent_listener(bpf::Listener::kInboundHbone);
  plaintext_ = agent_listener(bpf::Listener::kInboundPlaintext);
}

Fd WiredTest::serve(const Netns& netns, std::uint16_t port) {
  const IpAddress any = address(v4() ? "0.0.0.0" : "::");
  Fd fd = socket_in(netns, any);
  must(sys::bind(fd.get(), Endpoint{any, port}.to_sockaddr()));
  must(sys::listen(fd.get(), 8));
  return fd;
}

Fd WiredTest::agent_listener(bpf::Listener kind) {
  Fd fd = socket_in(*a_.netns, address("::1"));
  must(sys::set_option(fd.get(), SOL_IPV6, IPV6_V6ONLY, 0));
  must(sys::set_option(fd.get(), SOL_IPV6, IPV6_TRANSPARENT, 1));
  must(sys::bind(fd.get(), Endpoint{address("::1"), 0}.to_sockaddr()));
  must(sys::listen(fd.get(), 64));
  must(capture_->set_listener(0, kind, 0, fd.get()));
  return fd;
}

std::pair<Fd, Fd> WiredTest::captured() {
  Fd app = socket_in(*a_.netns, a_.address);
  must_connect(app.get(), {f().mesh, 80});
  return {std::move(app), must_accept(outbound_.get())};
}

}  // namespace weft::test
