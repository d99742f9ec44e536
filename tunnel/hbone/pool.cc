// SPDX-License-Identifier: Apache-2.0
#include "tunnel/hbone/pool.h"

#include <algorithm>

namespace weft::hbone {

/// One tunnel with its place in the pool.
struct Pool::Member {
  explicit Member(loop::EventLoop& loop) : idle_timer(loop) {}
  PoolKey key;
  std::shared_ptr<const void> held;
  std::unique_ptr<Tunnel> tunnel;
  loop::Timer idle_timer;
  bool serving_scheduled = false;
  bool dialling = true;
  SteadyTime dialled;
};

Pool::Pool(TunnelContext context, milliseconds connect_timeout, milliseconds idle_timeout, HandshakeBudget budget,
           OverBudget over_budget)
    : context_(context),
      connect_timeout_(connect_timeout),
      idle_timeout_(idle_timeout),
      budget_(budget),
      over_budget_(std::move(over_budget)) {}

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
  places_[&request] = {&group, std::prev(group.waiting.end())};
  if (wants_tunnel(group)) make_tunnel(key, group);
}

/// There is no handshake for those who wait, or none that is answered.
bool Pool::wants_tunnel(const Group& group) const {
  return !group.waiting.empty() && !group.in_line && (group.dialling == 0 || is_stuck(group));
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
  if (!silence) give_up_stuck(key);
  const auto it = groups_.find(key);
  if (it == groups_.end()) return;
  Group& group = it->second;
  if (group.dialling == 0) return refuse_waiting(key, phase, why);
  if (!silence) return;
  std::list<Waiting> late;
  const SteadyTime began_before = context_.loop.now() - connect_timeout_;
  for (auto at = group.waiting.begin(); at != group.waiting.end();) {
    const auto current = at++;
    if (current->since <= began_before) late.splice(late.end(), group.waiting, current);
  }
  for (const Waiting& w : late) places_.erase(w.request);
  for (const Waiting& w : late) w.request->on_no_tunnel(phase, why);
}

/// Another one was answered.
void Pool::give_up_stuck(const PoolKey& key) {
  const auto it = groups_.find(key);
  if (it == groups_.end()) return;
  std::vector<Tunnel*> stuck;
  for (auto& member : it->second.members) {
    if (!member->dialling || member->tunnel->phase() != TunnelPhase::kConnect) continue;
    member->dialling = false;
    --it->second.dialling;
    stuck.push_back(member->tunnel.get());
  }
  // The group may go with its last tunnel.
  for (Tunnel* tunnel : stuck) tunnel->close("another dial was answered first");
  for (std::size_t i = 0; i < stuck.size(); ++i) handshake_over(key.pod_slot);
}

void Pool::cancel(TunnelRequest& request) {
  const auto place = places_.extract(&request);
  if (place.empty()) return;
  const auto& [group, position] = place.mapped();
  group->waiting.erase(position);
}

Pool::Member* Pool::with_room(Group& group) {
  for (auto& member : group.members) {
    if (member->tunnel && member->tunnel->takes_streams() &&
        member->tunnel->session().open_streams() < member->tunnel->session().max_streams()) {
      return member.get();
    }
  }
  return nullptr;
}

void Pool::make_tunnel(const PoolKey& key, Group& group) {
  const auto it = lines_.try_emplace(key.pod_slot, context_.loop).first;
  Line& line = it->second;
  if (line.under_way >= budget_.under_way || !line.waiting.empty()) return wait_in_line(key, group, line);
  dial(key, group, line);
  forget_if_idle(it);
}

void Pool::wait_in_line(const PoolKey& key, Group& group, Line& line) {
  const bool refused = line.waiting.size() >= budget_.waiting;
  // One more beside a handshake that is under way is not worth a refusal.
  if (refused && group.dialling > 0) return;
  if (over_budget_) over_budget_(key.pod_slot, refused);
  if (refused) {
    return refuse_waiting(key, TunnelPhase::kNotBegun,
                          std::to_string(line.waiting.size()) + " other handshakes of the pod wait for their turn");
  }
  group.in_line = true;
  line.waiting.push_back({key, context_.loop.now() + connect_timeout_});
  if (!line.timer.armed()) line.timer.arm(connect_timeout_, [this, slot = key.pod_slot] { give_up_waiting(slot); });
}

