// SPDX-License-Identifier: Apache-2.0
#include "agent/control/xds_cache.h"

#include <algorithm>
#include <utility>

#include "agent/control/xds_convert.h"

namespace weft::control {
namespace {

namespace wire = envoy::service::discovery::v3;

constexpr int kInvalidArgument = 3;  // of gRPC
constexpr const char* kEverything = "*";
constexpr const char* kNobody = "/0.0.0.0";  // no workload and no service has this address
/// Refusals that one reply names; istiod logs them.
constexpr std::size_t kRefusalsShown = 20;
/// Tells the refusals of policies from those of addresses, which may have the same names.
constexpr const char* kPolicy = "policy ";
/// What an entry of a map costs on the wire beside its texts, and the request beside its map.
constexpr std::size_t kPerVersion = 16, kPerRequest = 16U << 10;

Failure misnamed(const std::string& name, const std::string& key) {
  return fail(ErrorCode::kInvalid,
              "it holds " + in_quotes(key) + ": expected what its name " + in_quotes(name) + " says");
}

template <class Wire>
Result<Wire> unpack(const wire::Resource& resource) {
  Wire out;
  if (!resource.resource().UnpackTo(&out)) {
    return fail(ErrorCode::kInvalid, "cannot be read as " + Wire::descriptor()->full_name() + " (it says it is \"" +
                                         excerpt(resource.resource().type_url()) + "\")");
  }
  return out;
}

/// The object under its name, shared; or why it is none.
template <class T, class Key>
Result<std::shared_ptr<const T>> named(const wire::Resource& resource, Result<T> object, Key key) {
  if (!object) return Failure(object.error());
  if (key(*object) != resource.name()) return misnamed(resource.name(), key(*object));
  return std::make_shared<const T>(std::move(*object));
}

template <class Out, class In>
Result<Out> widened(Result<In> value) {
  if (!value) return Failure(value.error());
  return Out(std::move(*value));
}

}  // namespace

Result<XdsCache::Object> XdsCache::convert(Type type, const wire::Resource& resource) {
  if (type == kAuthorization) {
    auto policy = unpack<istio::security::Authorization>(resource);
    if (!policy) return Failure(policy.error());
    return widened<Object>(named(resource, to_policy(*policy), [](const auto& p) { return p.key(); }));
  }
  auto address = unpack<istio::workload::Address>(resource);
  if (!address) return Failure(address.error());
  switch (address->type_case()) {
    case istio::workload::Address::kWorkload:
      return widened<Object>(named(resource, to_workload(address->workload()), [](const auto& w) { return w.uid; }));
    case istio::workload::Address::kService:
      return widened<Object>(named(resource, to_service(address->service()), [](const auto& s) { return s.key(); }));
    default:
      return fail(ErrorCode::kInvalid, "it is neither a workload nor a service");
  }
}

std::vector<XdsCache::Request> XdsCache::open() {
  std::vector<Request> out;
  subscribed_.clear();
  finished_.clear();
  for (const Type type : {kAddress, kAuthorization}) {
    Table& table = tables_[type];
    table.first_on_stream = true;
    Request request;
    *request.mutable_node() = node_;
    request.set_type_url(std::string(type == kAddress ? kAddressUrl : kAuthorizationUrl));
    if (type == kAddress && wanted_ == Wanted::kOnDemand) {
      // Neither everything nor, as a request without names would be read, everything.
      request.add_resource_names_subscribe(kEverything);
      request.add_resource_names_unsubscribe(kEverything);
    }
    auto& versions = *request.mutable_initial_resource_versions();
    std::size_t size = kPerRequest + node_.ByteSizeLong();
    for (auto& entry : table.entries) {
      size += entry.name.size() + entry.version.size() + kPerVersion;
      entry.unnamed = entry.substitute || size > request_max_;
      if (!entry.unnamed) versions[entry.name] = entry.version;
    }
    out.push_back(std::move(request));
  }
  return out;
}

std::vector<XdsCache::Request> XdsCache::ask(const std::vector<std::string>& names) {
  if (names.empty()) return {};
  auto leaving = std::exchange(finished_, {});
  bool again = false;
  for (const auto& name : names) {
    if (!leaving.contains(name) && !subscribed_.contains(name) && !tables_[kAddress].by_name.contains(name)) continue;
    leaving.insert(name);
    again = true;
  }
  // A name on both lists of one request would not be subscribed to. And one that lets go and asks for nothing istiod
  // answers with the removal of all that it has told.
  std::vector<Request> out(again ? 2 : 1);
  for (auto& request : out) request.set_type_url(std::string(kAddressUrl));
  if (again) {
    out.front().add_resource_names_subscribe(kNobody);
    out.back().add_resource_names_unsubscribe(kNobody);
  }
  for (const auto& name : leaving) {
    out.front().add_resource_names_unsubscribe(name);
    subscribed_.erase(name);
  }
  for (const auto& name : names) {
    out.back().add_resource_names_subscribe(name);
    subscribed_.insert(name);
  }
  return out;
}

std::string XdsCache::refusal_key(Type type, const std::string& name) {
  return (type == kAuthorization ? kPolicy : "") + name;
}

bool XdsCache::is_of(Type type, const std::string& refusal_key) {
  return refusal_key.starts_with(kPolicy) == (type == kAuthorization);
}

XdsCache::Taken XdsCache::take(const Response& response) {
  Taken out;
  out.reply.set_type_url(response.type_url());
  out.reply.set_response_nonce(response.nonce());
  const auto refuse = [&](const std::string& why) {
    out.reply.mutable_error_detail()->set_code(kInvalidArgument);
    auto& text = *out.reply.mutable_error_detail()->mutable_message();
    if (++out.refused <= kRefusalsShown) text += (text.empty() ? "" : "; ") + why;
  };
  if (response.type_url() != kAddressUrl && response.type_url() != kAuthorizationUrl) {
    refuse("a response of the type " + in_quotes(response.type_url()) + ", which nobody asked for");
    return out;
  }
  const Type type = response.type_url() == kAddressUrl ? kAddress : kAuthorization;
  Table& table = tables_[type];
  const bool on_demand = type == kAddress && wanted_ == Wanted::kOnDemand;
  out.changed = !std::exchange(table.answered, true);
  // What is refused still comes again with a stream's first response.
  if (table.first_on_stream) std::erase_if(refused_, [&](const auto& r) { return is_of(type, r.first); });
  for (const auto& name : response.removed_resources()) {
    refused_.erase(refusal_key(type, name));
    if (on_demand) note_removal(name, out);
    out.changed |= remove(table, name);
  }
  for (const auto& resource : response.resources()) {
    const std::string key = refusal_key(type, resource.name());
    auto taken = take_resource(type, resource);
    if (taken) {
      refused_.erase(key);
    } else {
      refuse(excerpt(resource.name(), 300) + ": " + taken.error().message());
      refused_[key] = taken.error().message();
    }
    out.changed |= taken.value_or(true);
    if (on_demand) note_answer(resource, out);
  }
  if (std::exchange(table.first_on_stream, false)) {
    // The first response has everything that istiod has and was not told of.
    std::vector<std::string> gone;
    for (const auto& entry : table.entries) {
      if (entry.unnamed) gone.push_back(entry.name);
    }
    for (const auto& name : gone) out.changed |= remove(table, name);
    out.forgotten = !gone.empty();
  }
  if (out.refused > kRefusalsShown)
    *out.reply.mutable_error_detail()->mutable_message() +=
        "; and " + std::to_string(out.refused - kRefusalsShown) + " more";
  return out;
}

void XdsCache::note_removal(const std::string& name, Taken& out) {
  out.answered.push_back({name});
  // Others come back under their names without being asked for. istiod may have it subscribed to by another name.
  const Entry* entry = find(tables_[kAddress], name);
  if (entry != nullptr && std::holds_alternative<state::ServicePtr>(entry->object)) subscribed_.insert(name);
  if (entry == nullptr && subscribed_.contains(name)) finished_.insert(name);
}

/// By the version that is there now: that of a resource that is refused is an earlier one.
void XdsCache::note_answer(const wire::Resource& resource, Taken& out) {
  finished_.erase(resource.name());
  std::vector<std::string> names(resource.aliases().begin(), resource.aliases().end());
  for (std::size_t i = 0; i < names.size(); ++i) {
    // A range "network/address/length" is also found by its address alone.
    const auto length = names[i].find('/', names[i].find('/') + 1);
    if (length != std::string::npos) names.push_back(names[i].substr(0, length));
    if (subscribed_.contains(names[i])) finished_.insert(names[i]);
  }
  const Entry* entry = find(tables_[kAddress], resource.name());
  if (entry == nullptr) {
    std::ranges::move(names, std::back_inserter(out.unreadable));
    out.unreadable.push_back(resource.name());
    subscribed_.insert(resource.name());
  } else if (std::holds_alternative<state::ServicePtr>(entry->object)) {
    names.push_back(resource.name());
    out.answered.push_back(std::move(names));
  } else {
    for (auto& alias : names) out.answered.push_back({std::move(alias)});
  }
}

Result<bool> XdsCache::take_resource(Type type, const wire::Resource& resource) {
  Table& table = tables_[type];
  Entry* const known = find(table, resource.name());
  // Its good version is as istiod has it: it was named, whatever becomes of this one.
  if (known != nullptr) known->unnamed = false;
  // What is asked for again is sent again; the version is a hash of it.
  const bool again = wanted_ == Wanted::kOnDemand && known != nullptr && !resource.version().empty();
  if (again && known->version == resource.version()) return false;
  auto object = convert(type, resource);
  if (object) {
    if (const auto* workload = std::get_if<state::WorkloadPtr>(&*object)) await_policies(**workload, known);
    put(table, {.name = resource.name(), .version = resource.version(), .object = std::move(*object)});
  }
  if (type == kAuthorization) {
    awaited_.erase(resource.name());
    given_up_.erase(resource.name());
  }
  if (object) return true;
  if (type == kAuthorization && (known == nullptr || known->substitute)) {
    istio::security::Authorization policy;
    if (resource.resource().UnpackTo(&policy)) {
      auto closed = closed_policy(policy);
      if (closed && closed->key() == resource.name()) {
        put(table, {.name = resource.name(),
                    .version = "",
                    .object = std::make_shared<const state::Policy>(std::move(*closed)),
                    .substitute = true});
      }
    }
  }
  return Failure(object.error());
}

void XdsCache::await_policies(const state::Workload& workload, const Entry* before) {
  const auto* old = before == nullptr ? nullptr : std::get_if<state::WorkloadPtr>(&before->object);
  for (const auto& policy : workload.authorization_policies) {
    const bool named_before = old != nullptr && std::ranges::find((*old)->authorization_policies, policy) !=
                                                    (*old)->authorization_policies.end();
    if (!named_before && !tables_[kAuthorization].by_name.contains(policy) && !given_up_.contains(policy))
      awaited_.insert(policy);
  }
}

void XdsCache::give_up_awaiting() { given_up_.merge(std::exchange(awaited_, {})); }

void XdsCache::put(Table& table, Entry entry) {
  remove(table, entry.name);
  entry.arrival = ++arrivals_;
  table.changed.insert(entry.name);
  table.entries.push_back(std::move(entry));
  const auto at = std::prev(table.entries.end());
  table.by_name.emplace(at->name, at);
}

bool XdsCache::remove(Table& table, const std::string& name) {
  const auto found = table.by_name.find(name);
  if (found == table.by_name.end()) return false;
  const auto entry = found->second;
  table.by_name.erase(found);
  table.changed.insert(name);
  table.entries.erase(entry);
  return true;
}

bool XdsCache::complete() const { return tables_[kAddress].answered && tables_[kAuthorization].answered; }

XdsCache::Entry* XdsCache::find(Table& table, const std::string& name) {
  const auto found = table.by_name.find(name);
  return found == table.by_name.end() ? nullptr : &*found->second;
}

state::StateChange XdsCache::changes() {
  state::StateChange out;
  std::vector<const Entry*> there;
  // What bears a name may have been the one and be the other now.
  for (const auto& name : tables_[kAddress].changed) {
    const Entry* entry = find(tables_[kAddress], name);
    if (entry != nullptr) there.push_back(entry);
    if (entry == nullptr || !std::holds_alternative<state::WorkloadPtr>(entry->object))
      out.removed_workloads.push_back(name);
    if (entry == nullptr || !std::holds_alternative<state::ServicePtr>(entry->object))
      out.removed_services.push_back(name);
  }
  std::ranges::sort(there, {}, &Entry::arrival);
  for (const Entry* entry : there) {
    if (const auto* workload = std::get_if<state::WorkloadPtr>(&entry->object)) {
      out.workloads.push_back(*workload);
    } else {
      out.services.push_back(std::get<state::ServicePtr>(entry->object));
    }
  }
  if (!tables_[kAuthorization].changed.empty()) {
    out.policies.emplace();
    for (const auto& entry : tables_[kAuthorization].entries)
      out.policies->push_back(std::get<state::PolicyPtr>(entry.object));
  }
  // Not clear(), which keeps the room that the first response took.
  for (auto& table : tables_) table.changed = {};
  return out;
}

}  // namespace weft::control
