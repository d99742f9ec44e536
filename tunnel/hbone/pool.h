// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tunnel/hbone/tunnel.h"

namespace weft::hbone {

/// What makes two streams able to share a tunnel. `pod_slot` stands for the source (its identity and address),
/// `workload_uid` and `expected` for whom the tunnel is proven to reach: a reused address inherits nothing.
struct PoolKey {
  std::uint32_t pod_slot = 0;
  std::string workload_uid;
  Endpoint gateway;
  std::vector<std::string> expected;  ///< acceptable URI SANs of the server, sorted
  auto operator<=>(const PoolKey&) const = default;
};

/// Waits for a tunnel. Exactly one of the two is called, unless the request was cancelled.
class TunnelRequest {
 public:
  virtual ~TunnelRequest() = default;
  /// Start the stream now, within the call.
  virtual void on_tunnel(Tunnel& tunnel) = 0;
  virtual void on_no_tunnel(TunnelPhase phase, const std::string& why) = 0;
};

/// The socket of a tunnel to be.
struct Dialled {
  Fd fd;
  loop::StartQueue* starts = nullptr;     ///< as in TunnelContext
  std::shared_ptr<const void> held = {};  ///< kept until the tunnel is closed, `starts` among it
};

/// What one source may have under way.
struct HandshakeBudget {
  std::size_t under_way = 256;  ///< handshakes, the connect included
  std::size_t waiting = 1024;   ///< keys for which a handshake waits until another is over
};

/// The client tunnels of one worker. At most min(100, the peer's limit) streams a tunnel, one handshake at a time per
/// key, a tunnel without streams is closed after `idle_timeout`. A request that finds a dial without an answer for
/// kStuckAfter has another one made beside it: TCP's own next attempt may be many seconds away when the peer is back.
/// A source that wants tunnels to very many has so many handshakes at once; the others wait in a line of its own, at
/// most `connect_timeout`. One thread.
class Pool final : private TunnelOwner {
 public:
  static constexpr milliseconds kStuckAfter{500};
  static constexpr std::size_t kDialsAtOnce = 4;  ///< of a key

  /// Makes the connecting socket for a tunnel, in the pod's netns and tagged. The error kOverLimit refuses what waits
  /// for the tunnel with TunnelPhase::kNotBegun, any other with kConnect.
  using Dial = std::function<Result<Dialled>()>;
  /// Hears of handshakes that cannot begin now: of which source, and whether it is refused (or waits).
  using OverBudget = std::function<void(std::uint32_t pod_slot, bool refused)>;

  Pool(TunnelContext context, milliseconds connect_timeout, milliseconds idle_timeout, HandshakeBudget budget = {},
       OverBudget over_budget = {});
  ~Pool() override;
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  /// Gives `request` a tunnel, now or later. `identity` and `dial` are used only when a new tunnel is needed.
  void request(const PoolKey& key, std::shared_ptr<const TlsIdentity> identity, Dial dial, TunnelRequest& request);
  /// The request's owner goes away: it hears no more.
  void cancel(TunnelRequest& request);
  /// The tunnels that are open now; those that `visit` ends are no matter.
  void for_each_open(const std::function<void(Tunnel&)>& visit);
  /// Cuts a pod's tunnels and refuses what waits.
  void close_pod(std::uint32_t pod_slot, const std::string& why);
  /// From now on a tunnel closes as soon as it has no streams.
  void drain();

  [[nodiscard]] std::size_t tunnels() const { return tunnels_; }

 private:
  struct Member;
  struct Waiting {
    TunnelRequest* request;
    std::shared_ptr<const TlsIdentity> identity;
    Dial dial;
    SteadyTime since;
  };
  struct Group {
    std::list<std::unique_ptr<Member>> members;
    std::list<Waiting> waiting;
    std::size_t dialling = 0;  ///< handshakes under way: more than one where the first ones are stuck
    bool in_line = false;      ///< one waits for the others of the same source
  };
  /// Of one source.
  struct Line {
    explicit Line(loop::EventLoop& loop) : timer(loop) {}
    struct Place {
      PoolKey key;
      SteadyTime until;
    };
    std::size_t under_way = 0;
    std::list<Place> waiting;
    loop::Timer timer;  ///< for the first
  };

  void serve(const PoolKey& key);
  [[nodiscard]] bool wants_tunnel(const Group& group) const;
  /// Begins a handshake, or has it wait for its turn.
  void make_tunnel(const PoolKey& key, Group& group);
  void wait_in_line(const PoolKey& key, Group& group, Line& line);
  void handshake_over(std::uint32_t pod_slot);
  void give_up_waiting(std::uint32_t pod_slot);
  void forget_if_idle(std::map<std::uint32_t, Line>::iterator line);
  void dial(const PoolKey& key, Group& group, Line& line);
  [[nodiscard]] static Member* with_room(Group& group);
  [[nodiscard]] bool is_stuck(const Group& group) const;
  void give_up_stuck(const PoolKey& key);
  void on_dial_failed(const PoolKey& key, TunnelPhase phase, const std::string& why);
  void update_idle(Member& member);
  Member* member_of(Tunnel& tunnel);
  void forget_if_empty(const PoolKey& key);
  void refuse_waiting(const PoolKey& key, TunnelPhase phase, const std::string& why);

  void on_tunnel_open(Tunnel& tunnel) override;
  void on_tunnel_request(Tunnel& /*tunnel*/, std::int32_t /*stream_id*/, const H2Headers& /*headers*/) override {}
  void on_tunnel_bad_request(Tunnel& /*tunnel*/, std::string_view /*reason*/) override {}
  void on_tunnel_changed(Tunnel& tunnel) override;
  void on_tunnel_closed(Tunnel& tunnel, TunnelPhase phase, const std::string& why) override;

  TunnelContext context_;
  milliseconds connect_timeout_;
  milliseconds idle_timeout_;
  HandshakeBudget budget_;
  OverBudget over_budget_;
  std::map<PoolKey, Group> groups_;
  std::map<std::uint32_t, Line> lines_;  ///< by pod_slot
  /// Where each waits.
  std::unordered_map<const TunnelRequest*, std::pair<Group*, std::list<Waiting>::iterator>> places_;
  std::map<const Tunnel*, Member*> by_tunnel_;
  std::size_t tunnels_ = 0;
  bool draining_ = false;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace weft::hbone
