// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/environment.h"

#include <net/if.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <vector>

namespace weft::cni {
namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

bool is_alphanumeric(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; }

CniResult<void> malformed(const char* name, const std::string& value, const char* expected) {
  return refuse(Code::kInvalidEnvironment, std::string(name) + " is " + shown(Json(value)) + ": expected " + expected);
}

std::string missing_variables(Command command, const Environment& environment) {
  std::string missing;
  const auto need = [&](const std::string& value, const char* name) {
    if (value.empty()) missing += (missing.empty() ? "" : ", ") + std::string(name);
  };
  need(environment.container_id, "CNI_CONTAINERID");
  if (command != Command::kDel) need(environment.netns, "CNI_NETNS");
  need(environment.if_name, "CNI_IFNAME");
  return missing;
}

}  // namespace

Environment Environment::from_process() {
  return {variable("CNI_COMMAND"), variable("CNI_CONTAINERID"), variable("CNI_NETNS"), variable("CNI_IFNAME"),
          variable("CNI_ARGS")};
}

CniResult<Command> parse_command(std::string_view text) {
  if (text == "ADD") return Command::kAdd;
  if (text == "DEL") return Command::kDel;
  if (text == "CHECK") return Command::kCheck;
  if (text == "GC") return Command::kGc;
  if (text == "STATUS") return Command::kStatus;
  if (text == "VERSION") return Command::kVersion;
  return refuse(Code::kInvalidEnvironment, "CNI_COMMAND is " + shown(Json(std::string(text))) +
                                               ": expected ADD, DEL, CHECK, GC, STATUS or VERSION");
}

CniResult<void> validate(Command command, const Environment& environment) {
  if (command != Command::kAdd && command != Command::kDel && command != Command::kCheck) return {};
  if (const std::string missing = missing_variables(command, environment); !missing.empty()) {
    return refuse(Code::kInvalidEnvironment,
                  environment.command + " needs " + missing + ", which the runtime did not set");
  }
  if (!is_identifier(environment.container_id)) {
    return malformed("CNI_CONTAINERID", environment.container_id,
                     "a letter or digit, then letters, digits, '_', '.' or '-'");
  }
  if (!is_interface_name(environment.if_name)) {
    return malformed("CNI_IFNAME", environment.if_name, "1 to 15 characters without '/', ':' and blanks");
  }
  return {};
}

bool is_identifier(std::string_view text) {
  return !text.empty() && is_alphanumeric(text.front()) &&
         std::ranges::all_of(text, [](char c) { return is_alphanumeric(c) || c == '_' || c == '.' || c == '-'; });
}

bool is_interface_name(std::string_view text) {
  return !text.empty() && text.size() < IFNAMSIZ && text != "." && text != ".." &&
         std::ranges::none_of(text, [](char c) {
           return c == '/' || c == ':' || c == '\0' || std::isspace(static_cast<unsigned char>(c)) != 0;
         });
}

void PodIdentity::take(std::string_view key, std::string_view value) {
  if (key == "K8S_POD_NAMESPACE") pod_namespace = value;
  if (key == "K8S_POD_NAME") name = value;
  if (key == "K8S_POD_UID") uid = value;
}

PodIdentity pod_identity(std::string_view cni_args) {
  PodIdentity pod;
  while (!cni_args.empty()) {
    const std::string_view pair = cni_args.substr(0, cni_args.find(';'));
    cni_args.remove_prefix(std::min(cni_args.size(), pair.size() + 1));
    const auto equals = pair.find('=');
    if (equals == std::string_view::npos) continue;
    pod.take(pair.substr(0, equals), pair.substr(equals + 1));
  }
  return pod;
}

}  // namespace weft::cni
