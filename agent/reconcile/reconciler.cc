// SPDX-License-Identifier: Apache-2.0
#include "agent/reconcile/reconciler.h"

#include <fcntl.h>

#include <algorithm>

#include "agent/reconcile/cni_networks.h"
#include "bpf/attach.h"
#include "cni-plugin/netns.h"
#include "cni-plugin/pod_routing.h"
#include "cni-plugin/result.h"
#include "tunnel/base/clock.h"
#include "tunnel/base/log.h"

namespace weft::agent {
namespace {

std::string id_of(const cni::AttachmentKey& key) { return bpf::attachment_id(key.container_id, key.if_name); }

/// The names in a text with commas, without blanks.
std::set<std::string> names_in(std::string_view text) {
  std::set<std::string> names;
  while (!text.empty()) {
    std::string name(text.substr(0, text.find(',')));
    text.remove_prefix(std::min(text.size(), name.size() + 1));
    std::erase_if(name, [](char c) { return c == ' ' || c == '\t'; });
    if (!name.empty()) names.insert(std::move(name));
  }
  return names;
}

std::set<std::string> rerouted_interfaces(const Registration& registration) {
  for (const std::string_view name : {cni::kRerouteInterfaces, cni::kKubevirtInterfaces}) {
    const auto found = registration.annotations.find(std::string(name));
    if (found != registration.annotations.end()) return names_in(found->second);
  }
  return {};
}

bool shares_an_address(const std::vector<IpAddress>& a, const std::vector<IpAddress>& b) {
  return std::ranges::any_of(a, [&](const IpAddress& address) { return std::ranges::find(b, address) != b.end(); });
}

}  // namespace

Reconciler::Reconciler(ReconcileConfig config, Enrolment& enrolment)
    : config_(std::move(config)), enrolment_(enrolment) {
  for (const char* action : {"adopted", "mended", "pins_removed", "records_removed", "entries_removed", "failed"}) {
    counts_[action] = 0;
  }
}

Reconciler::~Reconciler() { stop(); }

void Reconciler::start() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = false;
  }
  thread_ = std::thread([this] { run(); });
}

void Reconciler::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Reconciler::wake() {
  {
    const std::lock_guard lock(mutex_);
    woken_ = true;
  }
  wake_.notify_all();
}

void Reconciler::pod_registered() {
  {
    const std::lock_guard lock(mutex_);
    if (promote_at_) return;
    promote_at_ = Clock::real().now() + config_.promote_after;
  }
  wake_.notify_all();
}

void Reconciler::run() {
  SteadyTime next_pass = Clock::real().now();
  for (;;) {
    bool pass = false, promote = false;
    {
      std::unique_lock lock(mutex_);
      const auto due = promote_at_ ? std::min(next_pass, *promote_at_) : next_pass;
      if (!stopping_ && !woken_) wake_.wait_until(lock, due);
      if (stopping_) return;
      const auto now = Clock::real().now();
      pass = std::exchange(woken_, false) || now >= next_pass;
      promote = promote_at_ && now >= *promote_at_;
      if (promote) promote_at_.reset();
    }
    if (promote) {
      const std::lock_guard one(pass_mutex_);
      promote_new();
    }
    if (!pass) continue;
    run_once();
    next_pass = Clock::real().now() + config_.interval;
  }
}

/// One that is not attached yet, or fails, is tried again: soon while it may be in its ADD, then with each pass.
void Reconciler::promote_new() {
  const auto now = Clock::real().now();
  std::set<cni::AttachmentKey> done;
  bool again = false;
  for (const auto& pod : enrolment_.wired()) {
    const Registration& r = pod.registration;
    if (promoted_.contains(r.key)) {
      done.insert(r.key);
      continue;
    }
    if (pod.registered + config_.promote_after > now) {
      again = true;
      continue;
    }
    auto promoted = bpf::promote({.root = config_.bpf_root,
                                  .attachment = id_of(r.key),
                                  .pod_netns = pod.netns->get(),
                                  .ifindex = r.ifindex,
                                  .host_ifindex = r.host_ifindex});
    if (promoted) {
      done.insert(r.key);
    } else if (promoted.error().code == ErrorCode::kNotFound && pod.registered + config_.settle_time > now) {
      again = true;
    } else {
      log::warn("filters not replaced by links pod={} reason={}", r.pod(), log::quote(promoted.error().message()));
    }
  }
  promoted_ = std::move(done);
  if (again) pod_registered();
}

