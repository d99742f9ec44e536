// SPDX-License-Identifier: Apache-2.0
#include "agent/control/xds_source.h"

#include <grpc/grpc.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <exception>
#include <random>
#include <system_error>
#include <utility>

#include "agent/istiod_channel.h"
#include "tunnel/base/log.h"
#include "xds.grpc.pb.h"

namespace weft::control {
namespace {

namespace wire = envoy::service::discovery::v3;
using agent::status_text;

constexpr std::size_t kReasonsShown = 3;
/// A snapshot of a large mesh takes a core for a while: after each one a rest of three times as long, up to this.
constexpr int kRestFactor = 3;
constexpr milliseconds kLongestRest{500};

/// As istiod expects a node data plane: ztunnel~IP~POD.NAMESPACE~DOMAIN.
XdsCache::Node wire_node(const XdsNode& node, const std::string& cluster_id) {
  XdsCache::Node out;
  out.set_id("ztunnel~" + node.instance_ip + "~" + node.pod_name + "." + node.pod_namespace + "~" + node.pod_namespace +
             ".svc.cluster.local");
  auto& fields = *out.mutable_metadata()->mutable_fields();
  for (const auto& [key, value] : node.metadata) fields[key].set_string_value(value);
  for (const auto& [key, value] : {std::pair{"NAME", &node.pod_name},
                                   {"NAMESPACE", &node.pod_namespace},
                                   {"INSTANCE_IPS", &node.instance_ip},
                                   {"NODE_NAME", &node.node_name},
                                   {"CLUSTER_ID", &cluster_id}}) {
    fields[key].set_string_value(*value);
  }
  return out;
}

grpc::ChannelArguments arguments(const XdsOptions& options) {
  grpc::ChannelArguments out;
  out.SetMaxReceiveMessageSize(static_cast<int>(options.message_max));
  out.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, static_cast<int>(options.keepalive.count()));
  out.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  // A mesh where nothing changes is quiet for hours.
  out.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // gRPC gives each attempt to connect at least this long.
  out.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, static_cast<int>(options.connect_timeout.count()));
  return out;
}

/// Between looks at whether istiod answers what it was asked.
constexpr milliseconds kDemandInterval{1'000};

double random_half_to_one() {
  thread_local std::minstd_rand generator{std::random_device{}()};
  return std::uniform_real_distribution<double>(0.5, 1.0)(generator);
}

}  // namespace

XdsSource::XdsSource(XdsOptions options, std::shared_ptr<XdsMetrics> metrics)
    : options_(std::move(options)),
      metrics_(std::move(metrics)),
      cache_(wire_node(options_.node, options_.istiod.cluster_id),
             options_.demand ? XdsCache::Wanted::kOnDemand : XdsCache::Wanted::kEverything) {
  if (!options_.demand) return;
  options_.demand->on_asked([this] {
    {
      const std::scoped_lock lock(write_mutex_);
      asked_ = true;
    }
    write_wake_.notify_all();
  });
}

XdsSource::~XdsSource() { stop(); }

Result<void> XdsSource::start(Deliver deliver) {
  deliver_ = std::move(deliver);
  try {
    making_ = std::thread([this] { make_snapshots(); });
    writing_thread_ = std::thread([this] { write(); });
    talking_ = std::thread([this] { talk(); });
  } catch (const std::system_error& e) {
    return fail_errno(e.code().value(), "start the threads that talk to istiod");
  }
  return {};
}

void XdsSource::stop() {
  if (options_.demand) options_.demand->on_asked(nullptr);
  {
    const std::scoped_lock lock(mutex_);
    stopping_ = true;
    if (call_ != nullptr) call_->TryCancel();
  }
  wake_.notify_all();
  {
    const std::scoped_lock lock(write_mutex_);
    no_more_writing_ = true;
  }
  write_wake_.notify_all();
  for (auto* thread : {&talking_, &writing_thread_, &making_}) {
    if (thread->joinable()) thread->join();
  }
}

void XdsSource::talk() {
  milliseconds wait = options_.backoff_min;
  for (;;) {
    if (talk_once()) wait = options_.backoff_min;
    std::unique_lock lock(mutex_);
    // Spread, so that the nodes of a mesh do not come back all at once.
    const auto spread = std::chrono::duration<double, std::milli>(wait) * random_half_to_one();
    if (wake_.wait_for(lock, spread, [this] { return stopping_; })) return;
    wait = std::min(wait * 2, options_.backoff_max);
  }
}

