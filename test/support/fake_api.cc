// SPDX-License-Identifier: Apache-2.0
#include "test/support/fake_api.h"

#include <httplib.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <cstdio>

#include "test/support/process.h"

namespace weft::test {
namespace {

using nlohmann::json;

constexpr const char* kPods = "/api/v1/pods";
constexpr const char* kNamespaces = "/api/v1/namespaces";
constexpr int kThreads = 32;

void must_be(bool ok, const char* what) {
  if (!ok) throw TestError(std::string("the fake API's certificate: ") + what);
}

void add_extension(X509* certificate, int nid, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, certificate, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value);
  must_be(extension != nullptr && X509_add_ext(certificate, extension, -1) == 1, value);
  X509_EXTENSION_free(extension);
}

void write_text(const std::string& path, const std::string& text) {
  const std::string next = path + ".next";
  FILE* out = std::fopen(next.c_str(), "we");
  if (out == nullptr || std::fputs(text.c_str(), out) < 0 || std::fclose(out) != 0 ||
      std::rename(next.c_str(), path.c_str()) != 0) {
    throw TestError("write " + path);
  }
}

std::string status_document(int code, const std::string& message) {
  return json{{"kind", "Status"}, {"apiVersion", "v1"}, {"status", "Failure"}, {"code", code}, {"message", message}}
      .dump();
}

void refuse(httplib::Response& response, int code, const std::string& message) {
  response.status = code;
  response.set_content(status_document(code, message), "application/json");
}

/// The node that a fieldSelector asks for; empty: all of them.
std::string node_of(const httplib::Request& request) {
  const std::string selector = request.get_param_value("fieldSelector");
  const std::string prefix = "spec.nodeName=";
  return selector.starts_with(prefix) ? selector.substr(prefix.size()) : "";
}

std::string node_of(const json& object) { return object.value("/spec/nodeName"_json_pointer, ""); }

/// Metadata alone, as PartialObjectMetadata has it.
json shown_to(const httplib::Request& request, const json& object) {
  if (request.get_header_value("Accept").find("PartialObjectMetadata") == std::string::npos) return object;
  return {{"kind", "PartialObjectMetadata"}, {"apiVersion", "meta.k8s.io/v1"}, {"metadata", object.at("metadata")}};
}

}  // namespace

void write_server_certificate(const std::string& certificate_path, const std::string& key_path,
                              const std::string& address) {
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* certificate = X509_new();
  must_be(key != nullptr && certificate != nullptr, "memory");
  X509_set_version(certificate, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 86'400);
  X509_set_pubkey(certificate, key);
  X509_NAME* name = X509_get_subject_name(certificate);
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>("fake API"), -1, -1, 0);
  X509_set_issuer_name(certificate, name);
  add_extension(certificate, NID_basic_constraints, "critical,CA:TRUE");
  add_extension(certificate, NID_subject_alt_name, ("IP:" + address).c_str());
  must_be(X509_sign(certificate, key, EVP_sha256()) > 0, "signature");
  FILE* out = std::fopen(certificate_path.c_str(), "we");
  must_be(out != nullptr && PEM_write_X509(out, certificate) == 1, "file");
  std::fclose(out);
  out = std::fopen(key_path.c_str(), "we");
  must_be(out != nullptr && PEM_write_PrivateKey(out, key, nullptr, nullptr, 0, nullptr, nullptr) == 1, "key file");
  std::fclose(out);
  X509_free(certificate);
  EVP_PKEY_free(key);
}

FakeApi::FakeApi(const std::string& folder, const Netns* netns) : folder_(folder), netns_(netns) {
  write_server_certificate(root_file(), folder_ + "/api-key.pem");
  rotate_token("first", true);
  start();
}

FakeApi::~FakeApi() { stop(); }

std::string FakeApi::url() const { return "https://127.0.0.1:" + std::to_string(port_); }

void FakeApi::rotate_token(const std::string& token, bool write) {
  {
    const std::lock_guard lock(mutex_);
    token_ = token;
  }
  if (write) write_text(token_file(), token + "\n");
}

