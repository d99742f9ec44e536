// SPDX-License-Identifier: Apache-2.0
#include "bpf/loader.h"

#include <bpf/libbpf.h>
#include <capture.skel.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>

#include "bpf/attach.h"
#include "bpf/destinations.h"
#include "bpf/libbpf_log.h"
#include "bpf/map_io.h"
#include "bpf/pins.h"
#include "bpf/shared.h"
#include "tunnel/base/log.h"

namespace weft::bpf {

static_assert(kMaxWorkers == WEFT_MAX_WORKERS);
static_assert(static_cast<int>(InboundPlaintext::kPass) == WEFT_INBOUND_PASS);
static_assert(static_cast<int>(InboundPlaintext::kCheck) == WEFT_INBOUND_CHECK);
static_assert(static_cast<int>(InboundPlaintext::kDrop) == WEFT_INBOUND_DROP);
static_assert(static_cast<int>(Listener::kOutbound) == WEFT_LISTENER_OUTBOUND);
static_assert(static_cast<int>(Listener::kInboundHbone) == WEFT_LISTENER_HBONE);
static_assert(static_cast<int>(Listener::kInboundPlaintext) == WEFT_LISTENER_PLAINTEXT);

namespace {

using Skeleton = std::unique_ptr<capture, decltype(&capture__destroy)>;

/// On average: the map of addresses is that many times as large as the number of pods.
constexpr std::uint32_t kAddressesPerPod = 4;

Result<void> check(const Settings& settings) {
  if (settings.workers < 1 || settings.workers > kMaxWorkers) {
    return fail(ErrorCode::kInvalid, "load the capture programs: workers is " + std::to_string(settings.workers) +
                                         ", 1 to " + std::to_string(kMaxWorkers) + " are possible");
  }
  if (settings.max_pods < 1 || settings.max_destinations < 1) {
    return fail(ErrorCode::kInvalid, "load the capture programs: max_pods and max_destinations must be at least 1");
  }
  return {};
}

/// Sets the pin path of a map and its size: that of the map which is pinned there already, or the wanted one.
Result<void> prepare_map(bpf_map* map, const std::string& root, std::uint32_t wanted) {
  const std::string path = root + "/maps/" + bpf_map__name(map);
  auto pinned = pins::pinned_size(path);
  if (!pinned) return Failure(pinned.error());
  if (*pinned != 0 && wanted != 0 && *pinned != wanted) {
    log::warn("map keeps its size map={} entries={} wanted={}", bpf_map__name(map), *pinned, wanted);
  }
  const std::uint32_t size = *pinned != 0 ? *pinned : wanted;
  if (int error = size != 0 ? bpf_map__set_max_entries(map, size) : 0; error != 0) {
    return fail_errno(-error, "set the size of the map " + path);
  }
  if (int error = bpf_map__set_pin_path(map, path.c_str()); error != 0) {
    return fail_errno(-error, "set the pin of the map " + path);
  }
  return {};
}

/// Slots are numbered by the map of listeners, which may be older and of another size.
Result<std::uint32_t> slots_of(const Settings& s) {
  auto pinned = pins::pinned_size(s.root + "/maps/listeners");
  if (!pinned) return Failure(pinned.error());
  return *pinned != 0 ? *pinned / WEFT_LISTENERS_PER_POD : s.max_pods;
}

Result<void> prepare_maps(const capture& skeleton, const Settings& s) {
  auto slots = slots_of(s);
  if (!slots) return Failure(slots.error());
  const std::map<const bpf_map*, std::uint32_t> sizes{
      {skeleton.maps.pods, s.max_pods * kAddressesPerPod},
      {skeleton.maps.interfaces, s.max_pods},
      {skeleton.maps.destinations, s.max_destinations},
      {skeleton.maps.destination_cidrs, s.max_destinations},
      {skeleton.maps.listeners, s.max_pods * WEFT_LISTENERS_PER_POD},
      {skeleton.maps.pod_counters, *slots},
      {skeleton.maps.pod_flags, *slots},
      {skeleton.maps.dns_sockets, *slots * WEFT_DNS_SOCKETS_PER_POD},
      {skeleton.maps.registry, s.max_destinations},
      {skeleton.maps.registry_cidrs, s.max_destinations},
  };
  for (bpf_map* of_registry : {skeleton.maps.registry, skeleton.maps.registry_cidrs, skeleton.maps.udp_peers}) {
    bpf_map__set_autocreate(of_registry, s.registry_only);
  }
  bpf_map* map = nullptr;
  bpf_object__for_each_map(map, skeleton.obj) {
    if (bpf_map__is_internal(map) || !bpf_map__autocreate(map)) continue;
    const auto size = sizes.find(map);
    if (auto done = prepare_map(map, s.root, size == sizes.end() ? 0 : size->second); !done) return done;
  }
  return {};
}

Result<Skeleton> load_object(const Settings& settings) {
  const LibbpfLog log;
  Skeleton skeleton(capture__open(), capture__destroy);
  if (!skeleton) return fail_errno(errno, "open the capture programs" + log.text());
  struct stat netns {};
  if (::stat("/proc/self/ns/net", &netns) != 0) return fail_errno(errno, "look at /proc/self/ns/net");
  skeleton->rodata->host_netns_inode = static_cast<std::uint32_t>(netns.st_ino);
  skeleton->rodata->registry_only = settings.registry_only ? 1 : 0;
  if (auto prepared = prepare_maps(*skeleton, settings); !prepared) return Failure(prepared.error());
  if (const int error = capture__load(skeleton.get()); error != 0) {
    return fail_errno(-error, "load the capture programs into the kernel" + log.text());
  }
  return skeleton;
}

Result<void> publish_programs(const capture& skeleton, const std::string& root) {
  bpf_program* program = nullptr;
  bpf_object__for_each_program(program, skeleton.obj) {
    auto pinned = pins::replace_program(root, bpf_program__name(program), bpf_program__fd(program));
    if (!pinned) return pinned;
  }
  return {};
}

Result<void> refresh_all(const std::string& root) {
  auto wrong = refresh(root);
  if (!wrong) return Failure(wrong.error());
  for (const std::string& text : *wrong) log::warn("hook keeps its old program hook={}", log::quote(text));
  return {};
}

}  // namespace

struct Capture::Impl {
  Impl(Skeleton loaded, const Settings& s)
      : skeleton(std::move(loaded)),
        slots(bpf_map__max_entries(skeleton->maps.listeners) / WEFT_LISTENERS_PER_POD),
        workers(s.workers),
        root(s.root),
        pods{bpf_map__fd(skeleton->maps.pods), "pods"},
        interfaces{bpf_map__fd(skeleton->maps.interfaces), "interfaces"},
        settings{bpf_map__fd(skeleton->maps.settings), "settings"},
        listeners{bpf_map__fd(skeleton->maps.listeners), "listeners"},
        flags{bpf_map__fd(skeleton->maps.pod_flags), "pod_flags"},
        dns_sockets{bpf_map__fd(skeleton->maps.dns_sockets), "dns_sockets"},
        tags{bpf_map__fd(skeleton->maps.agent_sockets), "agent_sockets"},
        registry_only(s.registry_only),
        destinations{{{bpf_map__fd(skeleton->maps.destinations), "destinations"},
                      bpf_map__max_entries(skeleton->maps.destinations)},
                     {{bpf_map__fd(skeleton->maps.destination_cidrs), "destination_cidrs"},
                      bpf_map__max_entries(skeleton->maps.destination_cidrs)}},
        registry{{{bpf_map__fd(skeleton->maps.registry), "registry"}, bpf_map__max_entries(skeleton->maps.registry)},
                 {{bpf_map__fd(skeleton->maps.registry_cidrs), "registry_cidrs"},
                  bpf_map__max_entries(skeleton->maps.registry_cidrs)}} {}

