// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/ca_commands.h"

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

}  // namespace weft::cli