void Reconciler::count(const char* action, std::uint64_t by) {
  const std::lock_guard lock(mutex_);
  counts_[action] += by;
}

std::map<std::string, std::uint64_t> Reconciler::counts() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

std::vector<UnwiredPod> Reconciler::unwired() const {
  const std::lock_guard lock(mutex_);
  return unwired_;
}

std::vector<std::string> Reconciler::unknown() const {
  const std::lock_guard lock(mutex_);
  return unknown_;
}

void Reconciler::run_once() {
  const std::lock_guard one(pass_mutex_);
  enrolment_.sweep();
  auto pass = look();
  if (!pass) {
    count("failed");
    log::error("reconciliation failed error={}", log::quote(pass.error().message()));
    return;
  }
  adopt(*pass);
  mend(*pass);
  promote_new();
  collect(*pass);
  auto strangers = enrolment_.drop_strangers();
  if (strangers) {
    count("entries_removed", *strangers);
  } else {
    count("failed");
    log::error("reconciliation of the capture maps failed error={}", log::quote(strangers.error().message()));
  }
  finish(std::move(*pass));
}

Result<Reconciler::Pass> Reconciler::look() const {
  Pass pass;
  auto pins = bpf::attachments(config_.bpf_root);
  if (!pins) return Failure(pins.error());
  pass.pins = std::move(*pins);
  auto records = cni::read_records(config_.bpf_root);
  if (!records) return Failure(records.error());
  pass.records = std::move(*records);
  if (config_.conf_dir.empty()) return pass;
  auto networks = read_cni_networks(config_.conf_dir);
  if (!networks) return Failure(networks.error());
  pass.networks = std::move(*networks);
  if (pass.networks.empty()) return pass;
  auto cache = read_cni_cache(config_.cache_dir);
  if (!cache) return Failure(cache.error());
  for (const auto& problem : cache->problems) log::warn("CNI cache entry not understood {}", log::quote(problem));
  pass.cached = std::move(cache->attachments);
  // Of two entries for one netns the later one is its pod.
  std::ranges::sort(pass.cached, [](const auto& a, const auto& b) { return a.written_ns > b.written_ns; });
  return pass;
}

void Reconciler::finish(Pass pass) {
  const std::lock_guard lock(mutex_);
  for (const auto& pod : pass.unwired) {
    if (std::ranges::find(unwired_, pod) != unwired_.end()) continue;
    log::warn("pod not in the mesh: cannot be wired pod={}/{} container={} reason={}", pod.pod.pod_namespace,
              pod.pod.name, pod.key.container_id, log::quote(pod.reason));
  }
  // A DEL takes the programs off a moment after its pod was unregistered: unknown is what two passes found.
  std::vector<std::string> lasting;
  for (const auto& id : pass.unknown) {
    if (std::ranges::find(suspected_, id) == suspected_.end()) continue;
    lasting.push_back(id);
    if (std::ranges::find(unknown_, id) != unknown_.end()) continue;
    log::error("capture programs of an unknown pod, which is cut off attachment={}", id);
  }
  unwired_ = std::move(pass.unwired);
  unknown_ = std::move(lasting);
  suspected_ = std::move(pass.unknown);
}

std::string Reconciler::network_of(const Pass& pass, const cni::AttachmentKey& key) {
  const auto record = std::ranges::find_if(pass.records, [&](const auto& r) { return r.key == key; });
  if (record != pass.records.end()) return record->network;
  const auto cached = std::ranges::find_if(pass.cached, [&](const auto& c) { return c.key == key; });
  return cached != pass.cached.end() ? cached->network : "unknown";
}