bool XdsSource::talk_once() {
  const auto began = Clock::real().now();
  auto channel = agent::connect_istiod(options_.istiod, arguments(options_));
  if (!channel) return no_stream(channel.error().message());
  grpc::ClientContext call;
  if (auto known = agent::authorize(options_.istiod, call); !known) return no_stream(known.error().message());
  std::vector<XdsCache::Request> first;
  {
    const std::scoped_lock lock(mutex_);
    if (stopping_) return false;
    call_ = &call;
    first = cache_.open();
  }
  const auto stub = wire::AggregatedDiscoveryService::NewStub(*channel);
  const auto stream = stub->DeltaAggregatedResources(&call);
  // Where the stream is broken, that shows when it is read from.
  for (const auto& request : first) stream->Write(request);
  first.clear();
  {
    const std::scoped_lock lock(write_mutex_);
    stream_ = stream.get();
  }
  bool answered = false;
  for (;;) {
    XdsCache::Response response;
    if (!stream->Read(&response)) break;
    answered = true;
    send(take(response));
  }
  close_stream();
  const grpc::Status status = stream->Finish();
  return ended(status, answered) && Clock::real().now() - began > options_.backoff_max;
}

void XdsSource::send(XdsCache::Request request) {
  {
    const std::scoped_lock lock(write_mutex_);
    replies_.push_back(std::move(request));
  }
  write_wake_.notify_all();
}

void XdsSource::close_stream() {
  if (options_.demand) options_.demand->disconnected();
  std::unique_lock lock(write_mutex_);
  stream_ = nullptr;
  replies_.clear();
  write_wake_.wait(lock, [this] { return !writing_; });
}

void XdsSource::write() {
  const auto is_work = [this] { return no_more_writing_ || (stream_ != nullptr && (asked_ || !replies_.empty())); };
  std::unique_lock lock(write_mutex_);
  for (;;) {
    if (!options_.demand) {
      write_wake_.wait(lock, is_work);
    } else {
      write_wake_.wait_for(lock, kDemandInterval, is_work);
    }
    if (no_more_writing_) return;
    auto* const stream = stream_;
    std::vector<XdsCache::Request> requests(std::move_iterator(replies_.begin()), std::move_iterator(replies_.end()));
    replies_.clear();
    asked_ = false;
    writing_ = stream != nullptr;
    lock.unlock();
    if (options_.demand && stream != nullptr) {
      const auto names = options_.demand->take();
      const std::scoped_lock cache_lock(mutex_);
      std::ranges::move(cache_.ask(names), std::back_inserter(requests));
    }
    for (const auto& request : requests) stream->Write(request);
    lock.lock();
    writing_ = false;
    write_wake_.notify_all();
  }
}

/// On demand, whoever waits for an answer that istiod does not give has to look at the last one again: the snapshot is
/// made once more.
void XdsSource::await_changes(std::unique_lock<std::mutex>& lock) {
  const auto is_work = [this] { return stopping_ || (dirty_ && cache_.complete()); };
  if (!options_.demand) return wake_.wait(lock, is_work);
  while (!wake_.wait_for(lock, kDemandInterval, is_work)) {
    lock.unlock();
    const bool overdue = options_.demand->is_overdue();
    lock.lock();
    dirty_ |= overdue;
  }
}

bool XdsSource::no_stream(const std::string& why) {
  metrics_->terminated("ConnectionError");
  set_problem(why);
  return false;
}

/// True where istiod had answered.
bool XdsSource::ended(const grpc::Status& status, bool answered) {
  {
    const std::scoped_lock lock(mutex_);
    call_ = nullptr;
    connected_ = false;
    if (stopping_) return false;
  }
  metrics_->terminated(!answered ? "ConnectionError" : status.ok() ? "Complete" : "Error");
  set_problem(status.ok() ? "istiod ended the stream" : status_text(status));
  return answered;
}

/// Told once, as long as it stays the same.
void XdsSource::set_problem(const std::string& why) {
  const std::scoped_lock lock(mutex_);
  if (why != problem_) {
    log::warn("istiod is away, what it said last stays in force address={} error={}", options_.istiod.address,
              log::quote(why));
  }
  problem_ = why;
}

