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
/// refused one by one: the others of their response count, and of the refused ones the last good version stays. On
/// demand, istiod tells of the workloads of this node and of what ask() asks for, and then of what becomes of it. Not
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

  enum class Wanted : std::uint8_t { kEverything, kOnDemand };  ///< of workloads and services; policies always all

  explicit XdsCache(Node node, Wanted wanted = Wanted::kEverything, std::size_t request_max = kRequestMax)
      : node_(std::move(node)), wanted_(wanted), request_max_(request_max) {}

  /// The requests that begin a stream: they say what is wanted of both types, and name what is there already with its
  /// version. Where that is too much for one request, the rest is sent anew, and what is not is forgotten.
  [[nodiscard]] std::vector<Request> open();
  /// On demand: the requests that ask on this stream for what these names stand for, addresses as "network/address" or
  /// services as "namespace/hostname". The answers are in take()'s.
  [[nodiscard]] std::vector<Request> ask(const std::vector<std::string>& names);

  struct Taken {
    Request reply;         ///< takes the response, or refuses it with all reasons
    bool changed = false;  ///< there is something new for a snapshot
    std::size_t refused = 0;
    /// On demand: the names of what the response tells of, or says is not there; those of one service together.
    std::vector<std::vector<std::string>> answered;
    std::vector<std::string> unreadable;  ///< on demand: names of what is refused and has no good version
    bool forgotten = false;               ///< there is less than before, which istiod knows nothing of
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
  /// False where it is there already.
  Result<bool> take_resource(Type type, const envoy::service::discovery::v3::Resource& resource);
  void note_removal(const std::string& name, Taken& out);
  void note_answer(const envoy::service::discovery::v3::Resource& resource, Taken& out);
  void put(Table& table, Entry entry);
  void await_policies(const state::Workload& workload, const Entry* before);
  bool remove(Table& table, const std::string& name);
  [[nodiscard]] static std::string refusal_key(Type type, const std::string& name);
  [[nodiscard]] static bool is_of(Type type, const std::string& refusal_key);

  const Node node_;
  const Wanted wanted_;
  const std::size_t request_max_;
  /// Asked for on this stream. istiod answers nothing to a name that it has already, which may also be that of a
  /// resource that it has told of.
  std::unordered_set<std::string> subscribed_;
  std::unordered_set<std::string> finished_;  ///< names that istiod may have and that will tell nothing more
  std::array<Table, kTypes> tables_;
  std::map<std::string, std::string> refused_;
  std::set<std::string> awaited_, given_up_;
  std::uint64_t arrivals_ = 0;
};

}  // namespace weft::control
