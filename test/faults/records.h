// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <vector>

#include "test/faults/flows.h"

namespace weft::test {

/// One access line, by its keys.
using Record = std::map<std::string, std::string>;
/// The access lines in a piece of the log.
std::vector<Record> records_in(const std::string& log);

/// What must be true of the flows of one seed and of what was recorded of them, when all have ended.
struct Audit {
  const Flows& flows;
  const std::string& log;  ///< of the seed
  Harm harm;               ///< of the seed: with transient failures alone no connection may fail
  bool denied;             ///< a policy denied for a time
  /// Clients whose connections the kernel took back before they could be accepted.
  std::vector<Endpoint> taken_back;
  /// How many HBONE connections failed at the destination when it asked who the peer was.
  std::size_t nameless_peers = 0;
};
/// Each violation in words; empty where there is none.
std::vector<std::string> violations(const Audit& audit);

}  // namespace weft::test