XdsCache::Request XdsSource::take(const XdsCache::Response& response) {
  metrics_->message(response.type_url(), response.ByteSizeLong());
  XdsCache::Taken taken;
  bool back = false;
  std::uint64_t as_of = 0;
  {
    const std::scoped_lock lock(mutex_);
    taken = cache_.take(response);
    back = !std::exchange(connected_, true);
    problem_.clear();
    istiod_version_ = response.system_version_info();
    ++responses_;
    if (taken.changed) last_change_ = responses_;
    as_of = last_change_;
  }
  bool awaited = false;
  if (options_.demand && back) options_.demand->connected();
  if (options_.demand && response.type_url() == XdsCache::kAddressUrl) {
    if (taken.forgotten) options_.demand->forget();
    options_.demand->unreadable(taken.unreadable);
    // Whoever waits for it finds it answered when the snapshot comes.
    awaited = options_.demand->answered(taken.answered, as_of);
  }
  {
    const std::scoped_lock lock(mutex_);
    dirty_ |= taken.changed || awaited;
  }
  wake_.notify_all();
  if (back) {
    log::info("connected to istiod address={}", options_.istiod.address);
    if (options_.connected) options_.connected();
  }
  if (taken.refused > 0) {
    log::error("resources refused, their last versions stay in force url={} count={} errors={}", response.type_url(),
               taken.refused, log::quote(taken.reply.error_detail().message()));
  }
  log::debug("istiod said url={} resources={} removed={} refused={}", response.type_url(), response.resources_size(),
             response.removed_resources_size(), taken.refused);
  return std::move(taken.reply);
}

void XdsSource::make_snapshots() {
  std::unique_lock lock(mutex_);
  for (;;) {
    await_changes(lock);
    if (!stopping_) await_policies(lock);
    if (stopping_) return;
    dirty_ = false;
    auto change = cache_.changes();
    change.told = responses_;
    lock.unlock();
    const auto began = Clock::real().now();
    make_snapshot(std::move(change));
    const auto took = Clock::real().now() - began;
    lock.lock();
    if (wake_.wait_for(lock, std::min<std::chrono::nanoseconds>(took * kRestFactor, kLongestRest),
                       [this] { return stopping_; }))
      return;
    // By now nobody else has it, so that no worker spends the time that it takes to free a large one.
    lock.unlock();
    replaced_.reset();
    lock.lock();
  }
}

/// istiod sends workloads before the policies that they have got. In between they deny everything: without this, each
/// new policy cuts, for some milliseconds, those whom it is to allow.
void XdsSource::await_policies(std::unique_lock<std::mutex>& lock) {
  const auto& awaited = cache_.awaited();
  if (wake_.wait_for(lock, options_.policy_wait, [&] { return stopping_ || awaited.empty(); })) return;
  log::warn("policies that workloads name have not come, these workloads deny until they do count={} first={}",
            awaited.size(), log::quote(*awaited.begin()));
  cache_.give_up_awaiting();
}

void XdsSource::make_snapshot(state::StateChange change) {
  auto state = delivered_->with(std::move(change));
  auto conflicts = state->conflicts();
  for (const auto& conflict : conflicts) {
    if (std::ranges::find(conflicts_, conflict) == conflicts_.end())
      log::warn("istiod describes an address twice conflict={}", log::quote(conflict));
  }
  conflicts_ = std::move(conflicts);
  std::string counts = counts_of(*state);
  replaced_ = std::exchange(delivered_, state);
  deliver_(std::move(state));
  const std::scoped_lock lock(mutex_);
  if (in_force_.empty()) {
    log::info("istiod's configuration in force {}", counts);
  } else {
    log::debug("istiod's configuration in force {}", counts);
  }
  in_force_ = std::move(counts);
  ++snapshots_;
}

std::string XdsSource::status() const {
  const std::scoped_lock lock(mutex_);
  std::string text = "istiod " + options_.istiod.address + ": ";
  text += connected_ ? "connected" : "not connected: " + problem_;
  text += "; " + (in_force_.empty() ? std::string("nothing") : in_force_) + " in force";
  if (!istiod_version_.empty()) text += ", version " + excerpt(istiod_version_);
  text += "; " + std::to_string(responses_) + " responses, " + std::to_string(snapshots_) + " snapshots";
  const auto& refused = cache_.refused();
  if (!refused.empty()) text += "; " + std::to_string(refused.size()) + " resources refused";
  std::size_t shown = 0;
  for (const auto& [name, why] : refused) {
    if (++shown > kReasonsShown) break;
    text += (shown == 1 ? ": " : ", ") + excerpt(name, 300) + ": " + why;
  }
  return text;
}

}  // namespace weft::control
