// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/commands.h"

#include <cstdio>

#include "cni-plugin/call.h"
#include "tunnel/base/log.h"

namespace weft::cni {
namespace {

/// A log file that cannot be opened must not keep pods from starting or, worse, from going.
void start_log(const Conf& conf) {
  auto started = log::init(conf.log_level, log::Format::kText, conf.log_file);
  if (started) return;
  (void)log::init(conf.log_level, log::Format::kText, "");
  log::warn("log file not usable, logging to stderr reason={}", log::quote(started.error().message()));
}

/// DEL goes on with defaults: a typing error in the configuration must not keep every pod of the node from stopping.
CniResult<void> accept_problems(const Conf& conf, Command command) {
  if (conf.problems.empty()) return {};
  if (command == Command::kDel) {
    for (const auto& problem : conf.problems)
      log::warn("bad configuration, using the default reason={}", log::quote(problem));
    return {};
  }
  std::string text;
  for (const auto& problem : conf.problems) text += (text.empty() ? "" : "; ") + problem;
  return refuse(Code::kInvalidConfig, text, "see the entry of type weft-cni in the network configuration list");
}

CniResult<std::string> dispatch(Command command, const Call& call) {
  switch (command) {
    case Command::kAdd:
      return add(call);
    case Command::kDel:
      return del(call);
    case Command::kCheck:
      return check(call);
    case Command::kGc:
      return gc(call);
    default:
      return status(call);
  }
}

/// All of a call but VERSION; `version` receives the configured one as soon as it is known, for the error document.
CniResult<std::string> run_verb(Command command, const Environment& environment, std::string_view standard_input,
                                std::string& version) {
  // The document first, so that every error is told in the version that the runtime asked for.
  auto document = parse_stdin(standard_input);
  if (document) version = text_member(*document, "cniVersion");
  if (auto valid = validate(command, environment); !valid) return tl::unexpected<CniError>(std::move(valid.error()));
  if (!document) return tl::unexpected<CniError>(std::move(document.error()));
  auto configured = configured_version(*document, command);
  if (!configured) return tl::unexpected<CniError>(std::move(configured.error()));
  auto conf = parse_conf(*document, *configured, command);
  if (!conf) return tl::unexpected<CniError>(std::move(conf.error()));
  start_log(*conf);
  if (auto accepted = accept_problems(*conf, command); !accepted) {
    return tl::unexpected<CniError>(std::move(accepted.error()));
  }
  const Call call{environment, *conf, pod_identity(environment.args)};
  auto output = dispatch(command, call);
  if (!output) {
    log::error("{} failed {} code={} reason={}", environment.command, call.who(), static_cast<int>(output.error().code),
               log::quote(output.error().msg));
  }
  return output;
}

}  // namespace

std::string Call::who() const {
  return "namespace=" + log::quote(pod.pod_namespace) + " pod=" + log::quote(pod.name) +
         " container=" + environment.container_id + " interface=" + environment.if_name;
}

CniResult<Netns> pod_netns(const Call& call) {
  auto netns = open_netns(call.environment.netns);
  if (!netns) return refuse(Code::kInvalidConfig, "CNI_NETNS: " + netns.error().message());
  if (netns->own) {
    return refuse(Code::kInvalidNetns, "CNI_NETNS " + call.environment.netns + " is the plugin's own network namespace",
                  "pods in the host's network are no business of a CNI plugin");
  }
  return std::move(*netns);
}

CniResult<PodLook> look_at_pod(const Call& call) {
  auto netns = pod_netns(call);
  if (!netns) return tl::unexpected<CniError>(std::move(netns.error()));
  auto given = pod_addresses(*call.conf.prev_result, call.environment.if_name);
  if (!given) return tl::unexpected<CniError>(std::move(given.error()));
  auto interface = find_pod_interface(netns->fd.get(), call.environment.if_name);
  return PodLook{std::move(*netns), std::move(*given), std::move(interface)};
}

Wire wire_of(const Call& call, const PodLook& pod, std::vector<IpAddress> addresses) {
  return {call.conf.bpf_root, call.conf.name, call.key(), pod.netns.fd.get(), *pod.interface, std::move(addresses)};
}

Request request_for(const Call& call, Verb verb) {
  Request request;
  request.verb = verb;
  request.key = call.key();
  return request;
}

CniResult<Reply> ask_agent(const Call& call, const Request& request) {
  auto reply = cni::call(call.conf.agent_socket, request, call.conf.registration_timeout_ms);
  if (!reply) {
    const Error& error = reply.error();
    if (error.code == ErrorCode::kUnavailable || error.code == ErrorCode::kTimeout) {
      return refuse(Code::kTryAgainLater, error.message());
    }
    return refuse(error.code == ErrorCode::kUnsupported ? Code::kAgentVersion : Code::kRefused, error.message());
  }
  for (const auto& note : reply->notes) log::info("note of the agent {} note={}", call.who(), log::quote(note));
  if (!reply->error) return std::move(*reply);
  if (reply->error->code == ErrorCode::kUnavailable) {
    return refuse(Code::kTryAgainLater, "the agent is not ready: " + reply->error->message());
  }
  return refuse(Code::kRefused, "the agent refused: " + reply->error->message());
}

Outcome run(const Environment& environment, std::string_view standard_input) {
  std::string version;
  auto command = parse_command(environment.command);
  if (!command) return {1, error_document(command.error(), version)};
  if (*command == Command::kVersion) {
    auto document = parse_stdin(standard_input);
    return {0, version_document(document ? text_member(*document, "cniVersion") : std::string())};
  }
  // Until the configuration says otherwise.
  (void)log::init("info", log::Format::kText, "");
  auto output = run_verb(*command, environment, standard_input, version);
  if (!output) return {1, error_document(output.error(), version)};
  return {0, std::move(*output)};
}

}  // namespace weft::cni