  Skeleton skeleton;
  std::uint32_t slots;
  std::uint32_t workers;
  std::string root;
  Map<weft_addr, weft_pod> pods;
  Map<std::uint32_t, weft_pod> interfaces;
  Map<std::uint32_t, weft_settings> settings;
  Map<std::uint32_t, std::uint64_t> listeners;
  Map<std::uint32_t, std::uint32_t> flags;
  Map<std::uint32_t, std::uint64_t> dns_sockets;
  Map<int, std::uint32_t> tags;
  bool registry_only;
  AddressMaps destinations;
  AddressMaps registry;      ///< there are none without registry_only
  mutable std::mutex mutex;  ///< over every write, and over reads that must see one state

  template <class Change>
  Result<void> change_settings(Change change) const {
    auto now = settings.get(0);
    if (!now) return Failure(now.error());
    change(**now);
    return settings.put(0, **now);
  }
  Result<void> check_slot(std::uint32_t slot) const {
    if (slot < slots) return {};
    return fail(ErrorCode::kInvalid, "slot " + std::to_string(slot) + " of " + std::to_string(slots) + " pods");
  }
  [[nodiscard]] Result<void> check_socket(std::uint32_t slot, std::uint32_t worker, int fd) const;
  /// Whether one of the pod's addresses is in its slot already.
  [[nodiscard]] Result<bool> known(const Pod& pod) const;
  Result<void> check_addresses(const Pod& pod) const;
  Result<void> change_destinations(const AddressMaps::Plan& plan) const;
  Result<void> set_destinations(const AddressMaps::Plan& plan, const AddressList& wanted) const;
  Result<void> forget(std::uint32_t slot, const std::vector<IpAddress>& keep, std::uint32_t keep_ifindex) const;
};

Capture::Capture(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Capture::~Capture() = default;

Result<std::unique_ptr<Capture>> Capture::load(const Settings& settings) {
  if (auto ok = check(settings); !ok) return Failure(ok.error());
  if (auto ok = pins::check_machine(settings.root); !ok) return Failure(ok.error());
  if (auto ok = pins::make_folders(settings.root); !ok) return Failure(ok.error());
  auto adopted = pins::check_layout(settings.root);
  if (!adopted) return Failure(adopted.error());
  auto skeleton = load_object(settings);
  if (!skeleton) return Failure(skeleton.error());

  auto impl = std::make_unique<Impl>(std::move(*skeleton), settings);
  auto written = impl->change_settings([&](weft_settings& s) {
    s.layout_version = WEFT_LAYOUT_VERSION;
    if (*adopted) return;
    s.workers = settings.workers;
    s.capture_all = 1;  // nobody has told the destinations yet
  });
  if (!written) return Failure(written.error());
  if (auto ok = publish_programs(*impl->skeleton, settings.root); !ok) return Failure(ok.error());
  if (auto ok = refresh_all(settings.root); !ok) return Failure(ok.error());
  return std::unique_ptr<Capture>(new Capture(std::move(impl)));
}

Result<void> Capture::Impl::check_addresses(const Pod& pod) const {
  for (const IpAddress& address : pod.addresses) {
    if (!address.valid() || address.is_loopback() || address.is_unspecified() || address.is_link_local()) {
      return fail(ErrorCode::kInvalid, "pod in slot " + std::to_string(pod.slot) + ": " + address.to_string() +
                                           " cannot be a pod's address");
    }
    auto holder = pods.get(to_key(address));
    if (!holder) return Failure(holder.error());
    if (*holder && (*holder)->slot != pod.slot) {
      return fail(ErrorCode::kInvalid, "pod in slot " + std::to_string(pod.slot) + ": the address " +
                                           address.to_string() + " belongs to the pod in slot " +
                                           std::to_string((*holder)->slot) +
                                           " (overlapping addresses on a node are not possible)");
    }
  }
  if (pod.host_ifindex == 0) return {};
  auto holder = interfaces.get(pod.host_ifindex);
  if (!holder) return Failure(holder.error());
  if (*holder && (*holder)->slot != pod.slot) {
    return fail(ErrorCode::kInvalid, "pod in slot " + std::to_string(pod.slot) + ": the host interface " +
                                         std::to_string(pod.host_ifindex) + " belongs to the pod in slot " +
                                         std::to_string((*holder)->slot));
  }
  return {};
}

Result<bool> Capture::Impl::known(const Pod& pod) const {
  for (const IpAddress& address : pod.addresses) {
    auto holder = pods.get(to_key(address));
    if (!holder) return Failure(holder.error());
    if (*holder && (*holder)->slot == pod.slot) return true;
  }
  return false;
}

/// Removes what the maps say of a slot, but for what is to stay.
Result<void> Capture::Impl::forget(std::uint32_t slot, const std::vector<IpAddress>& keep,
                                   std::uint32_t keep_ifindex) const {
  const auto sweep = [slot](const auto& map, auto stays) -> Result<void> {
    auto keys = map.keys();
    if (!keys) return Failure(keys.error());
    for (const auto& key : *keys) {
      auto pod = map.get(key);
      if (!pod) return Failure(pod.error());
      if (!*pod || (*pod)->slot != slot || stays(key)) continue;
      if (auto removed = map.remove(key); !removed) return removed;
    }
    return {};
  };
  auto done = sweep(pods, [&](const weft_addr& key) { return std::ranges::count(keep, to_address(key)) != 0; });
  if (!done) return done;
  return sweep(interfaces, [&](std::uint32_t key) { return key == keep_ifindex; });
}

Result<void> Capture::set_pod(const Pod& pod) {
  const std::scoped_lock lock(impl_->mutex);
  if (auto ok = impl_->check_slot(pod.slot); !ok) return ok;
  if (pod.addresses.empty()) {
    return fail(ErrorCode::kInvalid, "pod in slot " + std::to_string(pod.slot) + ": it has no address");
  }
  if (auto ok = impl_->check_addresses(pod); !ok) return ok;
  auto known = impl_->known(pod);
  if (!known) return Failure(known.error());
  if (!*known) {
    auto begun = zero_traffic(bpf_map__fd(impl_->skeleton->maps.pod_counters), pod.slot);
    if (!begun) return begun;
  }
  const weft_enrolment enrolment = pod.enrolled ? WEFT_ENROLLED : pod.leaving ? WEFT_LEAVING : WEFT_WIRED;
  const weft_pod value{pod.slot, pod.host_ifindex, enrolment, static_cast<std::uint32_t>(pod.inbound)};
  for (const IpAddress& address : pod.addresses) {
    if (auto put = impl_->pods.put(to_key(address), value); !put) return put;
  }
  if (pod.host_ifindex != 0) {
    if (auto put = impl_->interfaces.put(pod.host_ifindex, value); !put) return put;
  }
  if (auto put = impl_->flags.put(pod.slot, pod.dns ? WEFT_FLAG_DNS : 0); !put) return put;
  return impl_->forget(pod.slot, pod.addresses, pod.host_ifindex);
}

namespace {

/// Empties a row of a SOCKMAP.
Result<void> empty_sockets(const Map<std::uint32_t, std::uint64_t>& map, std::uint32_t first, std::uint32_t count) {
  for (std::uint32_t index = first; index < first + count; ++index) {
    // EINVAL is what a SOCKMAP says of an empty entry.
    if (bpf_map_delete_elem(map.fd, &index) != 0 && errno != EINVAL && errno != ENOENT) {
      return fail_errno(errno, "empty the entry " + std::to_string(index) + " of the map " + map.name);
    }
  }
  return {};
}

}  // namespace

Result<void> Capture::remove_pod(std::uint32_t slot) {
  const std::scoped_lock lock(impl_->mutex);
  if (auto ok = impl_->check_slot(slot); !ok) return ok;
  if (auto done = impl_->forget(slot, {}, 0); !done) return done;
  if (auto put = impl_->flags.put(slot, 0); !put) return put;
  auto emptied = empty_sockets(impl_->listeners, slot * WEFT_LISTENERS_PER_POD, WEFT_LISTENERS_PER_POD);
  if (!emptied) return emptied;
  return empty_sockets(impl_->dns_sockets, slot * WEFT_DNS_SOCKETS_PER_POD, WEFT_DNS_SOCKETS_PER_POD);
}

Result<std::vector<Pod>> Capture::pods() const {
  const std::scoped_lock lock(impl_->mutex);
  auto keys = impl_->pods.keys();
  if (!keys) return Failure(keys.error());
  std::map<std::uint32_t, Pod> by_slot;
  for (const weft_addr& key : *keys) {
    auto value = impl_->pods.get(key);
    if (!value) return Failure(value.error());
    if (!*value) continue;
    Pod& pod = by_slot[(*value)->slot];
    pod.slot = (*value)->slot;
    pod.host_ifindex = (*value)->host_ifindex;
    pod.enrolled = (*value)->enrolled == WEFT_ENROLLED;
    pod.leaving = (*value)->enrolled == WEFT_LEAVING;
    pod.inbound = static_cast<InboundPlaintext>((*value)->inbound);
    pod.addresses.push_back(to_address(key));
  }
  std::vector<Pod> out;
  for (auto& [slot, pod] : by_slot) {
    std::ranges::sort(pod.addresses);
    auto flags = impl_->flags.get(slot);
    if (!flags) return Failure(flags.error());
    pod.dns = (flags->value_or(0) & WEFT_FLAG_DNS) != 0;
    out.push_back(std::move(pod));
  }
  return out;
}

Result<void> Capture::Impl::check_socket(std::uint32_t slot, std::uint32_t worker, int fd) const {
  if (auto ok = check_slot(slot); !ok) return ok;
  if (worker >= workers) {
    return fail(ErrorCode::kInvalid, "socket of worker " + std::to_string(worker) + " of " + std::to_string(workers));
  }
  int shared = 0;
  socklen_t length = sizeof shared;
  if (::getsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &shared, &length) != 0) return fail_errno(errno, "look at a socket");
  if (shared == 0) return {};
  return fail(ErrorCode::kInvalid, "a socket with SO_REUSEPORT: a process of the pod could join it and take its part");
}

Result<void> Capture::set_listener(std::uint32_t slot, Listener kind, std::uint32_t worker, int fd) {
  if (auto ok = impl_->check_socket(slot, worker, fd); !ok) return ok;
  if (auto tagged = tag_socket(fd); !tagged) return tagged;
  const std::scoped_lock lock(impl_->mutex);
  const std::uint32_t index =
      (slot * WEFT_LISTENER_KINDS + static_cast<std::uint32_t>(kind)) * WEFT_MAX_WORKERS + worker;
  return impl_->listeners.put(index, static_cast<std::uint64_t>(fd));
}

Result<void> Capture::set_dns_socket(std::uint32_t slot, IpFamily family, std::uint32_t worker, int fd) {
  if (auto ok = impl_->check_socket(slot, worker, fd); !ok) return ok;
  const std::scoped_lock lock(impl_->mutex);
  const std::uint32_t index =
      (slot * WEFT_DNS_FAMILIES + static_cast<std::uint32_t>(family)) * WEFT_MAX_WORKERS + worker;
  return impl_->dns_sockets.put(index, static_cast<std::uint64_t>(fd));
}

Result<void> Capture::refresh_attached() const { return refresh_all(impl_->root); }

Result<void> Capture::use_workers() {
  const std::scoped_lock lock(impl_->mutex);
  return impl_->change_settings([this](weft_settings& s) { s.workers = impl_->workers; });
}

Result<std::uint32_t> Capture::listening(std::uint32_t slot) const {
  if (auto ok = impl_->check_slot(slot); !ok) return Failure(ok.error());
  std::uint32_t found = 0;
  for (std::uint32_t kind = 0; kind < WEFT_LISTENER_KINDS; ++kind) {
    for (std::uint32_t worker = 0; worker < impl_->workers; ++worker) {
      // Asked from here a SOCKMAP gives the socket's cookie.
      auto socket = impl_->listeners.get((slot * WEFT_LISTENER_KINDS + kind) * WEFT_MAX_WORKERS + worker);
      if (!socket) return Failure(socket.error());
      if (*socket) ++found;
    }
  }
  return found;
}

Result<void> Capture::tag_socket(int fd) const { return impl_->tags.put(fd, 1); }

Result<void> Capture::set_destinations(const AddressList& wanted) {
  const std::scoped_lock lock(impl_->mutex);
  const auto plan = impl_->destinations.plan(wanted);
  if (!plan) return Failure(plan.error());
  return impl_->set_destinations(*plan, wanted);
}

Result<void> Capture::set_destinations(const AddressList& present, const AddressList& wanted) {
  const std::scoped_lock lock(impl_->mutex);
  return impl_->set_destinations(impl_->destinations.plan(present, wanted), wanted);
}

Result<void> Capture::Impl::set_destinations(const AddressMaps::Plan& plan, const AddressList& wanted) const {
  if (auto done = change_destinations(plan); !done) return done;
  if (plan.fits()) return {};
  return fail(ErrorCode::kUnavailable, "write " + std::to_string(wanted.addresses.size()) + " mesh addresses and " +
                                           std::to_string(wanted.cidrs.size()) +
                                           " ranges: " + std::to_string(destinations.addresses.capacity()) +
                                           " of each fit, so every TCP connection of mesh pods is captured (raise the "
                                           "size)");
}

/// Where what is new does not fit beside what was, everything counts as mesh meanwhile.
Result<void> Capture::Impl::change_destinations(const AddressMaps::Plan& plan) const {
  const auto overflow = [this](std::uint32_t on) {
    return change_settings([on](weft_settings& s) { s.overflow = on; });
  };
  if (!plan.fits_with_old()) {
    if (auto done = overflow(1); !done) return done;
  }
  if (auto done = destinations.replace(plan); !done) return done;
  return plan.fits() ? overflow(0) : Result<void>();
}

Result<void> Capture::set_registry(const AddressList& wanted) {
  if (!impl_->registry_only) return {};
  const std::scoped_lock lock(impl_->mutex);
  const auto plan = impl_->registry.plan(wanted);
  if (!plan) return Failure(plan.error());
  if (auto done = impl_->registry.replace(*plan); !done) return done;
  if (plan->fits()) return {};
  return fail(ErrorCode::kUnavailable, "write the registry of " + std::to_string(wanted.addresses.size()) +
                                           " addresses and " + std::to_string(wanted.cidrs.size()) +
                                           " ranges: " + std::to_string(impl_->registry.addresses.capacity()) +
                                           " of each fit (raise the size)");
}

Result<void> Capture::set_capture_all(bool capture_all) {
  const std::scoped_lock lock(impl_->mutex);
  return impl_->change_settings([capture_all](weft_settings& s) { s.capture_all = capture_all ? 1 : 0; });
}

Result<std::vector<Counter>> Capture::counters() const {
  return read_counters(bpf_map__fd(impl_->skeleton->maps.counters));
}

Result<PodTraffic> Capture::traffic(std::uint32_t slot) const {
  if (auto ok = impl_->check_slot(slot); !ok) return Failure(ok.error());
  return read_traffic(bpf_map__fd(impl_->skeleton->maps.pod_counters), slot);
}

Result<std::unique_ptr<EventRing>> Capture::open_events() const {
  Fd events(::fcntl(bpf_map__fd(impl_->skeleton->maps.events), F_DUPFD_CLOEXEC, 0));
  Fd state(::fcntl(bpf_map__fd(impl_->skeleton->maps.event_state), F_DUPFD_CLOEXEC, 0));
  if (!events || !state) return fail_errno(errno, "duplicate the descriptors of the events");
  return EventRing::open(std::move(events), std::move(state));
}

}  // namespace weft::bpf
