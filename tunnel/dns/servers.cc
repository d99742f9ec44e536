// SPDX-License-Identifier: Apache-2.0
#include "tunnel/dns/servers.h"

#include <cerrno>
#include <fstream>
#include <sstream>

#include "tunnel/base/log.h"

namespace weft::dns {
namespace {

/// As many as the C library takes.
constexpr std::size_t kServersMax = 3;

bool same_file(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino && a.st_size == b.st_size &&
         a.st_mtim.tv_sec == b.st_mtim.tv_sec && a.st_mtim.tv_nsec == b.st_mtim.tv_nsec;
}

}  // namespace

std::vector<IpAddress> parse_resolv_conf(std::string_view text) {
  std::vector<IpAddress> out;
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line) && out.size() < kServersMax;) {
    std::istringstream words(line);
    std::string keyword;
    std::string value;
    if (!(words >> keyword >> value) || keyword != "nameserver") continue;
    if (const auto address = IpAddress::parse(value)) out.push_back(*address);
  }
  return out;
}

Result<std::vector<Endpoint>> Servers::get() {
  struct stat now {};
  if (::stat(path_.c_str(), &now) != 0) return fail_errno(errno, "read " + path_);
  if (!servers_.empty() && same_file(now, seen_)) return servers_;
  std::ifstream file(path_);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) return fail(ErrorCode::kUnavailable, "read " + path_ + ": failed");
  const auto addresses = parse_resolv_conf(text.str());
  if (addresses.empty()) return fail(ErrorCode::kInvalid, "read " + path_ + ": it names no DNS server");
  servers_.clear();
  for (const auto& address : addresses) servers_.push_back({address, port_});
  seen_ = now;
  log::info("DNS servers read file={} count={} first={}", path_, servers_.size(), servers_.front().to_string());
  return servers_;
}

}  // namespace weft::dns
