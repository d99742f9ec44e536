// SPDX-License-Identifier: Apache-2.0
#include "agent/registration_records.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "agent/text_file.h"
#include "bpf/attach.h"

namespace weft::agent {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr int kRecordVersion = 1;

/// Empty where the kernel does not say: then records of any boot are compared by their netns alone.
std::string boot_id() {
  auto text = read_text_file("/proc/sys/kernel/random/boot_id");
  if (!text) return "";
  while (!text->empty() && text->back() == '\n') text->pop_back();
  return *text;
}

Result<void> write_all(int fd, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "write " + path);
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  return {};
}

}  // namespace

std::string encode_record(const Registration& r, const std::string& boot) {
  json addresses = json::array();
  for (const auto& address : r.addresses) addresses.push_back(address.to_string());
  const json record = {{"version", kRecordVersion},
                       {"bootId", boot},
                       {"containerId", r.key.container_id},
                       {"ifName", r.key.if_name},
                       {"netns", r.netns_path},
                       {"netnsInode", r.netns_id.inode},
                       {"netnsCookie", r.netns_id.cookie},
                       {"podNamespace", r.pod_namespace},
                       {"podName", r.pod_name},
                       {"podUid", r.pod_uid},
                       {"addresses", addresses},
                       {"ifindex", r.ifindex},
                       {"hostIfindex", r.host_ifindex},
                       {"slot", r.slot},
                       {"workloadUid", r.workload_uid},
                       {"enrolled", r.enrolled},
                       {"secondary", r.secondary},
                       {"registeredAt", std::chrono::system_clock::to_time_t(r.registered_at)},
                       {"annotations", r.annotations}};
  return record.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

Result<ParsedRecord> parse_record(const std::string& text) {
  try {
    const json j = json::parse(text);
    if (j.at("version").get<int>() != kRecordVersion) {
      return fail(ErrorCode::kUnsupported, "record: version " + j.at("version").dump() + ", expected 1");
    }
    ParsedRecord parsed;
    Registration& r = parsed.registration;
    parsed.boot_id = j.at("bootId").get<std::string>();
    r.key = {j.at("containerId").get<std::string>(), j.at("ifName").get<std::string>()};
    r.netns_path = j.at("netns").get<std::string>();
    r.netns_id = {j.at("netnsInode").get<std::uint64_t>(), j.at("netnsCookie").get<std::uint64_t>()};
    r.pod_namespace = j.at("podNamespace").get<std::string>();
    r.pod_name = j.at("podName").get<std::string>();
    r.pod_uid = j.at("podUid").get<std::string>();
    for (const auto& element : j.at("addresses")) {
      auto address = IpAddress::parse(element.get<std::string>());
      if (!address) return Failure(address.error());
      r.addresses.push_back(*address);
    }
    r.ifindex = j.at("ifindex").get<std::uint32_t>();
    r.host_ifindex = j.at("hostIfindex").get<std::uint32_t>();
    r.slot = j.at("slot").get<std::uint32_t>();
    r.workload_uid = j.at("workloadUid").get<std::string>();
    r.enrolled = j.at("enrolled").get<bool>();
    // Records of 0.1 have none of these.
    r.secondary = j.value("secondary", false);
    r.registered_at = std::chrono::system_clock::from_time_t(j.value("registeredAt", std::time_t{0}));
    r.annotations = j.value("annotations", std::map<std::string, std::string>());
    return parsed;
  } catch (const json::exception& e) {
    return fail(ErrorCode::kInvalid, std::string("record: ") + e.what());
  }
}

Result<RegistrationRecords> RegistrationRecords::open(const std::string& run_dir) {
  const std::string directory = run_dir + "/registrations";
  std::error_code error;
  fs::create_directories(directory, error);
  if (error) return fail_errno(error.value(), "make the directory " + directory);
  if (::chmod(directory.c_str(), 0700) < 0) return fail_errno(errno, "chmod 0700 " + directory);
  return RegistrationRecords(directory);
}

std::string RegistrationRecords::path_of(const cni::AttachmentKey& key) const {
  return directory_ + "/" + bpf::attachment_id(key.container_id, key.if_name) + ".json";
}

Result<RegistrationRecords::Loaded> RegistrationRecords::load() const {
  Loaded loaded;
  const std::string boot = boot_id();
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory_, error)) {
    const std::string path = entry.path().string();
    if (entry.path().extension() != ".json") {
      // A half-written temporary of an agent that was killed.
      if (entry.path().extension() == ".tmp") ::unlink(path.c_str());
      continue;
    }
    auto text = read_text_file(path);
    auto parsed = text ? parse_record(*text) : Result<ParsedRecord>(Failure(text.error()));
    if (!parsed) {
      loaded.problems.push_back(path + ": " + parsed.error().message() + "; put aside as *.bad");
      if (::rename(path.c_str(), (path + ".bad").c_str()) < 0) loaded.problems.back() += " (which failed)";
      continue;
    }
    if (!boot.empty() && parsed->boot_id != boot) {
      ::unlink(path.c_str());
      continue;
    }
    loaded.registrations.push_back(std::move(parsed->registration));
  }
  if (error) return fail_errno(error.value(), "read the directory " + directory_);
  return loaded;
}

Result<void> RegistrationRecords::save(const Registration& registration) const {
  const std::string path = path_of(registration.key);
  const std::string temporary = path + ".tmp";
  Fd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!fd) return fail_errno(errno, "write the registration record " + temporary);
  auto written = write_all(fd.get(), encode_record(registration, boot_id()), temporary);
  fd.reset();
  if (written && ::rename(temporary.c_str(), path.c_str()) < 0) {
    written = Failure(fail_errno(errno, "rename " + temporary + " to " + path));
  }
  if (!written) ::unlink(temporary.c_str());
  return written;
}

Result<void> RegistrationRecords::remove(const cni::AttachmentKey& key) const {
  const std::string path = path_of(key);
  if (::unlink(path.c_str()) < 0 && errno != ENOENT) return fail_errno(errno, "remove " + path);
  return {};
}

}  // namespace weft::agent
