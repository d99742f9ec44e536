// SPDX-License-Identifier: Apache-2.0
#include "test/netns/explain_cases.h"

namespace weft::test {
namespace {

using nlohmann::json;

std::string principal_of(const Pod& pod) { return pod.identity().substr(std::string("spiffe://").size()); }

json text_match(Dice& dice, const std::string& text) {
  switch (dice.below(4)) {
    case 0:
      return {{"Prefix", text.substr(0, text.size() - 1)}};
    case 1:
      return {{"Suffix", text.substr(1)}};
    case 2:
      return {{"Presence", json::array()}};
    default:
      return {{"Exact", text}};
  }
}

json some_range(Dice& dice, const Pod& pod) {
  switch (dice.below(4)) {
    case 0:
      return "10.71." + std::to_string(pod.node().index()) + ".0/24";
    case 1:
      return "fd71:0:0:" + std::to_string(pod.node().index()) + "::/64";
    case 2:
      return pod.address_v6().to_string();
    default:
      return pod.address_v4().to_string() + "/32";
  }
}

/// One kind of values, of one pod.
void add_kind(Dice& dice, const Pod& pod, json& match) {
  const auto put = [&](const char* name, const char* negated, json value) {
    match[dice.percent(30) ? negated : name] = json::array({std::move(value)});
  };
  switch (dice.below(7)) {
    case 0:
      return put("principals", "notPrincipals", text_match(dice, principal_of(pod)));
    case 1:
      return put("namespaces", "notNamespaces", text_match(dice, pod.namespace_name()));
    case 2:
      return put("serviceAccounts", "notServiceAccounts",
                 {{"namespace", pod.namespace_name()}, {"serviceAccount", pod.name()}});
    case 3:
    case 4:
      return put("sourceIps", "notSourceIps", some_range(dice, pod));
    case 5:
      return put("destinationIps", "notDestinationIps", some_range(dice, pod));
    default:
      return put("destinationPorts", "notDestinationPorts", dice.percent(50) ? 8080 : 9090);
  }
}

json random_match(Dice& dice, const std::vector<Pod*>& pods) {
  json match = json::object();
  if (dice.percent(8)) return match;
  for (std::size_t kinds = 1 + dice.below(2); kinds > 0; --kinds) add_kind(dice, *dice.pick(pods), match);
  return match;
}

json random_rules(Dice& dice, const std::vector<Pod*>& pods) {
  json rules = json::array();
  if (dice.percent(10)) return rules;
  for (std::size_t i = 1 + dice.below(2); i > 0; --i) {
    json rule = json::array();
    for (std::size_t clauses = dice.percent(8) ? 0 : 1 + dice.below(2); clauses > 0; --clauses) {
      json clause = json::array();
      for (std::size_t matches = dice.percent(8) ? 0 : 1 + dice.below(2); matches > 0; --matches) {
        clause.push_back(random_match(dice, pods));
      }
      rule.push_back(std::move(clause));
    }
    rules.push_back(std::move(rule));
  }
  return rules;
}

json strict(Dice& dice) {
  json match = {{"notPrincipals", json::array({{{"Presence", json::array()}}})}};
  if (dice.percent(40)) match["notDestinationPorts"] = json::array({8080});
  return {{"name", "strict"},
          {"namespace", "istio-system"},
          {"scope", "Global"},
          {"action", "Deny"},
          {"rules", json::array({json::array({json::array({match})})})}};
}

}  // namespace

std::vector<json> random_policies(Dice& dice, const std::vector<Pod*>& pods) {
  static const std::vector<std::string> kNamespaces{"shop", "bank"};
  std::vector<json> out;
  if (dice.percent(30)) out.push_back(strict(dice));
  for (std::size_t i = dice.below(4); i > 0; --i) {
    const bool global = dice.percent(20);
    const bool ghost = dice.percent(15);  // the policy that one pod has named all along
    json policy = {{"name", "p" + std::to_string(i)},
                   {"namespace", global ? "istio-system" : dice.pick(kNamespaces)},
                   {"scope", global             ? "Global"
                             : dice.percent(50) ? "Namespace"
                                                : "WorkloadSelector"},
                   {"action", dice.percent(55) ? "Deny" : "Allow"},
                   {"dryRun", dice.percent(10)},
                   {"rules", random_rules(dice, pods)}};
    if (ghost) policy.update({{"name", "ghost"}, {"namespace", "bank"}, {"scope", "WorkloadSelector"}});
    out.push_back(std::move(policy));
  }
  return out;
}

}  // namespace weft::test
