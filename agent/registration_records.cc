// SPDX-License-Identifier: Apache-2.0
#include "agent/registration_records.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "agent/text_file.h"
#include "bpf/attach.h"
#include "cni-plugin/json.h"

namespace weft::agent {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr int kRecordVersion = 1;
/// The last second that the clock can hold.
constexpr std::time_t kLatest = std::chrono::floor<std::chrono::seconds>(WallTime::max()).time_since_epoch().count();

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

/// Reads the members of a record, and keeps the first thing that is wrong with them.
class FieldReader {
 public:
  explicit FieldReader(const cni::Json& record) : record_(record) {}

  [[nodiscard]] const std::optional<std::string>& problem() const { return problem_; }
  [[nodiscard]] bool has(const char* name) const { return cni::member(record_, name) != nullptr; }

  std::string text(const char* name) {
    const cni::Json* found = cni::member(record_, name);
    if (found != nullptr && found->is_string()) return found->get_ref<const std::string&>();
    bad(name, found, "a text");
    return {};
  }
  template <class T>
  T number(const char* name, T max = std::numeric_limits<T>::max()) {
    const cni::Json* found = cni::member(record_, name);
    if (found != nullptr && found->is_number_unsigned() &&
        found->get<std::uint64_t>() <= static_cast<std::uint64_t>(max)) {
      return found->get<T>();
    }
    bad(name, found, "a whole number from 0 to " + std::to_string(max));
    return {};
  }
  bool flag(const char* name) {
    const cni::Json* found = cni::member(record_, name);
    if (found != nullptr && found->is_boolean()) return found->get<bool>();
    bad(name, found, "true or false");
    return false;
  }
  std::vector<IpAddress> addresses(const char* name) {
    const cni::Json* found = cni::member(record_, name);
    std::vector<IpAddress> out;
    if (found == nullptr || !found->is_array()) bad(name, found, "a list of addresses");
    if (problem_) return out;
    for (const cni::Json& element : *found) {
      const auto address = element.is_string() ? IpAddress::parse(element.get_ref<const std::string&>())
                                               : Result<IpAddress>(IpAddress());
      if (!address || !address->valid()) bad(name, &element, "a list of addresses");
      out.push_back(address.value_or(IpAddress()));
    }
    return out;
  }
  std::map<std::string, std::string> texts(const char* name) {
    const cni::Json* found = cni::member(record_, name);
    std::map<std::string, std::string> out;
    if (found == nullptr || !found->is_object()) bad(name, found, "an object of texts");
    if (problem_) return out;
    for (const auto& [key, value] : found->items()) {
      if (!value.is_string())
        bad(name, &value, "an object of texts");
      else
        out.emplace(key, value.get_ref<const std::string&>());
    }
    return out;
  }

 private:
  void bad(const char* name, const cni::Json* found, const std::string& expected) {
    if (problem_) return;
    problem_ = std::string("record: ") + name + " is " +
               (found == nullptr ? std::string("missing") : cni::shown(*found)) + ", expected " + expected;
  }

  const cni::Json& record_;
  std::optional<std::string> problem_;
};

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
  auto document = cni::parse_json(text);
  if (!document) return fail(ErrorCode::kInvalid, "record: " + document.error().message());
  FieldReader reader(*document);
  const auto version = reader.number<int>("version");
  if (!reader.problem() && version != kRecordVersion) {
    return fail(ErrorCode::kUnsupported, "record: version " + std::to_string(version) + ", expected 1");
  }
  ParsedRecord parsed;
  Registration& r = parsed.registration;
  parsed.boot_id = reader.text("bootId");
  r.key = {reader.text("containerId"), reader.text("ifName")};
  r.netns_path = reader.text("netns");
  r.netns_id = {reader.number<std::uint64_t>("netnsInode"), reader.number<std::uint64_t>("netnsCookie")};
  r.pod_namespace = reader.text("podNamespace");
  r.pod_name = reader.text("podName");
  r.pod_uid = reader.text("podUid");
  r.addresses = reader.addresses("addresses");
  r.ifindex = reader.number<std::uint32_t>("ifindex");
  r.host_ifindex = reader.number<std::uint32_t>("hostIfindex");
  r.slot = reader.number<std::uint32_t>("slot");
  r.workload_uid = reader.text("workloadUid");
  r.enrolled = reader.flag("enrolled");
  // Records of 0.1 have none of these.
  if (reader.has("secondary")) r.secondary = reader.flag("secondary");
  if (reader.has("registeredAt")) {
    r.registered_at = std::chrono::system_clock::from_time_t(reader.number<std::time_t>("registeredAt", kLatest));
  }
  if (reader.has("annotations")) r.annotations = reader.texts("annotations");
  if (reader.problem()) return fail(ErrorCode::kInvalid, *reader.problem());
  return parsed;
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