void Pool::dial(const PoolKey& key, Group& group, Line& line) {
  const Waiting& first = group.waiting.front();
  auto dialled = first.dial();
  if (!dialled) {
    const bool over_limit = dialled.error().code == ErrorCode::kOverLimit;
    if (over_limit && group.dialling > 0) return;
    return refuse_waiting(key, over_limit ? TunnelPhase::kNotBegun : TunnelPhase::kConnect, dialled.error().message());
  }
  TunnelContext context = context_;
  context.starts = dialled->starts;
  auto tunnel = Tunnel::create(
      context, *this, Tunnel::Side::kClient, std::move(dialled->fd), first.identity,
      [&](SSL* ssl) { expect_server(ssl, ExpectedPeer{key.expected}); }, connect_timeout_);
  if (!tunnel) return refuse_waiting(key, TunnelPhase::kConnect, tunnel.error().message());
  auto member = std::make_unique<Member>(context_.loop);
  member->key = key;
  member->held = std::move(dialled->held);
  member->tunnel = std::move(*tunnel);
  member->dialled = context_.loop.now();
  by_tunnel_[member->tunnel.get()] = member.get();
  group.members.push_back(std::move(member));
  ++group.dialling;
  ++line.under_way;
  ++tunnels_;
}

/// The next of the source may begin. Those that nobody waits for any more, or whose dial fails, make room at once.
void Pool::handshake_over(std::uint32_t pod_slot) {
  const auto it = lines_.find(pod_slot);
  if (it == lines_.end()) return;
  Line& line = it->second;
  --line.under_way;
  while (!line.waiting.empty() && line.under_way < budget_.under_way) {
    const PoolKey key = std::move(line.waiting.front().key);
    line.waiting.pop_front();
    Group& group = groups_[key];
    group.in_line = false;
    if (wants_tunnel(group)) dial(key, group, line);
    forget_if_empty(key);
  }
  forget_if_idle(it);
}

void Pool::forget_if_idle(std::map<std::uint32_t, Line>::iterator line) {
  if (line->second.under_way == 0 && line->second.waiting.empty()) lines_.erase(line);
}

void Pool::give_up_waiting(std::uint32_t pod_slot) {
  const auto it = lines_.find(pod_slot);
  if (it == lines_.end()) return;
  Line& line = it->second;
  while (!line.waiting.empty() && line.waiting.front().until <= context_.loop.now()) {
    const PoolKey key = std::move(line.waiting.front().key);
    line.waiting.pop_front();
    Group& group = groups_[key];
    group.in_line = false;
    const bool refused = group.dialling == 0 && !group.waiting.empty();
    if (refused && over_budget_) over_budget_(pod_slot, true);
    if (refused) {
      refuse_waiting(key, TunnelPhase::kNotBegun, "timed out while other handshakes of the pod were under way");
    }
    forget_if_empty(key);
  }
  if (line.waiting.empty()) return forget_if_idle(it);
  const auto left = std::chrono::ceil<milliseconds>(line.waiting.front().until - context_.loop.now());
  line.timer.arm(left, [this, pod_slot] { give_up_waiting(pod_slot); });
}

void Pool::refuse_waiting(const PoolKey& key, TunnelPhase phase, const std::string& why) {
  const auto it = groups_.find(key);
  if (it == groups_.end()) return;
  const auto waiting = std::exchange(it->second.waiting, {});
  for (const Waiting& w : waiting) places_.erase(w.request);
  for (const Waiting& w : waiting) w.request->on_no_tunnel(phase, why);
  forget_if_empty(key);
}

void Pool::forget_if_empty(const PoolKey& key) {
  const auto it = groups_.find(key);
  if (it == groups_.end() || it->second.in_line) return;
  if (it->second.members.empty() && it->second.waiting.empty()) groups_.erase(it);
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
    places_.erase(request);
    group.waiting.pop_front();
    member->idle_timer.cancel();
    request->on_tunnel(*member->tunnel);
  }
  if (group.dialling == 0 && wants_tunnel(group)) make_tunnel(key, group);
}

void Pool::on_tunnel_open(Tunnel& tunnel) {
  Member* member = member_of(tunnel);
  if (member == nullptr) return;
  const PoolKey key = member->key;
  member->dialling = false;
  --groups_[key].dialling;
  give_up_stuck(key);
  serve(key);
  update_idle(*member);
  handshake_over(key.pod_slot);
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
  if (dialling) handshake_over(key.pod_slot);
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

void Pool::for_each_open(const std::function<void(Tunnel&)>& visit) {
  std::vector<Tunnel*> open;
  for (const auto& [tunnel, member] : by_tunnel_) {
    if (tunnel->open()) open.push_back(member->tunnel.get());
  }
  for (Tunnel* tunnel : open) {
    if (tunnel->open()) visit(*tunnel);
  }
}

void Pool::drain() {
  draining_ = true;
  for (auto& [tunnel, member] : by_tunnel_) update_idle(*member);
}

}  // namespace weft::hbone
