// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/watch.h"

#include <algorithm>

#include "tunnel/base/log.h"

namespace weft::kube {
namespace {

/// Beyond the time that was asked for, before a watch that does not end counts as dead.
constexpr milliseconds kSessionSlack{15'000};
/// Of what the API asks for with Retry-After.
constexpr seconds kLongestRetryAfter{60};
/// A watch that ends sooner than this, without a word, is a failure: otherwise it would be begun again in a loop.
constexpr milliseconds kShortestSession{1'000};
constexpr long kGone = 410;

std::string version_of(const Json& object) {
  const Json* metadata = cni::member(object, "metadata");
  return metadata == nullptr ? "" : cni::text_member(*metadata, "resourceVersion");
}

long code_of(const Json& status) {
  const Json* code = cni::member(status, "code");
  return code != nullptr && code->is_number_integer() ? code->get<long>() : 0;
}

}  // namespace

Watch::Watch(ApiConfig api, Resource resource, WatchReceiver& receiver, WatchConfig config)
    : resource_(std::move(resource)),
      config_(config),
      receiver_(receiver),
      client_(std::move(api)),
      retry_(config.first_retry),
      random_(std::random_device{}()) {}

Watch::~Watch() { stop(); }

void Watch::start() {
  thread_ = std::thread([this] { run(); });
}

void Watch::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  client_.stop();
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Watch::Status Watch::status() const {
  const std::lock_guard lock(mutex_);
  return status_;
}

void Watch::run() {
  for (;;) {
    if (version_.empty()) {
      if (auto listed = list(); !listed) {
        failed(listed.error());
        if (!wait()) return;
        continue;
      }
      well();
    }
    auto next = follow();
    if (!next) {
      failed(next.error());
      if (!wait()) return;
    } else if (*next == Next::kList) {
      version_.clear();
    }
    const std::lock_guard lock(mutex_);
    if (stopping_) return;
  }
}

void Watch::well() {
  retry_ = config_.first_retry;
  const std::lock_guard lock(mutex_);
  if (!status_.error.empty()) log::info("Kubernetes API answers again resource={}", resource_.name);
  status_.error.clear();
  status_.following = true;
}

void Watch::failed(const Error& error) {
  const std::lock_guard lock(mutex_);
  if (stopping_) return;
  ++status_.errors;
  status_.following = false;
  // Once for each reason; the metric counts the rest.
  if (const std::string text = error.message(); text != status_.error) {
    log::warn("Kubernetes API: {} cannot be followed error={}", resource_.name, log::quote(text));
    status_.error = text;
  }
}

bool Watch::wait() {
  std::uniform_int_distribution<long> jitter(retry_.count() / 2, retry_.count());
  milliseconds pause{jitter(random_)};
  if (const auto asked = std::exchange(retry_after_, std::nullopt))
    pause = std::max<milliseconds>(pause, std::min(*asked, kLongestRetryAfter));
  retry_ = std::min(retry_ * 2, config_.longest_retry);
  std::unique_lock lock(mutex_);
  return !wake_.wait_for(lock, pause, [this] { return stopping_; });
}

std::string Watch::accept(const char* kind) const {
  if (!resource_.metadata_only) return "application/json";
  return std::string("application/json;as=") + kind + ";g=meta.k8s.io;v=v1,application/json";
}

std::string Watch::query(const std::string& more) const {
  return resource_.path + "?" + (resource_.selector.empty() ? "" : resource_.selector + "&") + more;
}

Result<Json> Watch::list_page(const std::string& continue_token) {
  std::string more = "limit=" + std::to_string(config_.page);
  if (!continue_token.empty()) more += "&continue=" + escape(continue_token);
  ApiRequest request;
  request.path = query(more);
  request.accept = accept("PartialObjectMetadataList");
  auto response = client_.send(request);
  if (!response) return Failure(response.error());
  if (!response->ok()) {
    retry_after_ = response->retry_after;
    return Failure(client_.refusal(request, *response));
  }
  auto page = cni::parse_json(response->body);
  if (!page) return fail(ErrorCode::kUnavailable, "list " + resource_.name + ": " + page.error().message());
  return page;
}

Result<void> Watch::list() {
  receiver_.list_begins();
  std::string continue_token;
  do {
    auto page = list_page(continue_token);
    if (!page) return Failure(page.error());
    const Json* items = cni::member(*page, "items");
    const std::string version = version_of(*page);
    if (version.empty() || (items != nullptr && !items->is_array())) {
      return fail(ErrorCode::kUnavailable, "list " + resource_.name + ": the answer is no list: " + cni::shown(*page));
    }
    if (items != nullptr) {
      for (const auto& item : *items) receiver_.listed(item);
    }
    continue_token = cni::text_member(*cni::member(*page, "metadata"), "continue");
    if (continue_token.empty()) version_ = version;
  } while (!continue_token.empty());
  receiver_.list_ends();
  const std::lock_guard lock(mutex_);
  status_.synced = true;
  ++status_.lists;
  return {};
}

Result<Watch::Next> Watch::follow() {
  std::uniform_int_distribution<long> spread(config_.session.count(), 2 * config_.session.count());
  const seconds session{spread(random_)};
  ApiRequest request;
  request.path = query("watch=1&allowWatchBookmarks=true&timeoutSeconds=" + std::to_string(session.count()) +
                       "&resourceVersion=" + escape(version_));
  request.accept = accept("PartialObjectMetadata");
  request.timeout = session + kSessionSlack;
  Result<Next> outcome = Next::kResume;
  std::uint64_t lines = 0;
  request.on_line = [&](std::string_view line) {
    if (++lines == 1) well();
    return take(line, outcome);
  };
  const auto began = Clock::real().now();
  auto response = client_.send(request);
  if (!outcome) return outcome;
  if (!response) {
    // It would come again.
    if (response.error().code == ErrorCode::kOverLimit) version_.clear();
    return Failure(response.error());
  }
  if (response->status == kGone) {
    log::info("Kubernetes API has forgotten where the watch was, listing again resource={}", resource_.name);
    return Next::kList;
  }
  if (!response->ok()) {
    retry_after_ = response->retry_after;
    return Failure(client_.refusal(request, *response));
  }
  if (outcome && *outcome == Next::kResume && lines == 0 && Clock::real().now() - began < kShortestSession)
    return fail(ErrorCode::kUnavailable, "watch " + resource_.name + ": it ended at once, without a word");
  return outcome;
}

bool Watch::take(std::string_view line, Result<Next>& outcome) {
  const auto end = [&](Result<Next> with) {
    outcome = std::move(with);
    return false;
  };
  auto event = cni::parse_json(line);
  const Json* object = event ? cni::member(*event, "object") : nullptr;
  if (object == nullptr) {
    // What it said is lost: only a list tells.
    version_.clear();
    return end(fail(ErrorCode::kUnavailable, "watch " + resource_.name + ": an event that is none: " + excerpt(line)));
  }
  const std::string type = cni::text_member(*event, "type");
  if (type == "ERROR") {
    version_.clear();
    if (code_of(*object) == kGone) return end(Next::kList);
    return end(fail(ErrorCode::kUnavailable, "watch " + resource_.name + ": the API ends it: " + cni::shown(*object)));
  }
  if (type == "ADDED" || type == "MODIFIED") {
    receiver_.changed(*object);
  } else if (type == "DELETED") {
    receiver_.deleted(*object);
  } else if (type != "BOOKMARK") {
    log::warn("Kubernetes API: event of an unknown type resource={} type={}", resource_.name, excerpt(type));
  }
  if (std::string version = version_of(*object); !version.empty()) version_ = std::move(version);
  const std::lock_guard lock(mutex_);
  ++status_.events;
  return !stopping_;
}

}  // namespace weft::kube
