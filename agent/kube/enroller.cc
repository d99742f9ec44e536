// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/enroller.h"

#include <algorithm>
#include <set>

#include "tunnel/base/log.h"
#include "tunnel/base/rfc3339.h"

namespace weft::kube {
namespace {

/// Of one reason there is one Event; a write that failed is tried again after this.
constexpr milliseconds kEventRetry{30'000};

Resource pods_of(const std::string& node) {
  return {.name = "pods",
          .path = "/api/v1/pods",
          .selector = "fieldSelector=" + escape("spec.nodeName=" + node),
          .metadata_only = false};
}

Resource namespaces() {
  return {.name = "namespaces", .path = "/api/v1/namespaces", .selector = {}, .metadata_only = true};
}

std::string path_of(const std::string& namespace_name) { return "/api/v1/namespaces/" + escape(namespace_name); }

std::string path_of(const std::string& namespace_name, const std::string& pod) {
  return path_of(namespace_name) + "/pods/" + escape(pod);
}

/// A pod has an Event of its own for each reason that there was.
Json event_of(const Pod& pod, const std::string& reason, const std::string& node) {
  const std::string now = rfc3339(Clock::real().wall_now());
  return {{"apiVersion", "v1"},
          {"kind", "Event"},
          {"metadata", {{"generateName", pod.meta.name + ".weft-"}, {"namespace", pod.namespace_name}}},
          {"involvedObject",
           {{"apiVersion", "v1"},
            {"kind", "Pod"},
            {"namespace", pod.namespace_name},
            {"name", pod.meta.name},
            {"uid", pod.meta.uid}}},
          {"type", "Warning"},
          {"reason", "NotCaptured"},
          {"message", "the pod is selected for the mesh and not captured: " + reason},
          {"source", {{"component", "weft-agent"}, {"host", node}}},
          {"reportingComponent", "weft-agent"},
          {"reportingInstance", node},
          {"firstTimestamp", now},
          {"lastTimestamp", now},
          {"count", 1}};
}

}  // namespace

Enroller::Enroller(EnrollerConfig config)
    : config_(std::move(config)),
      directory_(config_.excluded_namespaces, [this] { changed(); }),
      pods_watch_(config_.api, pods_of(config_.node), directory_.pods_receiver(), config_.watch),
      namespaces_watch_(config_.api, namespaces(), directory_.namespaces_receiver(), config_.watch),
      client_(config_.api) {}

Enroller::~Enroller() { stop(); }

void Enroller::start(EnrollerHooks hooks) {
  hooks_ = std::move(hooks);
  pods_watch_.start();
  namespaces_watch_.start();
  thread_ = std::thread([this] { run(); });
}

void Enroller::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    for (const auto& client : clients_) client->stop();
  }
  client_.stop();
  wake_.notify_all();
  pods_watch_.stop();
  namespaces_watch_.stop();
  if (thread_.joinable()) thread_.join();
}

void Enroller::changed() {
  {
    const std::lock_guard lock(mutex_);
    changed_ = true;
  }
  wake_.notify_all();
}

Selection Enroller::select(const std::string& namespace_name, const std::string& name, const std::string& uid) const {
  using Kind = Selection::Kind;
  if (directory_.excludes(namespace_name)) return {Kind::kNotSelected, "namespace " + namespace_name + " is excluded"};
  const auto pod = directory_.pod(namespace_name, name);
  if (!pod || !pod->is(uid)) return {Kind::kUnsaid, "the Kubernetes API has not told of the pod yet"};
  const auto ruling = directory_.ruling(*pod);
  if (!ruling) return {Kind::kUnsaid, "the Kubernetes API has not told of the pod's namespace yet"};
  if (ruling->enrolled) return {Kind::kSelected, ruling->reason};
  // One that has finished is called by nobody, and its annotation is history.
  if (pod->redirected() && !pod->finished())
    return {Kind::kLeaving, ruling->reason + "; it leaves when its annotation " + kRedirection + " is away"};
  return {Kind::kNotSelected, ruling->reason};
}

std::shared_ptr<ApiClient> Enroller::take_client() {
  const std::lock_guard lock(mutex_);
  ++counts_.admissions_asked;
  if (!free_.empty()) {
    auto client = std::move(free_.back());
    free_.pop_back();
    return client;
  }
  ApiConfig quick = config_.api;
  quick.request_timeout = config_.admission_timeout / 2;
  quick.connect_timeout = std::min(quick.connect_timeout, quick.request_timeout);
  auto client = std::make_shared<ApiClient>(std::move(quick));
  clients_.push_back(client);
  if (stopping_) client->stop();
  return client;
}

void Enroller::give_back(std::shared_ptr<ApiClient> client) {
  const std::lock_guard lock(mutex_);
  free_.push_back(std::move(client));
}

