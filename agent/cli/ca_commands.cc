// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/ca_commands.h"

#include <CLI/CLI.hpp>
#include <memory>

#include "agent/duration_flag.h"
#include "agent/identity/ca_files.h"
#include "agent/identity/ca_revocation.h"
#include "agent/identity/ca_rotation.h"
#include "agent/identity/self_signed.h"
#include "tunnel/base/rfc3339.h"
#include "tunnel/hbone/tls_x509.h"

namespace weft::cli {

Result<std::string> ca_init(const std::string& directory) {
  if (auto made = agent::init_ca(directory); !made) return Failure(made.error());
  return "made the root of a mesh: " + directory + "/root.pem, and its key " + directory +
         "/root-key.pem\ngive the directory to every node's weft-agent as --ca-dir; whoever has the key can be any "
         "workload of the mesh\n";
}

Result<std::string> ca_rotate_status(const std::string& directory) {
  const auto state = agent::rotation_state(directory);
  if (!state) return Failure(state.error());
  std::string text = "signs    " + state->signing + "\n";
  if (!state->other.empty()) text += "trusted  " + state->other + "\n";
  text += "roots    " + std::to_string(state->trusted) + "\nstep     ";
  using Step = agent::Rotation::Step;
  if (state->step == Step::kNone) return text + "no rotation is under way\n";
  const std::string since = state->since ? " since " + rfc3339(*state->since) : "";
  if (state->step == Step::kPrepared) return text + "prepared" + since + "; next: activate, or back\n";
  return text + "activated" + since + "; next: finish, or back\n";
}

Result<std::string> ca_issue(const CaIssue& issue) {
  auto identity = state::Identity::parse(issue.identity);
  if (!identity) return Failure(identity.error());
  auto ca = agent::SelfSignedCa::load(issue.directory);
  if (!ca) return Failure(ca.error());
  auto bundle = (*ca)->issue(*identity, std::chrono::seconds(issue.ttl_seconds));
  if (!bundle) return Failure(bundle.error());
  if (auto written = agent::write_bundle(*bundle, issue.out); !written) return Failure(written.error());
  const auto leaf = hbone::read_certificates(bundle->certificate_pem, "certificate");
  if (!leaf) return Failure(leaf.error());
  return "issued " + identity->to_uri() + ", serial " + hbone::serial_hex(leaf->front().get()) + ": " + issue.out +
         "/cert.pem, key.pem, roots.pem\n";
}

namespace {

void add_rotate(CLI::App& ca, Session& session) {
  struct Arguments {
    std::string directory;
    bool now = false;
  };
  auto* rotate = ca.add_subcommand("rotate", "replaces the root in three steps; copy DIR to every node after each");
  rotate->require_subcommand(1);
  rotate->footer(
      "prepare, then activate, then finish. Before each step `weftctl certificates` is to show the one before on every "
      "node:\nboth roots, then the new one as the issuer of every certificate.");
  using Step = Result<std::string> (*)(const std::string&, bool);
  const auto add = [&](const char* name, const char* help, bool waits, Step step) {
    const auto arguments = std::make_shared<Arguments>();
    auto* command = rotate->add_subcommand(name, help);
    command->add_option("DIR", arguments->directory, "the CA's directory")->required();
    if (waits) command->add_flag("--now", arguments->now, "although the step before was made only seconds ago");
    command->callback([&session, arguments, step] {
      session.action = [&session, arguments, step] { return session.done(step(arguments->directory, arguments->now)); };
    });
  };
  add("status", "how far it is, and what comes next", false,
      [](const std::string& dir, bool) { return ca_rotate_status(dir); });
  add("prepare", "makes a new root, which is trusted and does not sign yet", false,
      [](const std::string& dir, bool) { return agent::rotate_prepare(dir); });
  add("activate", "the new root signs; the old one is still trusted", true,
      [](const std::string& dir, bool now) { return agent::rotate_activate(dir, now); });
  add("finish", "the old root is not trusted any more", true,
      [](const std::string& dir, bool now) { return agent::rotate_finish(dir, now); });
  add("back", "takes the last step back", true,
      [](const std::string& dir, bool now) { return agent::rotate_back(dir, now); });
}

void add_revoke(CLI::App& ca, Session& session) {
  constexpr long kDay = 86'400;
  struct Arguments {
    agent::RevokeRequest request;
    long next_update_s = 30 * kDay;
  };
  const auto arguments = std::make_shared<Arguments>();
  auto* command = ca.add_subcommand("revoke", "adds certificates to DIR/crl.pem; without any, gives it new dates");
  command->add_option("DIR", arguments->request.directory, "the CA's directory")->required();
  command->add_option("--serial", arguments->request.serials, "hexadecimal, as `weftctl certificates` shows it");
  command->add_option("--certificate", arguments->request.certificates, "a PEM file, such as OUT/cert.pem");
  agent::takes_duration(
      command->add_option("--next-update", arguments->next_update_s, "until when a newer list is to follow"), 60,
      3650 * kDay)
      ->default_str("30d");
  command->footer(
      "Agents cut the tunnels of a revoked certificate and refuse it. A workload's next certificate is another one:\n"
      "to shut a workload out, use a policy.");
  command->callback([&session, arguments] {
    session.action = [&session, arguments] {
      arguments->request.next_update = seconds(arguments->next_update_s);
      return session.done(agent::revoke(arguments->request));
    };
  });
}

}  // namespace

void add_ca(CLI::App& app, Session& session) {
  auto* ca = app.add_subcommand("ca", "the mesh's own CA, for agents with --ca-dir");
  ca->require_subcommand(1);
  const auto directory = std::make_shared<std::string>();
  auto* init = ca->add_subcommand("init", "make the root of a mesh in DIR; copy DIR to every node");
  init->add_option("DIR", *directory, "a directory, made if it does not exist")->required();
  init->callback(
      [&session, directory] { session.action = [&session, directory] { return session.done(ca_init(*directory)); }; });
  const auto issue = std::make_shared<CaIssue>();
  auto* leaf = ca->add_subcommand("issue", "issue one certificate, to OUT/cert.pem, OUT/key.pem and OUT/roots.pem");
  leaf->add_option("DIR", issue->directory, "the CA's directory")->required();
  leaf->add_option("--identity", issue->identity, "spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT")->required();
  leaf->add_option("--out", issue->out, "a directory, made if it does not exist")->required();
  agent::takes_duration(leaf->add_option("--ttl", issue->ttl_seconds, "validity, such as 3600, 90m, 24h"), 1,
                        3650L * 86400)
      ->default_str("24h");
  leaf->callback([&session, issue] { session.action = [&session, issue] { return session.done(ca_issue(*issue)); }; });
  add_rotate(*ca, session);
  add_revoke(*ca, session);
}

}  // namespace weft::cli
