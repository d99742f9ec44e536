// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "agent/cli/session.h"
#include "tunnel/base/error.h"

namespace weft::cli {

struct CaIssue {
  std::string directory;  ///< of the CA
  std::string identity;   ///< a SPIFFE URI
  std::string out;        ///< a directory
  long ttl_seconds = 86'400;
};

/// `weftctl ca init`: makes the root. Refuses a directory that holds one. The text says what was made.
Result<std::string> ca_init(const std::string& directory);
/// `weftctl ca issue`, whose text names the serial: OUT/cert.pem (leaf and chain), OUT/key.pem (mode 0600) and
/// OUT/roots.pem.
Result<std::string> ca_issue(const CaIssue& issue);

/// `weftctl ca rotate status`: how far a rotation is, and what comes next.
Result<std::string> ca_rotate_status(const std::string& directory);

void add_ca(CLI::App& app, Session& session);

}  // namespace weft::cli