cni::CniResult<cni::Reply> Reconciler::wire(const cni::Wire& wire, const WiredPod& pod) {
  const auto ask = [this](cni::Request request) -> cni::CniResult<cni::Reply> {
    auto reply = enrolment_.handle(std::move(request));
    if (reply.error) return cni::refuse(cni::Code::kRefused, reply.error->message());
    return reply;
  };
  const auto request = [&](cni::Verb verb) {
    const Registration& r = pod.registration;
    cni::Request made;
    made.verb = verb;
    made.key = r.key;
    made.netns = r.netns_path;
    made.pod_namespace = r.pod_namespace;
    made.pod_name = r.pod_name;
    made.pod_uid = r.pod_uid;
    made.addresses = wire.addresses;
    made.annotations = r.annotations;
    made.ifindex = wire.interface.ifindex;
    made.host_ifindex = wire.interface.host_ifindex;
    return made;
  };
  return cni::wire(wire, {.register_pod = [&]() -> cni::CniResult<cni::Reply> {
                            auto made = request(cni::Verb::kRegister);
                            made.netns_fd.reset(::fcntl(pod.netns->get(), F_DUPFD_CLOEXEC, 0));
                            if (!made.netns_fd) return cni::refuse(cni::Code::kWiring, "out of descriptors");
                            return ask(std::move(made));
                          },
                          .unregister_pod = [&] { (void)ask(request(cni::Verb::kUnregister)); }});
}

void Reconciler::adopt(Pass& pass) {
  if (pass.cached.empty()) return;
  // Not before the first snapshot: until then every pod would be captured, and its connections would have to wait.
  if (enrolment_.state() == nullptr) return;
  for (const auto& cached : pass.cached) {
    const auto network = pass.networks.find(cached.network);
    if (network == pass.networks.end() || enrolment_.registered(cached.key) || cached.pod.name.empty() ||
        network->second.excludes(cached.pod.pod_namespace)) {
      continue;
    }
    const std::string why = adopt_one(cached);
    if (!why.empty()) pass.unwired.push_back({cached.pod, cached.key, why});
  }
}

std::string Reconciler::adopt_one(const CachedAttachment& cached) {
  if (cached.netns.empty()) return "the CNI cache does not say where its network namespace is";
  auto netns = cni::open_netns(cached.netns);
  // The pod is gone and its DEL did not come; or it is in the host's network.
  if (!netns || netns->own) return {};
  auto interface = cni::find_pod_interface(netns->fd.get(), cached.key.if_name);
  if (!interface) return interface.error().message();
  auto given = cni::pod_addresses(cached.result, cached.key.if_name);
  if (!given) return given.error().msg;
  if (!given->empty() && !shares_an_address(*given, interface->addresses)) {
    return "its network namespace " + cached.netns +
           " has other addresses than the CNI cache says (was the path reused?)";
  }
  const std::string who = "pod=" + cached.pod.pod_namespace + "/" + cached.pod.name;
  auto addresses = cni::choose_addresses(std::move(*given), *interface, who);
  if (addresses.empty()) return "its interface " + cached.key.if_name + " has no address";

  WiredPod pod;
  pod.registration.key = cached.key;
  pod.registration.netns_path = cached.netns;
  pod.registration.pod_namespace = cached.pod.pod_namespace;
  pod.registration.pod_name = cached.pod.name;
  pod.registration.pod_uid = cached.pod.uid;
  pod.registration.annotations = cached.annotations;
  pod.netns = std::make_shared<const Fd>(std::move(netns->fd));
  auto wired =
      wire({config_.bpf_root, cached.network, cached.key, pod.netns->get(), *interface, std::move(addresses)}, pod);
  if (!wired) return wired.error().msg;
  count("adopted");
  log::info("pod taken up that is older than Weft {} container={} enrolled={}", who, cached.key.container_id,
            wired->enrolled);
  return {};
}

void Reconciler::mend(const Pass& pass) {
  const auto all = enrolment_.wired();
  const auto settled = Clock::real().now() - config_.settle_time;
  for (const auto& pod : all) {
    if (pod.registered > settled) continue;
    Observation seen = mend_one(pass, pod, all);
    const Observation& before = pod.observation;
    if (!seen.problems.empty() && seen.problems != before.problems) {
      log::error("pod is not captured as it should be pod={} problem={}", pod.registration.pod(),
                 log::quote(seen.problems.front()));
    }
    for (const auto& name : seen.uncaptured) {
      if (std::ranges::find(before.uncaptured, name) != before.uncaptured.end()) continue;
      log::warn("interface with routes is not wired, what leaves by it is outside the mesh pod={} interface={}",
                pod.registration.pod(), name);
    }
    enrolment_.observe(pod.registration.key, std::move(seen));
  }
}

