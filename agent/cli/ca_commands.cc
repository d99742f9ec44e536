// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/ca_commands.h"

#include <CLI/CLI.hpp>
#include <map>
#include <memory>

#include "agent/identity/ca_files.h"
#include "agent/identity/self_signed.h"

namespace weft::cli {

Result<std::string> ca_init(const std::string& directory) {
  if (auto made = agent::init_ca(directory); !made) return Failure(made.error());
  return "made the root of a mesh: " + directory + "/root.pem, and its key " + directory +
         "/root-key.pem\ngive the directory to every node's weft-agent as --ca-dir; whoever has the key can be any "
         "workload of the mesh\n";
}

Result<std::string> ca_issue(const CaIssue& issue) {
  auto identity = state::Identity::parse(issue.identity);
  if (!identity) return Failure(identity.error());
  auto ca = agent::SelfSignedCa::load(issue.directory);
  if (!ca) return Failure(ca.error());
  auto bundle = (*ca)->issue(*identity, std::chrono::seconds(issue.ttl_seconds));
  if (!bundle) return Failure(bundle.error());
  if (auto written = agent::write_bundle(*bundle, issue.out); !written) return Failure(written.error());
  return "issued " + identity->to_uri() + ": " + issue.out + "/cert.pem, key.pem, roots.pem\n";
}

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
  leaf->add_option("--ttl", issue->ttl_seconds, "validity, such as 3600, 90m, 24h")
      ->transform(CLI::AsNumberWithUnit(std::map<std::string, long>{{"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}},
                                        CLI::AsNumberWithUnit::UNIT_OPTIONAL, "DURATION"))
      ->check(CLI::Range(1L, 3650L * 86400))
      ->default_str("24h");
  leaf->callback([&session, issue] { session.action = [&session, issue] { return session.done(ca_issue(*issue)); }; });
}

}  // namespace weft::cli