void FakeApi::start() {
  stopping_ = false;
  const std::string key = folder_ + "/api-key.pem";
  server_ = std::make_unique<httplib::SSLServer>(root_file().c_str(), key.c_str());
  must_be(server_->is_valid(), "not taken by the server");
  server_->new_task_queue = [] { return new httplib::ThreadPool(kThreads); };
  server_->set_tcp_nodelay(true);
  // stop() waits for connections that nobody uses.
  server_->set_keep_alive_timeout(1);
  server_->set_keep_alive_max_count(1'000);
  const auto handler = [this](const httplib::Request& request, httplib::Response& response) {
    serve(request, response);
  };
  server_->Get(".*", handler);
  server_->Post(".*", handler);
  server_->Patch(".*", handler);
  const auto bind = [this] {
    if (port_ == 0) {
      port_ = server_->bind_to_any_port("127.0.0.1");
    } else if (!server_->bind_to_port("127.0.0.1", port_)) {
      port_ = -1;
    }
  };
  netns_ == nullptr ? bind() : run_in(*netns_, bind);
  if (port_ <= 0) throw TestError("the fake API cannot listen");
  thread_ = std::thread([this] { server_->listen_after_bind(); });
  if (!eventually(milliseconds(10'000), [this] { return server_->is_running(); }))
    throw TestError("the fake API does not run");
}

void FakeApi::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (server_) server_->stop();
  if (thread_.joinable()) thread_.join();
  server_.reset();
  const std::lock_guard lock(mutex_);
  streams_.clear();
}

std::map<std::string, json>& FakeApi::objects_of(const std::string& collection) {
  return collection == kPods ? pods_ : namespaces_;
}

/// Under the lock.
void FakeApi::tell(const std::string& type, const std::string& collection, const json& object) {
  changes_.push_back({version_, collection, json{{"type", type}, {"object", object}}.dump(), node_of(object)});
  changed_.notify_all();
}

void FakeApi::set_namespace(const std::string& name, const json& labels) {
  const std::lock_guard lock(mutex_);
  const bool is_new = !namespaces_.contains(name);
  json& object = namespaces_[name];
  object = {
      {"kind", "Namespace"},
      {"apiVersion", "v1"},
      {"metadata",
       {{"name", name}, {"uid", "uid-" + name}, {"resourceVersion", std::to_string(++version_)}, {"labels", labels}}}};
  tell(is_new ? "ADDED" : "MODIFIED", kNamespaces, object);
}

void FakeApi::set_pod(const std::string& namespace_name, const std::string& name, const std::string& node,
                      const json& more) {
  const std::lock_guard lock(mutex_);
  const std::string key = namespace_name + "/" + name;
  const bool is_new = !pods_.contains(key);
  json& object = pods_[key];
  if (is_new) {
    object = {{"kind", "Pod"},
              {"apiVersion", "v1"},
              {"metadata", {{"name", name}, {"namespace", namespace_name}, {"uid", "uid-" + key}}},
              {"spec", {{"nodeName", node}}},
              {"status", {{"phase", "Running"}, {"podIP", "192.0.2.1"}}}};
  }
  object.merge_patch(more);
  object["metadata"]["resourceVersion"] = std::to_string(++version_);
  tell(is_new ? "ADDED" : "MODIFIED", kPods, object);
}

void FakeApi::delete_pod(const std::string& namespace_name, const std::string& name) {
  const std::lock_guard lock(mutex_);
  auto node = pods_.extract(namespace_name + "/" + name);
  if (node.empty()) return;
  node.mapped()["metadata"]["resourceVersion"] = std::to_string(++version_);
  tell("DELETED", kPods, node.mapped());
}

json FakeApi::pod(const std::string& namespace_name, const std::string& name) const {
  const std::lock_guard lock(mutex_);
  const auto found = pods_.find(namespace_name + "/" + name);
  return found == pods_.end() ? json() : found->second;
}

std::string FakeApi::annotation(const std::string& namespace_name, const std::string& name,
                                const std::string& key) const {
  const json object = pod(namespace_name, name);
  if (object.is_null() || !object.at("metadata").contains("annotations")) return "";
  return object.at("metadata").at("annotations").value(key, "");
}

std::vector<json> FakeApi::events() const {
  const std::lock_guard lock(mutex_);
  return events_;
}

void FakeApi::fail_next(const std::string& method, const std::string& path, int status, int times, int retry_after) {
  const std::lock_guard lock(mutex_);
  failing_.push_back({method, path, status, times, retry_after});
}

void FakeApi::fail_no_more() {
  const std::lock_guard lock(mutex_);
  failing_.clear();
}

void FakeApi::cut_streams() {
  const std::lock_guard lock(mutex_);
  for (const auto& stream : streams_) stream->cut = true;
  changed_.notify_all();
}

void FakeApi::send_line(const std::string& line) {
  const std::lock_guard lock(mutex_);
  for (const auto& stream : streams_) stream->lines.push_back(line);
  changed_.notify_all();
}

void FakeApi::send_bookmarks() {
  std::string version;
  {
    const std::lock_guard lock(mutex_);
    version = std::to_string(++version_);
  }
  send_line(json{{"type", "BOOKMARK"}, {"object", {{"metadata", {{"resourceVersion", version}}}}}}.dump());
}

void FakeApi::compact() {
  const std::lock_guard lock(mutex_);
  compacted_ = ++version_;
  changes_.clear();
}

void FakeApi::set_page(std::size_t objects) {
  const std::lock_guard lock(mutex_);
  page_ = objects;
}

void FakeApi::set_silent(bool silent) {
  const std::lock_guard lock(mutex_);
  silent_ = silent;
  changed_.notify_all();
}

void FakeApi::on_patch(std::function<void(const json&)> told) {
  const std::lock_guard lock(mutex_);
  on_patch_ = std::move(told);
}

std::vector<FakeApi::Asked> FakeApi::asked(const std::string& method, const std::string& path_prefix) const {
  const std::lock_guard lock(mutex_);
  std::vector<Asked> found;
  for (const auto& one : asked_) {
    if (one.method == method && (one.path + "?" + one.query).starts_with(path_prefix)) found.push_back(one);
  }
  return found;
}

std::size_t FakeApi::streams() const {
  const std::lock_guard lock(mutex_);
  return begun_;
}

void FakeApi::serve(const httplib::Request& request, httplib::Response& response) {
  const std::string authorization = request.get_header_value("Authorization");
  const std::string token = authorization.starts_with("Bearer ") ? authorization.substr(7) : "";
  const auto question = request.target.find('?');
  const std::string query = question == std::string::npos ? "" : request.target.substr(question + 1);
  {
    const std::lock_guard lock(mutex_);
    asked_.push_back({request.method, request.path, query, request.body, token});
    if (token != token_) return refuse(response, 401, "Unauthorized");
    for (auto& failing : failing_) {
      const bool meant = request.method == failing.method && (request.path + "?" + query).starts_with(failing.path);
      if (failing.times == 0 || !meant) continue;
      --failing.times;
      if (failing.retry_after > 0) response.set_header("Retry-After", std::to_string(failing.retry_after));
      return refuse(response, failing.status, "made to fail");
    }
  }
  const std::string& path = request.path;
  if (request.method == "PATCH") return answer_patch(request, response);
  if (request.method == "POST") {
    const std::lock_guard lock(mutex_);
    events_.push_back(json::parse(request.body));
    response.status = 201;
    return response.set_content(request.body, "application/json");
  }
  if (path != kPods && path != kNamespaces) return answer_one(request, response);
  if (request.has_param("watch")) return answer_watch(request, response, path);
  answer_list(request, response, path);
}

void FakeApi::answer_list(const httplib::Request& request, httplib::Response& response, const std::string& collection) {
  const std::lock_guard lock(mutex_);
  const std::string node = node_of(request);
  std::vector<json> all;
  for (const auto& [key, object] : objects_of(collection)) {
    if (node.empty() || node_of(object) == node) all.push_back(shown_to(request, object));
  }
  std::size_t from = 0, limit = all.size();
  if (request.has_param("limit")) limit = std::stoul(request.get_param_value("limit"));
  if (page_ != 0) limit = std::min(limit, page_);
  if (request.has_param("continue")) from = std::stoul(request.get_param_value("continue"));
  const std::size_t end = std::min(all.size(), from + limit);
  json page = {{"kind", "List"}, {"metadata", {{"resourceVersion", std::to_string(version_)}}}};
  page["items"] = json::array();
  for (std::size_t i = from; i < end; ++i) page["items"].push_back(all[i]);
  if (end < all.size()) page["metadata"]["continue"] = std::to_string(end);
  response.set_content(page.dump(), "application/json");
}

void FakeApi::answer_watch(const httplib::Request& request, httplib::Response& response,
                           const std::string& collection) {
  auto stream = std::make_shared<Stream>();
  stream->collection = collection;
  stream->node = node_of(request);
  stream->seen = std::stoull(request.get_param_value("resourceVersion"));
  {
    const std::lock_guard lock(mutex_);
    if (stream->seen < compacted_) return refuse(response, 410, "too old resource version");
    streams_.push_back(stream);
    ++begun_;
  }
  response.set_chunked_content_provider(
      "application/json", [this, stream](std::size_t /*offset*/, httplib::DataSink& sink) {
        std::string lines;
        bool cut = false;
        {
          std::unique_lock lock(mutex_);
          const auto collect = [&] {
            for (auto& line : stream->lines) lines += line + "\n";
            stream->lines.clear();
            for (const auto& change : changes_) {
              if (silent_) break;
              if (change.version <= stream->seen || change.collection != stream->collection) continue;
              if (stream->node.empty() || change.node == stream->node) lines += change.line + "\n";
              stream->seen = change.version;
            }
            return stopping_ || stream->cut || !lines.empty();
          };
          changed_.wait_for(lock, std::chrono::milliseconds(200), collect);
          cut = stopping_ || stream->cut;
        }
        if (cut) lines += R"({"type":"ADDED","obj)";
        if (!lines.empty() && !sink.write(lines.data(), lines.size())) return false;
        // Whoever left is noticed by the next line alone.
        return !cut && sink.is_writable();
      });
}

void FakeApi::answer_one(const httplib::Request& request, httplib::Response& response) {
  // /api/v1/namespaces/NAME or /api/v1/namespaces/NAMESPACE/pods/NAME
  std::string rest = request.path.substr(std::min(request.path.size(), std::string(kNamespaces).size() + 1));
  const auto pods = rest.find("/pods/");
  const std::lock_guard lock(mutex_);
  const auto& objects = pods == std::string::npos ? namespaces_ : pods_;
  if (pods != std::string::npos) rest.replace(pods, 6, "/");
  const auto found = objects.find(rest);
  if (found == objects.end()) return refuse(response, 404, "\"" + rest + "\" not found");
  response.set_content(shown_to(request, found->second).dump(), "application/json");
}

void FakeApi::answer_patch(const httplib::Request& request, httplib::Response& response) {
  std::string key = request.path.substr(std::string(kNamespaces).size() + 1);
  const auto pods = key.find("/pods/");
  if (pods == std::string::npos || !key.ends_with("/status")) return refuse(response, 403, "pods/status alone");
  key.replace(pods, 6, "/");
  key.resize(key.size() - 7);
  const json patch = json::parse(request.body);
  std::unique_lock lock(mutex_);
  if (const auto told = on_patch_) {
    lock.unlock();
    told(patch);
    lock.lock();
  }
  const auto found = pods_.find(key);
  if (found == pods_.end()) return refuse(response, 404, "pods \"" + key + "\" not found");
  json& object = found->second;
  const std::string uid = patch.value("/metadata/uid"_json_pointer, "");
  if (!uid.empty() && uid != object.at("metadata").at("uid"))
    return refuse(response, 422, "metadata.uid: field is immutable");
  object["metadata"]["annotations"].merge_patch(patch.at("metadata").at("annotations"));
  object["metadata"]["resourceVersion"] = std::to_string(++version_);
  tell("MODIFIED", kPods, object);
  response.set_content(object.dump(), "application/json");
}

}  // namespace weft::test
