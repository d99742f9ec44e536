// SPDX-License-Identifier: Apache-2.0
#include "agent/reconcile/cni_cache.h"

#include <sys/stat.h>

#include <filesystem>

#include "agent/text_file.h"
#include "cni-plugin/conf.h"

namespace weft::agent {
namespace {

namespace fs = std::filesystem;
using cni::Json;
using cni::member;
using cni::text_member;

/// cniArgs is a list of pairs of texts.
cni::PodIdentity pod_of(const Json& document) {
  cni::PodIdentity pod;
  const Json* args = member(document, "cniArgs");
  if (args == nullptr || !args->is_array()) return pod;
  for (const Json& pair : *args) {
    if (!pair.is_array() || pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string()) continue;
    pod.take(pair[0].get_ref<const std::string&>(), pair[1].get_ref<const std::string&>());
  }
  return pod;
}

std::string netns_of(const Json& document, const Json& result, const std::string& if_name) {
  std::string netns = text_member(document, "netns");
  const Json* interfaces = member(result, "interfaces");
  if (!netns.empty() || interfaces == nullptr || !interfaces->is_array()) return netns;
  for (const Json& entry : *interfaces) {
    if (text_member(entry, "name") == if_name && !text_member(entry, "sandbox").empty()) {
      netns = text_member(entry, "sandbox");
    }
  }
  return netns;
}

}  // namespace

Result<CachedAttachment> parse_cached(const std::string& text) {
  auto document = cni::parse_json(text);
  if (!document) return fail(ErrorCode::kInvalid, "CNI cache entry: " + document.error().message());
  if (!document->is_object() || text_member(*document, "kind") != "cniCacheV1") {
    return fail(ErrorCode::kInvalid, "CNI cache entry: kind is not cniCacheV1 (was it written by another libcni?)");
  }
  CachedAttachment cached;
  cached.network = text_member(*document, "networkName");
  cached.key = {text_member(*document, "containerId"), text_member(*document, "ifName")};
  if (cached.network.empty()) return fail(ErrorCode::kInvalid, "CNI cache entry: networkName is missing");
  if (!cni::is_identifier(cached.key.container_id)) {
    return fail(ErrorCode::kInvalid, "CNI cache entry: containerId is missing or malformed");
  }
  if (!cni::is_interface_name(cached.key.if_name)) {
    return fail(ErrorCode::kInvalid, "CNI cache entry: ifName is missing or malformed");
  }
  const Json* result = member(*document, "result");
  if (result == nullptr || !result->is_object()) {
    return fail(ErrorCode::kInvalid, "CNI cache entry: result is missing or no object");
  }
  cached.pod = pod_of(*document);
  cached.netns = netns_of(*document, *result, cached.key.if_name);
  if (const Json* capabilities = member(*document, "capabilityArgs")) {
    cached.annotations = cni::understood_annotations(*capabilities);
  }
  cached.result = *result;
  return cached;
}

Result<CniCache> read_cni_cache(const std::string& directory) {
  CniCache cache;
  std::error_code error;
  fs::directory_iterator entries(directory, error);
  if (error == std::errc::no_such_file_or_directory) return cache;
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    const std::string path = entries->path().string();
    struct stat st {};
    // An entry may go while we read: its pod goes too.
    if (::stat(path.c_str(), &st) < 0 || !S_ISREG(st.st_mode)) continue;
    auto text = read_text_file(path);
    if (!text) continue;
    auto cached = parse_cached(*text);
    if (!cached) {
      cache.problems.push_back(path + ": " + cached.error().message());
      continue;
    }
    cached->written_ns = static_cast<std::int64_t>(st.st_mtim.tv_sec) * 1'000'000'000 + st.st_mtim.tv_nsec;
    cache.attachments.push_back(std::move(*cached));
  }
  if (error) return fail_errno(error.value(), "read the CNI cache " + directory);
  return cache;
}

}  // namespace weft::agent
