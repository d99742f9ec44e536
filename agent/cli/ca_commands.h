// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "tunnel/base/error.h"

namespace weft::cli {

struct CaIssue {
  std::string directory;
  std::string identity;
  std::string prefix;
  long ttl_seconds = 86'400;
};

/// `weftctl ca init`: makes the root. Refuses a directory that holds one. The text says what was made.
Result<std::string> ca_init(const std::string& directory, const std::string& trust_domain);
/// `weftctl ca issue`: PREFIX.crt (leaf and chain), PREFIX.key (mode 0600) and PREFIX.ca (the roots).
Result<std::string> ca_issue(const CaIssue& issue);

}  // namespace weft::cli
