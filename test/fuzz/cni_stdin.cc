// SPDX-License-Identifier: Apache-2.0
/// A call of the plugin as far as it depends on what it is given. Lines: CNI_COMMAND, CNI_CONTAINERID, CNI_NETNS,
/// CNI_IFNAME, CNI_ARGS; behind them stdin.
#include <sys/un.h>

#include <algorithm>

#include "cni-plugin/conf.h"
#include "test/fuzz/fuzz.h"

namespace weft::fuzz {
namespace {

using cni::CniError;
using cni::Command;
using cni::Conf;
using cni::Json;

/// What the environment can hold.
std::string variable(std::string_view& input) {
  const std::string_view line = take_line(input);
  return std::string(line.substr(0, line.find('\0')));
}

Json document_of(const std::string& output) {
  require(output.ends_with('\n') && std::ranges::count(output, '\n') == 1, "a document is one line", output);
  auto document = cni::parse_json(output);
  require(document && document->is_object(), "what goes to stdout is a JSON object", output);
  require(cni::is_supported(cni::text_member(*document, "cniVersion")), "a document has a version that is spoken",
          output);
  return std::move(*document);
}

void check_error(const CniError& error, std::string_view version) {
  require_text(error.msg);
  const Json document = document_of(cni::error_document(error, version));
  require(document["code"] == static_cast<int>(error.code) && document["code"] >= 1, "an error has its code",
          error.msg);
  require(!cni::text_member(document, "msg").empty(), "an error document has a text", error.msg);
  if (cni::is_supported(version)) require(document["cniVersion"] == version, "it is told in the version asked for");
}

bool is_path(const std::string& text, std::size_t max) {
  return text.starts_with('/') && text.size() <= max && text.find('\0') == std::string::npos;
}

void check_conf(const Conf& conf, Command command) {
  require(cni::is_identifier(conf.name), "a network has a name", conf.name);
  require(is_path(conf.agent_socket, sizeof(sockaddr_un::sun_path) - 1), "agentSocket fits a socket",
          conf.agent_socket);
  require(is_path(conf.bpf_root, 1024), "bpfRoot is a path", conf.bpf_root);
  require(conf.log_file.empty() || is_path(conf.log_file, 4000), "logFile is a path", conf.log_file);
  require(conf.registration_timeout_ms >= 1 && conf.registration_timeout_ms <= 60'000, "the timeout is within bounds");
  require(conf.prev_result.has_value() || (command != Command::kAdd && command != Command::kCheck),
          "ADD and CHECK have a prevResult");
  require(!conf.valid_attachments || command == Command::kGc, "only GC has attachments");
  for (const auto& problem : conf.problems) require_text(problem, ": expected ");
  for (const auto& [name, value] : conf.annotations) {
    require(std::ranges::find(cni::kUnderstoodAnnotations, name) != std::end(cni::kUnderstoodAnnotations),
            "annotations that mean nothing are left out", name);
  }
}

/// Keys in order, and all but the version as it came.
void check_result(const Json& prev, const std::string& version) {
  const std::string output = cni::result_document(prev, version);
  Json document = document_of(output);
  require(document["cniVersion"] == version, "the result has the configured version", output);
  Json expected = prev;
  if (prev.contains("cniVersion")) {
    expected["cniVersion"] = version;
  } else {
    document.erase("cniVersion");
  }
  require(document.dump() == expected.dump(), "a result is handed on as it came", output);
}

void check_addresses(const Json& prev, const std::string& if_name) {
  const auto addresses = cni::pod_addresses(prev, if_name);
  if (!addresses) return require_text(addresses.error().msg, "prevResult.");
  const Json* ips = cni::member(prev, "ips");
  require(addresses->size() <= (ips == nullptr ? 0 : ips->size()), "no address without an entry", cni::to_text(prev));
  for (auto one = addresses->begin(); one != addresses->end(); ++one) {
    require(one->valid() && std::find(one + 1, addresses->end(), *one) == addresses->end(), "an address is named once",
            cni::to_text(prev));
  }
}

/// What comes of the call before anything is done, in the order of commands.cc; its error where it ends there.
cni::CniResult<Conf> parsed(Command command, const cni::Environment& environment, std::string_view input,
                            std::string& version) {
  auto document = cni::parse_stdin(input);
  if (document) version = cni::text_member(*document, "cniVersion");
  if (auto valid = cni::validate(command, environment); !valid) {
    return tl::unexpected<CniError>(std::move(valid.error()));
  }
  if (!document) return tl::unexpected<CniError>(std::move(document.error()));
  auto configured = cni::configured_version(*document, command);
  if (!configured) return tl::unexpected<CniError>(std::move(configured.error()));
  return cni::parse_conf(*document, *configured, command);
}

}  // namespace

void one_input(std::string_view input) {
  cni::Environment environment;
  for (std::string* into :
       {&environment.command, &environment.container_id, &environment.netns, &environment.if_name, &environment.args}) {
    *into = variable(input);
  }
  const auto pod = cni::pod_identity(environment.args);
  require(pod.pod_namespace.size() + pod.name.size() + pod.uid.size() <= environment.args.size(),
          "a pod's names are part of CNI_ARGS", environment.args);
  const auto command = cni::parse_command(environment.command);
  if (!command) return check_error(command.error(), "");
  std::string version;
  const auto conf = parsed(*command, environment, input, version);
  if (*command == Command::kVersion) {
    const Json document = document_of(cni::version_document(version));
    require(document["supportedVersions"].size() == std::size(cni::kVersions), "all versions are listed");
    return;
  }
  if (!conf) return check_error(conf.error(), version);
  require(conf->cni_version == version || version.empty(), "the version is the configured one", version);
  check_conf(*conf, *command);
  if (!conf->prev_result) return;
  check_result(*conf->prev_result, conf->cni_version);
  check_addresses(*conf->prev_result, environment.if_name);
}

}  // namespace weft::fuzz