Result<void> Enroller::ask_for_pod(ApiClient& client, const cni::Request& request) {
  const auto known = directory_.pod(request.pod_namespace, request.pod_name);
  if (!known || !known->is(request.pod_uid)) {
    auto answer = client.ask({.path = path_of(request.pod_namespace, request.pod_name)});
    if (!answer) return Failure(answer.error());
    auto pod = parse_pod(*answer);
    if (!pod) return Failure(pod.error());
    if (!pod->is(request.pod_uid)) {
      return fail(ErrorCode::kNotFound, "the API's pod of that name has UID " + pod->meta.uid + ", the runtime's " +
                                            request.pod_uid + " (was it deleted?)");
    }
    directory_.put(std::move(*pod));
  }
  if (directory_.namespace_named(request.pod_namespace)) return {};
  auto answer = client.ask({.path = path_of(request.pod_namespace)});
  if (!answer) return Failure(answer.error());
  auto of = parse_namespace(*answer);
  if (!of) return Failure(of.error());
  directory_.put(std::move(*of));
  return {};
}

Result<void> Enroller::admit(cni::Request& request) {
  if (directory_.excludes(request.pod_namespace)) return {};
  if (select(request.pod_namespace, request.pod_name, request.pod_uid).kind == Selection::Kind::kUnsaid) {
    auto client = take_client();
    const auto asked = ask_for_pod(*client, request);
    give_back(std::move(client));
    if (!asked) {
      const std::lock_guard lock(mutex_);
      ++counts_.admissions_failed;
      return fail(ErrorCode::kUnavailable,
                  "pod " + request.pod_namespace + "/" + request.pod_name +
                      " could be the mesh's, and the Kubernetes API does not say: " + asked.error().message());
    }
  }
  if (const auto pod = directory_.pod(request.pod_namespace, request.pod_name)) {
    request.annotations = pod->annotations;
    for (const auto& wish : unmet_wishes(*pod)) log::warn("annotation of pod {} {}", pod->key(), log::quote(wish));
  }
  return {};
}

std::string Enroller::not_synced() const {
  std::string text;
  for (const Watch* watch : {&pods_watch_, &namespaces_watch_}) {
    const auto status = watch->status();
    if (status.synced) continue;
    text += (text.empty() ? "" : "; ") + watch->resource().name + " not listed yet" +
            (status.error.empty() ? "" : ": " + status.error);
  }
  return text;
}

std::vector<Uncaptured> Enroller::uncaptured() const {
  const std::lock_guard lock(mutex_);
  return uncaptured_;
}

Enroller::Counts Enroller::counts() const {
  Counts counts;
  {
    const std::lock_guard lock(mutex_);
    counts = counts_;
  }
  for (const Watch* watch : {&pods_watch_, &namespaces_watch_})
    counts.watches.emplace_back(watch->resource().name, watch->status());
  return counts;
}

void Enroller::run() {
  SteadyTime next = Clock::real().now();
  for (bool synced = false;;) {
    bool told = false;
    {
      std::unique_lock lock(mutex_);
      wake_.wait_until(lock, next, [this] { return stopping_ || changed_; });
      if (stopping_) return;
      told = std::exchange(changed_, false);
    }
    if (told) hooks_.reselect();
    next = Clock::real().now() + config_.look_interval;
    if (!not_synced().empty()) continue;
    if (!std::exchange(synced, true)) hooks_.synced();
    next = look();
  }
}

/// Compares what the API says with what is captured, pod by pod; gives when it is to be done again.
SteadyTime Enroller::look() {
  std::map<std::string, WiredState> wired;
  for (auto& state : hooks_.wired()) {
    // Another interface of a pod: it is captured where all of them are.
    auto [known, is_new] = wired.try_emplace(state.namespace_name + "/" + state.name, state);
    if (!is_new && !state.captured) known->second = std::move(state);
  }
  Round round;
  round.now = Clock::real().now();
  round.next = round.now + config_.look_interval;
  std::set<std::string> present;
  for (const auto& pod : directory_.pods()) {
    const auto ruling = directory_.ruling(pod);
    if (!ruling) continue;
    present.insert(pod.meta.uid);
    const auto found = wired.find(pod.key());
    look_at(pod, found != wired.end() && pod.is(found->second.uid) ? &found->second : nullptr, *ruling, round);
    const std::lock_guard lock(mutex_);
    if (stopping_) return round.next;
  }
  std::erase_if(due_, [&](const auto& entry) { return !present.contains(entry.first); });
  std::erase_if(missed_, [&](const auto& entry) { return !present.contains(entry.first); });
  const std::lock_guard lock(mutex_);
  uncaptured_ = std::move(round.uncaptured);
  counts_.annotations_due = round.annotations_due;
  return round.next;
}