Observation Reconciler::mend_one(const Pass& pass, const WiredPod& pod, const std::vector<WiredPod>& all) {
  Observation seen;
  seen.at = Clock::real().wall_now();
  seen.by = "reconciliation: programs, rules, routes, interfaces";
  if (std::string problem = mend_wiring(pass, pod); !problem.empty()) seen.problems.push_back(std::move(problem));
  auto routed = cni::routed_interfaces(pod.netns->get());
  if (!routed) {
    seen.problems.push_back("its interfaces cannot be listed: " + routed.error().message());
    return seen;
  }
  const auto rerouted = rerouted_interfaces(pod.registration);
  for (const auto& [ifindex, name] : *routed) {
    const bool wired = std::ranges::any_of(all, [&, index = ifindex](const WiredPod& other) {
      return other.registration.netns_id.same(pod.registration.netns_id) && other.registration.ifindex == index;
    });
    if (!wired) (rerouted.contains(name) ? seen.rerouted : seen.uncaptured).push_back(name);
  }
  return seen;
}

std::string Reconciler::mend_wiring(const Pass& pass, const WiredPod& pod) {
  const Registration& r = pod.registration;
  auto interface = cni::find_pod_interface(pod.netns->get(), r.key.if_name);
  if (!interface) return interface.error().message();
  const cni::Wire wired{config_.bpf_root, network_of(pass, r.key), r.key, pod.netns->get(), *interface, r.addresses};
  auto findings = cni::wiring_findings(wired);
  const bool moved = interface->ifindex != r.ifindex || interface->host_ifindex != r.host_ifindex;
  if (findings && findings->empty() && !moved) return {};
  const std::string what = !findings           ? findings.error().message()
                           : findings->empty() ? "its interface was made anew"
                                               : findings->front();
  // What looks like damage may be a DEL under way, which unregisters first.
  if (!enrolment_.registered(r.key)) return {};
  // A new interface is a new registration.
  cni::CniResult<void> mended;
  if (moved) {
    if (auto again = wire(wired, pod); !again) mended = tl::unexpected<cni::CniError>(std::move(again.error()));
  } else {
    mended = cni::rewire(wired);
    // A DEL that began meanwhile has either detached before this, or will find what was put on.
    if (!enrolment_.registered(r.key)) {
      if (auto undone = cni::unwire(config_.bpf_root, r.key); !undone) return undone.error().message();
      if (!cni::has_sibling(config_.bpf_root, r.key)) cni::clear_netns(pod.netns->get());
      return {};
    }
  }
  if (!mended) {
    count("failed");
    return what + "; and mending failed: " + mended.error().msg;
  }
  count("mended");
  log::warn("pod mended pod={} found={}", r.pod(), log::quote(what));
  return {};
}

void Reconciler::collect(Pass& pass) {
  std::set<std::string> registered;
  for (const auto& pod : enrolment_.wired()) registered.insert(id_of(pod.registration.key));
  const auto failed = [this](const char* what, const Error& error) {
    count("failed");
    log::error("{} not removed error={}", what, log::quote(error.message()));
  };
  for (const auto& id : pass.pins) {
    if (registered.contains(id)) continue;
    auto alive = bpf::is_alive(config_.bpf_root, id);
    if (!alive) {
      failed("pins of an unknown pod", alive.error());
    } else if (*alive) {
      pass.unknown.push_back(id);
    } else if (auto removed = bpf::detach(config_.bpf_root, id); !removed) {
      failed("pins of a pod that is gone", removed.error());
    } else {
      count("pins_removed");
      log::info("pins of a pod that is gone removed attachment={}", id);
    }
  }
  for (const auto& record : pass.records) {
    const std::string id = id_of(record.key);
    if (registered.contains(id) || std::ranges::find(pass.unknown, id) != pass.unknown.end()) continue;
    if (auto removed = cni::remove_record(config_.bpf_root, record.key); !removed) {
      failed("record of a pod that is gone", removed.error());
    } else {
      count("records_removed");
    }
  }
}

}  // namespace weft::agent
