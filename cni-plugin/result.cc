// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/result.h"

#include <algorithm>
#include <optional>

namespace weft::cni {
namespace {

std::string_view version_or_latest(std::string_view version) {
  return is_supported(version) ? version : kLatestVersion;
}

tl::unexpected<CniError> malformed(const std::string& where, const Json& found, const char* expected) {
  return refuse(Code::kInvalidConfig, "prevResult." + where + " is " + shown(found) + ": expected " + expected,
                "an earlier plugin of the chain wrote this");
}

/// Which entries of `interfaces` are the pod's interface of this name.
std::vector<bool> pod_interfaces(const Json& interfaces, std::string_view if_name) {
  std::vector<bool> named;
  bool any_sandboxed = false;
  for (const Json& entry : interfaces) {
    named.push_back(text_member(entry, "name") == if_name);
    any_sandboxed = any_sandboxed || (named.back() && !text_member(entry, "sandbox").empty());
  }
  if (any_sandboxed) {
    for (std::size_t i = 0; i < named.size(); ++i) {
      named[i] = named[i] && !text_member(interfaces[i], "sandbox").empty();
    }
  }
  return named;
}

/// The address of one entry of `ips`; empty when it belongs to another interface.
CniResult<std::optional<IpAddress>> pod_address(const Json& entry, const std::string& where,
                                                const std::vector<bool>& ours) {
  if (const Json* index = member(entry, "interface"); index != nullptr) {
    if (!index->is_number_integer()) return malformed(where + ".interface", *index, "the index of an interface");
    const auto value = index->get<std::int64_t>();
    if (value < 0 || static_cast<std::size_t>(value) >= ours.size()) {
      return malformed(where + ".interface", *index, "the index of an entry of prevResult.interfaces");
    }
    if (!ours[static_cast<std::size_t>(value)]) return std::optional<IpAddress>();
  }
  const std::string text = text_member(entry, "address");
  auto cidr = Cidr::parse(text);
  if (!cidr) return malformed(where, entry, "an object with an address like 10.0.0.2/24");
  // Cidr clears the host's bits; the address itself stands before the slash.
  auto address = IpAddress::parse(std::string_view(text).substr(0, text.find('/')));
  if (!address) return malformed(where, entry, "an object with an address like 10.0.0.2/24");
  return std::optional<IpAddress>(*address);
}

}  // namespace

bool is_supported(std::string_view version) { return std::ranges::find(kVersions, version) != std::end(kVersions); }

std::string error_document(const CniError& error, std::string_view version) {
  Json document;
  document["cniVersion"] = version_or_latest(version);
  document["code"] = static_cast<int>(error.code);
  document["msg"] = error.msg;
  document["details"] = error.details;
  return to_text(document) + "\n";
}

std::string version_document(std::string_view version) {
  Json document;
  document["cniVersion"] = version_or_latest(version);
  document["supportedVersions"] = kVersions;
  return to_text(document) + "\n";
}

std::string result_document(const Json& prev_result, std::string_view version) {
  Json document = Json::object();
  // Some plugins leave the version out of the result: then it comes first, as libcni writes it.
  if (!prev_result.contains("cniVersion")) document["cniVersion"] = version;
  for (const auto& [key, value] : prev_result.items()) document[key] = value;
  document["cniVersion"] = version;
  return to_text(document) + "\n";
}

CniResult<std::vector<IpAddress>> pod_addresses(const Json& prev_result, std::string_view if_name) {
  std::vector<bool> ours;
  if (const Json* interfaces = member(prev_result, "interfaces"); interfaces != nullptr) {
    if (!interfaces->is_array()) return malformed("interfaces", *interfaces, "a list");
    ours = pod_interfaces(*interfaces, if_name);
  }
  std::vector<IpAddress> addresses;
  const Json* ips = member(prev_result, "ips");
  if (ips == nullptr) return addresses;
  if (!ips->is_array()) return malformed("ips", *ips, "a list");
  for (std::size_t i = 0; i < ips->size(); ++i) {
    auto address = pod_address((*ips)[i], "ips[" + std::to_string(i) + "]", ours);
    if (!address) return tl::unexpected<CniError>(std::move(address.error()));
    if (*address && std::ranges::find(addresses, **address) == addresses.end()) addresses.push_back(**address);
  }
  return addresses;
}

}  // namespace weft::cni
