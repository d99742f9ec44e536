// SPDX-License-Identifier: Apache-2.0
#include "tunnel/hbone/pool.h"

#include <algorithm>

namespace weft::hbone {

/// One tunnel with its place in the pool.
struct Pool::Member {
  explicit Member(loop::EventLoop& loop) : idle_timer(loop) {}
  PoolKey key;
  std::unique_ptr<Tunnel> tunnel;
  loop::Timer idle_timer;
  bool serving_scheduled = false;
  bool dialling = true;
  SteadyTime dialled;
};

Pool::Pool(TunnelContext context, milliseconds connect_timeout, milliseconds idle_timeout)
    : context_(context), connect_timeout_(connect_timeout), idle_timeout_(idle_timeout) {}

Pool::~Pool() { *alive_ = false; }

void Pool::request(const PoolKey& key, std::shared_ptr<const TlsIdentity> identity, Dial dial, TunnelRequest& request) {
  Group& group = groups_[key];
  if (group.waiting.empty()) {
    if (Member* member = with_room(group)) {
      member->idle_timer.cancel();
      request.on_tunnel(*member->tunnel);
      return;
    }
  }
  group.waiting.push_back({&request, std::move(identity), std::move(dial), context_.loop.now()});
  if (group.dialling == 0 || is_stuck(group)) this->dial(key, group);
}

/// The last dial has had no answer for a while.
bool Pool::is_stuck(const Group& group) const {
  if (group.dialling >= kDialsAtOnce) return false;
  const auto last = std::ranges::find_if(group.members.rbegin(), group.members.rend(),
                                         [](const auto& member) { return member->dialling; });
  return last != group.members.rend() && (*last)->tunnel->phase() == TunnelPhase::kConnect &&
         context_.loop.now() - (*last)->dialled >= kStuckAfter;
}

/// An answer, if only a refusal, is the answer to the other dials too. Silence says nothing to those who came later.
void Pool::on_dial_failed(const PoolKey& key, TunnelPhase phase, const std::string& why) {
  const bool silence = phase == TunnelPhase::kConnect && why.starts_with("timed out");
  if (!silence) give_up_stuck(groups_[key]);
  // The last of its members takes a group along that nobody waits for.
  const auto found = groups_.find(key);
  if (found == groups_.end()) return;
  Group& group = found->second;
  if (group.dialling == 0) return refuse_waiting(key, phase, why);
  if (!silence) return;
  std::list<Waiting> late;
  const SteadyTime began_before = context_.loop.now() - connect_timeout_;
  for (auto it = group.waiting.begin(); it != group.waiting.end();) {
    const auto current = it++;
    if (current->since <= began_before) late.splice(late.end(), group.waiting, current);
  }
  for (const Waiting& w : late) w.request->on_no_tunnel(phase, why);
}

/// Another one was answered.
void Pool::give_up_stuck(Group& group) {
  std::vector<Tunnel*> stuck;
  for (auto& member : group.members) {
    if (!member->dialling || member->tunnel->phase() != TunnelPhase::kConnect) continue;
    member->dialling = false;
    --group.dialling;
    stuck.push_back(member->tunnel.get());
  }
  for (Tunnel* tunnel : stuck) tunnel->close("another dial was answered first");
}

void Pool::cancel(TunnelRequest& request) {
  for (auto& [key, group] : groups_) {
    group.waiting.remove_if([&](const Waiting& w) { return w.request == &request; });
  }
}

Pool::Member* Pool::with_room(Group& group) {
  for (auto& member : group.members) {
    if (member->tunnel && member->tunnel->open() && member->tunnel->session().accepts_new_streams() &&
        member->tunnel->session().open_streams() < member->tunnel->session().max_streams()) {
      return member.get();
    }
  }
  return nullptr;
}

void Pool::dial(const PoolKey& key, Group& group) {
  const Waiting& first = group.waiting.front();
  auto fd = first.dial();
  if (!fd) {
    refuse_waiting(key, TunnelPhase::kConnect, fd.error().message());
    return;
  }
  auto tunnel = Tunnel::create(
      context_, *this, Tunnel::Side::kClient, std::move(*fd), first.identity,
      [&](SSL* ssl) { expect_server(ssl, ExpectedPeer{key.expected}); }, connect_timeout_);
  if (!tunnel) {
    refuse_waiting(key, TunnelPhase::kConnect, tunnel.error().message());
    return;
  }
  auto member = std::make_unique<Member>(context_.loop);
  member->key = key;
  member->tunnel = std::move(*tunnel);
  member->dialled = context_.loop.now();
  by_tunnel_[member->tunnel.get()] = member.get();
  group.members.push_back(std::move(member));
  ++group.dialling;
  ++tunnels_;
}

void Pool::refuse_waiting(const PoolKey& key, TunnelPhase phase, const std::string& why) {
  const auto it = groups_.find(key);
  if (it == groups_.end()) return;
  const auto waiting = std::exchange(it->second.waiting, {});
  for (const Waiting& w : waiting) w.request->on_no_tunnel(phase, why);
  forget_if_empty(key);
}

void Pool::forget_if_empty(const PoolKey& key) {
  const auto it = groups_.find(key);
  if (it != groups_.end() && it->second.members.empty() && it->second.waiting.empty()) groups_.erase(it);
}

Pool::Member* Pool::member_of(Tunnel& tunnel) {
  const auto it = by_tunnel_.find(&tunnel);
  return it == by_tunnel_.end() ? nullptr : it->second;
}

void Pool::serve(const PoolKey& key) {
  const auto it = groups_.find(key);
  if (it == groups_.end()) return;
  Group& group = it->second;
  while (!group.waiting.empty()) {
    Member* member = with_room(group);
    if (member == nullptr) break;
    TunnelRequest* request = group.waiting.front().request;
    group.waiting.pop_front();
    member->idle_timer.cancel();
    request->on_tunnel(*member->tunnel);
  }
  if (!group.waiting.empty() && group.dialling == 0) dial(key, group);
}

void Pool::on_tunnel_open(Tunnel& tunnel) {
  Member* member = member_of(tunnel);
  if (member == nullptr) return;
  const PoolKey key = member->key;
  member->dialling = false;
  --groups_[key].dialling;
  give_up_stuck(groups_[key]);
  serve(key);
  update_idle(*member);
}

void Pool::on_tunnel_changed(Tunnel& tunnel) {
  // This comes from inside the session: what it allows is used at the end of the turn.
  Member* member = member_of(tunnel);
  if (member == nullptr || member->serving_scheduled) return;
  member->serving_scheduled = true;
  context_.loop.at_turn_end([this, alive = alive_, raw = &tunnel] {
    if (!*alive) return;
    Member* found = member_of(*raw);
    if (found == nullptr) return;
    found->serving_scheduled = false;
    serve(found->key);
    update_idle(*found);
  });
}

void Pool::update_idle(Member& member) {
  Tunnel* tunnel = member.tunnel.get();
  if (!tunnel->open() || tunnel->session().open_streams() > 0) return;
  if (draining_ || !tunnel->session().accepts_new_streams()) {
    tunnel->drain();
  } else if (!member.idle_timer.armed()) {
    member.idle_timer.arm(idle_timeout_, [tunnel] { tunnel->drain(); });
  }
}

void Pool::on_tunnel_closed(Tunnel& tunnel, TunnelPhase phase, const std::string& why) {
  Member* member = member_of(tunnel);
  if (member == nullptr) return;
  const PoolKey key = member->key;
  const bool dialling = member->dialling;
  by_tunnel_.erase(&tunnel);
  --tunnels_;
  Group& group = groups_[key];
  const auto it = std::ranges::find_if(group.members, [&](const auto& m) { return m.get() == member; });
  context_.loop.defer_delete(std::move((*it)->tunnel));
  group.members.erase(it);
  if (dialling) --group.dialling;
  if (dialling && phase != TunnelPhase::kOpen) {
    on_dial_failed(key, phase, why);
  } else if (!group.waiting.empty()) {
    serve(key);
  }
  forget_if_empty(key);
}

void Pool::close_pod(std::uint32_t pod_slot, const std::string& why) {
  std::vector<Tunnel*> tunnels;
  std::vector<PoolKey> keys;
  for (auto& [key, group] : groups_) {
    if (key.pod_slot != pod_slot) continue;
    keys.push_back(key);
    for (auto& member : group.members) tunnels.push_back(member->tunnel.get());
  }
  for (const PoolKey& key : keys) refuse_waiting(key, TunnelPhase::kConnect, why);
  for (Tunnel* tunnel : tunnels) tunnel->close(why);
}

void Pool::drain() {
  draining_ = true;
  for (auto& [tunnel, member] : by_tunnel_) update_idle(*member);
}

}  // namespace weft::hbone
