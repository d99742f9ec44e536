// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <vector>

#include "cni-plugin/environment.h"
#include "cni-plugin/json.h"
#include "cni-plugin/registration.h"
#include "tunnel/base/error.h"

namespace weft::agent {

/// One attachment as libcni remembers it: what a chain of plugins made and the runtime has not deleted. It says what
/// was, not what is: to be verified against the kernel.
struct CachedAttachment {
  std::string network;
  cni::AttachmentKey key;
  cni::PodIdentity pod;                            ///< empty for a container that no Kubernetes started
  std::string netns;                               ///< a path; empty where neither the entry nor its result names one
  cni::Json result;                                ///< of the whole chain
  std::map<std::string, std::string> annotations;  ///< those that Weft understands
  std::int64_t written_ns = 0;  ///< the file's time: of two entries for one netns the later one counts
};

/// The text of a cache file (kind cniCacheV1). Older libcni left the netns out: then it is the sandbox of the result's
/// interface. Errors: kInvalid, naming the member.
Result<CachedAttachment> parse_cached(const std::string& text);

struct CniCache {
  std::vector<CachedAttachment> attachments;
  std::vector<std::string> problems;  ///< files that cannot be understood, one text each
};
/// All entries of DIRECTORY (usually /var/lib/cni/results). None where it does not exist.
Result<CniCache> read_cni_cache(const std::string& directory);

}  // namespace weft::agent
