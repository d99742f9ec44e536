// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/explain_output.h"

#include "agent/cli/output.h"

namespace weft::cli {
namespace {

using nlohmann::json;
constexpr std::size_t kLabelWidth = 14;

std::string line(const std::string& label, const std::string& text) {
  return label + std::string(kLabelWidth - label.size(), ' ') + text + "\n";
}

std::string source_text(const json& source) {
  std::string text = source.at("name").get<std::string>();
  const std::string address = source.value("address", "");
  if (!address.empty() && address != text) text += " (" + address + ")";
  if (source.contains("identity")) text += " as " + source.at("identity").get<std::string>();
  return text + ", " + source.at("state").get<std::string>();
}

std::string destination_text(const json& destination) {
  const std::string address = destination.value("address", "");
  std::string text = destination.contains("service") ? "service " + destination.at("service").get<std::string>() : "";
  if (!address.empty()) text += (text.empty() ? "" : ", ") + address;
  return text.empty() ? destination.at("asked").get<std::string>() : text;
}

std::string share_of(std::uint64_t weight, std::uint64_t all) {
  if (all == 0) return "-";
  return std::to_string(weight) + " (" + std::to_string(weight * 100 / all) + "%)";
}

std::string transport_of(const json& endpoint) {
  const std::string waypoint = endpoint.value("waypoint", "");
  const std::string by = waypoint.empty() ? "" : ", waypoint " + waypoint;
  if (!endpoint.at("encrypted").get<bool>()) return waypoint.empty() ? "plaintext" : "none" + by;
  return "mTLS to " + endpoint.at("hbone").get<std::string>() + by;
}

std::string endpoint_table(const json& endpoints) {
  std::uint64_t all = 0;
  for (const auto& e : endpoints) all += e.at("weight").get<std::uint64_t>();
  std::vector<std::vector<std::string>> rows;
  for (const auto& e : endpoints) {
    std::string reason = e.at("reason").get<std::string>();
    for (const auto& dry_run : e.value("dryRun", json::array())) {
      reason += "; by the dry run of " + dry_run.get<std::string>() + " it would be otherwise";
    }
    rows.push_back({e.value("workload", "-"), e.at("target").get<std::string>(),
                    share_of(e.at("weight").get<std::uint64_t>(), all), transport_of(e),
                    e.at("allowed").get<bool>() ? "allowed" : "refused", e.value("policy", "-"), std::move(reason)});
  }
  return table({"ENDPOINT", "TARGET", "WEIGHT", "TRANSPORT", "VERDICT", "POLICY", "WHY"}, rows);
}

std::string result_text(const json& explanation) {
  const std::string outcome = explanation.at("outcome").get<std::string>();
  if (explanation.contains("refusal")) return outcome + ": " + explanation.at("refusal").get<std::string>();
  if (outcome == "mixed") return "mixed: some endpoints allow it, some refuse it";
  return outcome;
}

}  // namespace

Result<std::string> explanation_text(const json& explanation) {
  return understood("a connection", [&]() -> std::string {
    std::string out = line("source", source_text(explanation.at("source")));
    out += line("destination", destination_text(explanation.at("destination")));
    out += line("captured", std::string(explanation.at("captured").get<bool>() ? "yes" : "no") + ": " +
                                explanation.at("capture").get<std::string>());
    for (const auto& note : explanation.at("notes")) out += line("note", note.get<std::string>());
    const json& endpoints = explanation.at("endpoints");
    if (!endpoints.empty()) out += "\n" + endpoint_table(endpoints) + "\n";
    return out + line("result", result_text(explanation));
  });
}

}  // namespace weft::cli
