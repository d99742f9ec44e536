// SPDX-License-Identifier: Apache-2.0
#include "agent/hardening/hardening.h"

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "agent/hardening/capabilities.h"
#include "agent/hardening/files.h"
#include "agent/hardening/memory.h"
#include "agent/hardening/syscalls.h"
#include "tunnel/base/log.h"

namespace weft::agent::hardening {
namespace {

Result<void> check_user() {
  const uid_t uid = ::geteuid();
  if (uid == 0) return {};
  return fail(ErrorCode::kDenied, "start as uid " + std::to_string(uid) +
                                      ": weft-agent runs as root, to whom the files of the node's network belong (and "
                                      "drops every capability but those of docs/security.md)");
}

Result<void> check_files(const Settings& settings) {
  for (const std::string& folder : {settings.run_dir, settings.bpf_root}) {
    if (auto closed = close_folder(folder); !closed) return closed;
  }
  const std::string folder = std::filesystem::path(settings.socket).parent_path();
  if (const std::string who = who_could_write(folder); !who.empty()) {
    return fail(ErrorCode::kDenied, "serve registrations on " + settings.socket + ": of its folder, " + who +
                                        " (others could answer weft-cni in the agent's place)");
  }
  if (const std::string who = who_could_write(settings.local_config); !who.empty()) {
    log::warn("others could change the mesh's policies path={} reason={}", settings.local_config, log::quote(who));
  }
  return {};
}

std::string names_of_kept() {
  std::string names;
  for (const auto& capability : capabilities()) {
    if (capability.use == Use::kRun) names += (names.empty() ? "" : ",") + std::string(capability.name);
  }
  return names;
}

}  // namespace

Result<void> harden(const Settings& settings) {
  const SeccompMode seccomp = is_instrumented() ? SeccompMode::kOff : settings.seccomp;
  ::umask(0077);
  for (const auto step : {&check_user, static_cast<Result<void> (*)()>(&check_capabilities), &raise_memlock_for_maps,
                          &protect_keys, &drop_capabilities}) {
    if (auto done = step(); !done) return done;
  }
  if (auto filtered = filter_syscalls(seccomp); !filtered) return filtered;
  if (auto checked = check_files(settings); !checked) return checked;
  log::info("rights dropped capabilities={} seccomp={}", names_of_kept(), to_text(seccomp));
  if (seccomp != SeccompMode::kEnforce) {
    log::warn("no system call is refused seccomp={} (set --seccomp=enforce)", to_text(seccomp));
  }
  return {};
}

}  // namespace weft::agent::hardening