void Enroller::look_at(const Pod& pod, const WiredState* wired, const Ruling& ruling, Round& round) {
  settle_annotation(pod, wired, ruling, round);
  std::string reason;
  if (ruling.enrolled && wired != nullptr && !wired->captured) reason = wired->problem;
  // Before it has an address it is in the middle of its ADD, or before it.
  if (ruling.enrolled && wired == nullptr && pod.has_address) {
    reason = hooks_.not_wired(pod.namespace_name, pod.meta.name);
    if (reason.empty()) reason = "its network was made without weft-cni, or before it";
  }
  settle_missed(pod, reason, round);
}

/// A pod that is not wired here keeps its annotation: it is somebody else's.
void Enroller::settle_annotation(const Pod& pod, const WiredState* wired, const Ruling& ruling, Round& round) {
  const bool enable = ruling.enrolled && wired != nullptr && wired->captured && !pod.redirected();
  const bool disable = !ruling.enrolled && wired != nullptr && pod.redirected();
  if ((!enable && !disable) || pod.finished()) {
    due_.erase(pod.meta.uid);
    return;
  }
  ++round.annotations_due;
  const auto due = due_.try_emplace(pod.meta.uid, Due{round.now, config_.first_retry, {}}).first;
  if (due->second.next_try <= round.now && !round.away) {
    // In the middle of its ADD: soon it will be.
    const bool early = enable && !hooks_.not_in_place(*wired).empty();
    if (!early) return annotate(pod, enable, round);
    due->second.next_try = round.now + config_.place_interval;
  }
  if (due->second.next_try > round.now) round.next = std::min(round.next, due->second.next_try);
}

void Enroller::annotate(const Pod& pod, bool enabled, Round& round) {
  const Json value = enabled ? Json(kRedirectionEnabled) : Json(nullptr);
  // The UID, so that another pod of that name is not what is written to.
  const Json patch = {{"metadata", {{"uid", pod.meta.uid}, {"annotations", {{kRedirection, value}}}}}};
  auto answer = client_.ask({.method = "PATCH",
                             .path = path_of(pod.namespace_name, pod.meta.name) + "/status",
                             .body = cni::to_text(patch),
                             .content_type = "application/strategic-merge-patch+json"});
  if (!answer && answer.error().code == ErrorCode::kNotFound) {
    due_.erase(pod.meta.uid);
    return directory_.remove_pod(pod.key(), pod.meta.uid);
  }
  auto written = answer ? parse_pod(*answer) : Result<Pod>(Failure(answer.error()));
  if (!written) {
    const ErrorCode code = written.error().code;
    round.away = code == ErrorCode::kUnavailable || code == ErrorCode::kTimeout;
    annotation_failed(pod, enabled, written.error());
    round.next = std::min(round.next, due_[pod.meta.uid].next_try);
    return;
  }
  due_.erase(pod.meta.uid);
  log::info("annotation {} {} pod={}", kRedirection, enabled ? "set" : "taken away", pod.key());
  {
    const std::lock_guard lock(mutex_);
    ++counts_.annotations_written;
  }
  directory_.put(std::move(*written));
}

void Enroller::annotation_failed(const Pod& pod, bool enabled, const Error& error) {
  const std::lock_guard lock(mutex_);
  if (stopping_) return;
  ++counts_.annotation_errors;
  Due& due = due_[pod.meta.uid];
  due.next_try = Clock::real().now() + due.retry;
  due.retry = std::min(due.retry * 2, config_.longest_retry);
  const std::string text = error.message();
  if (text == due.error) return;
  log::warn("annotation {} not {} pod={} error={}", kRedirection,
            enabled ? "set, so the mesh calls the pod in plaintext" : "taken away, so the pod stays captured",
            pod.key(), log::quote(text));
  due.error = text;
}

void Enroller::settle_missed(const Pod& pod, const std::string& reason, Round& round) {
  if (reason.empty()) {
    missed_.erase(pod.meta.uid);
    return;
  }
  Missed& missed = missed_.try_emplace(pod.meta.uid, Missed{round.now, {}, {}, round.now}).first->second;
  missed.reason = reason;
  round.uncaptured.push_back({pod.namespace_name, pod.meta.name, pod.meta.uid, reason});
  const bool due = round.now - missed.since >= config_.grace && missed.told != reason && missed.next_try <= round.now;
  if (due && !round.away) tell_event(pod, missed);
}

void Enroller::tell_event(const Pod& pod, Missed& missed) {
  log::warn("pod is selected for the mesh and not captured pod={} reason={}", pod.key(), log::quote(missed.reason));
  auto answer = client_.ask({.method = "POST",
                             .path = path_of(pod.namespace_name) + "/events",
                             .body = cni::to_text(event_of(pod, missed.reason, config_.node))});
  const std::lock_guard lock(mutex_);
  missed.next_try = Clock::real().now() + kEventRetry;
  if (answer) {
    ++counts_.events_written;
    missed.told = missed.reason;
    return;
  }
  ++counts_.event_errors;
  log::warn("Event not written pod={} error={}", pod.key(), log::quote(answer.error().message()));
}

}  // namespace weft::kube
