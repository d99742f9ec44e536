// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <variant>
#include <vector>

#include "tunnel/state/state.h"
#include "xds.pb.h"

namespace weft::control {

/// istiod's side of the conversation, without the connection: what it has sent over all streams, and what to say to it.
/// A stream begins with open(); each response goes to take(), whose reply goes back. Resources that are wrong are
/// refused one by one: the others of their response count, and of the refused ones the last good version stays. Not
/// thread-safe.
class XdsCache {
 public:
  static constexpr std::string_view kAddressUrl = "type.googleapis.com/istio.workload.Address";
  static constexpr std::string_view kAuthorizationUrl = "type.googleapis.com/istio.security.Authorization";
  /// What istiod takes in one message, unless it is told otherwise.
  static constexpr std::size_t kRequestMax = 4U << 20;

  using Request = envoy::service::discovery::v3::DeltaDiscoveryRequest;
  using Response = envoy::service::discovery::v3::DeltaDiscoveryResponse;
  using Node = envoy::service::discovery::v3::Node;

  explicit XdsCache(Node node, std::size_t request_max = kRequestMax)
      : node_(std::move(node)), request_max_(request_max) {}

  /// The requests that begin a stream: everything of both types is wanted, and what is there already is named with its
  /// version. Where that is too much for one request, the rest is sent anew, and what is not is forgotten.
  [[nodiscard]] std::vector<Request> open();

  struct Taken {
    Request reply;         ///< takes the response, or refuses it with all reasons
    bool changed = false;  ///< there is something new for a snapshot
    std::size_t refused = 0;
  };
  [[nodiscard]] Taken take(const Response& response);

  /// Both types have had a response, on this stream or an earlier one.
  [[nodiscard]] bool complete() const;
  /// Policies that have not come although workloads of late responses name them for the first time: istiod sends a
  /// workload before the policies that are new for it. Names of policies.
  [[nodiscard]] const std::set<std::string>& awaited() const { return awaited_; }
  /// They are not awaited any more, unless they come and go.
  void give_up_awaiting();
  /// What is different from when it was asked last.
  [[nodiscard]] state::StateChange changes();
  /// What is refused in its latest version: the resource's name, to why.
  [[nodiscard]] const std::map<std::string, std::string>& refused() const { return refused_; }

 private:
  enum Type : std::uint8_t { kAddress, kAuthorization, kTypes };
  using Object = std::variant<state::WorkloadPtr, state::ServicePtr, state::PolicyPtr>;
  struct Entry {
    std::string name;
    std::string version;
    Object object;
    std::uint64_t arrival = 0;  ///< later ones have higher numbers
    bool substitute = false;    ///< stands for a policy that could not be read: it has no version that istiod may know
    bool unnamed = false;       ///< the stream's first request does not name it
  };
  /// In the order of arrival, which decides between equals.
  struct Table {
    std::list<Entry> entries;
    std::unordered_map<std::string, std::list<Entry>::iterator> by_name;
    std::unordered_set<std::string> changed;  ///< names, since changes() was asked
    bool answered = false;                    ///< there was a response ever
    bool first_on_stream = true;              ///< the stream's first response is still to come
  };

  /// Null where there is none.
  static Entry* find(Table& table, const std::string& name);
  static Result<Object> convert(Type type, const envoy::service::discovery::v3::Resource& resource);
  Result<void> take_resource(Type type, const envoy::service::discovery::v3::Resource& resource);
  void put(Table& table, Entry entry);
  void await_policies(const state::Workload& workload, const Entry* before);
  bool remove(Table& table, const std::string& name);
  [[nodiscard]] static std::string refusal_key(Type type, const std::string& name);
  [[nodiscard]] static bool is_of(Type type, const std::string& refusal_key);

  const Node node_;
  const std::size_t request_max_;
  std::array<Table, kTypes> tables_;
  std::map<std::string, std::string> refused_;
  std::set<std::string> awaited_, given_up_;
  std::uint64_t arrivals_ = 0;
};

}  // namespace weft::control
