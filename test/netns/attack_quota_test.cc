// SPDX-License-Identifier: Apache-2.0
/// A pod opens connections until it gets no more.

#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>

#include "test/netns/attack_fixture.h"
#include "test/netns/mesh_fixture.h"

namespace weft::test {
namespace {

constexpr milliseconds kDeadline{20'000};

/// Connections that nobody says anything on.
class Swarm {
 public:
  /// Half of them by IPv4.
  Swarm(const Pod& from, const Pod& to, int count) {
    run_in(from.netns(), [&] {
      for (int i = 0; i < count; ++i) {
        const Endpoint end = i % 2 == 0 ? to.v4() : to.v6();
        Fd fd(::socket(end.address.is_v4() ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
        const auto address = end.to_sockaddr();
        ::connect(fd.get(), address.get(), address.length);
        all_.push_back(std::move(fd));
      }
    });
  }
  /// Whether the other side has ended one.
  [[nodiscard]] bool any_ended() const {
    return std::ranges::any_of(all_, [](const Fd& fd) {
      pollfd one{.fd = fd.get(), .events = POLLRDHUP, .revents = 0};
      return ::poll(&one, 1, 0) > 0 && (one.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
    });
  }

 private:
  std::vector<Fd> all_;
};

class QuotaAttack : public SharedAttackTest<QuotaAttack> {
 protected:
  std::size_t open_now() { return open_descriptors(node(1).agent().pid()); }
  void expect_served(const Pod& pod) {
    for (const auto& to : {victim().v4(), victim().v6()}) {
      const Finished got = pod.get(to, {"--count", "5"});
      EXPECT_TRUE(got.ok()) << pod.name() << ": " << got.out << got.err;
    }
  }
};

TEST_F(QuotaAttack, ManyConnectionsOfOnePod) {
  constexpr int kMany = 1500, kTunnels = kMany / 100;  // which stay for a time
  const std::size_t before = open_now();
  {
    const Swarm swarm(attacker(), victim(), kMany);
    EXPECT_TRUE(eventually(kDeadline, [&] { return open_now() >= before + kMany; })) << open_now() << " descriptors";
    EXPECT_FALSE(swarm.any_ended());
    expect_served(neighbour());
    EXPECT_NE(node(1).admin("/pods").find("neighbour"), std::string::npos);
  }
  EXPECT_TRUE(eventually(kDeadline, [&] { return open_now() <= before + kTunnels + 8; }))
      << open_now() << ", before " << before;
}

// It gets its share of few descriptors, and an answer to each attempt beyond it. Neighbours get new connections.
TEST_F(QuotaAttack, AnAgentWithFewDescriptors) {
  constexpr std::size_t kRoom = 300, kMore = 1000;
  neighbour().serve();
  expect_served(neighbour());
  const std::size_t before = open_now();
  const rlimit low{before + kRoom, before + kRoom};
  ASSERT_EQ(::prlimit(node(1).agent().pid(), RLIMIT_NOFILE, &low, nullptr), 0);
  const auto limit = [&] { return metric(node(1).metrics(), "process_max_fds", {}); };
  EXPECT_TRUE(eventually(kDeadline, [&] { return limit() == static_cast<double>(low.rlim_cur); })) << limit();
  EXPECT_TRUE(eventually(kDeadline, [&] {
    return metric(node(1).metrics(), "weft_descriptors_limit", {}) < static_cast<double>(low.rlim_cur);
  }));
  std::vector<Process> held;
  held.push_back(neighbour().hold(victim().v4()));
  held.push_back(victim().hold(neighbour().v6()));
  {
    const Swarm swarm(attacker(), victim(), kMore);
    EXPECT_TRUE(eventually(kDeadline, [&] { return swarm.any_ended(); }));
    const std::vector<std::string> shed{"pod=\"attacker\"", "reason=\"descriptors\""};
    EXPECT_TRUE(
        eventually(kDeadline, [&] { return metric(node(1).metrics(), "weft_shed_total", shed) >= kMore - kRoom; }));
    EXPECT_LT(open_now(), low.rlim_cur);
    expect_served(neighbour());
    for (auto& one : held) {
      const auto said = one.out().size();
      EXPECT_TRUE(eventually(kDeadline, [&] { return one.out().size() > said; })) << one.out();
      EXPECT_TRUE(one.running()) << one.out();
    }
  }
  EXPECT_TRUE(eventually(kDeadline, [&] { return open_now() <= before + 12; })) << open_now() << ", before " << before;
  expect_served(neighbour());
  expect_served(attacker());
  EXPECT_NE(node(1).admin("/pods").find("neighbour"), std::string::npos);
}

}  // namespace
}  // namespace weft::test
