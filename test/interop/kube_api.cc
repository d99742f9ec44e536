// SPDX-License-Identifier: Apache-2.0
#include "test/interop/kube_api.h"

#include <arpa/inet.h>
#include <sys/socket.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <set>
#include <sstream>

#include "test/support/fake_api.h"
#include "tunnel/base/fd.h"

namespace weft::test {
namespace {

using kube::Json;

constexpr milliseconds kReadyDeadline{120'000};

std::vector<std::string> words(const char* variable) {
  const char* value = std::getenv(variable);
  std::istringstream text(value == nullptr ? "" : value);
  std::vector<std::string> all;
  for (std::string word; text >> word;) all.push_back(word);
  return all;
}

/// Nobody's now; by the time it is used it may be somebody's, and the program that was given it ends then.
int free_port() {
  const Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0 ||
      ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    throw TestError("no port of 127.0.0.1 is free");
  }
  return ::ntohs(address.sin_port);
}

/// The value of a key at the beginning of a line, or below `metadata:`.
std::string value_of(const std::string& text, const std::string& key) {
  const auto found = text.find("\n" + key + ": ");
  if (found == std::string::npos) return {};
  const auto begin = found + key.size() + 3;
  return text.substr(begin, text.find('\n', begin) - begin);
}

/// As the API has it in paths.
std::string plural(std::string kind) {
  std::ranges::transform(kind, kind.begin(), [](unsigned char c) { return std::tolower(c); });
  if (kind.ends_with("s")) return kind + "es";
  if (!kind.ends_with("y") || kind.ends_with("ay")) return kind + "s";
  kind.pop_back();
  return kind + "ies";
}

std::unique_ptr<Process> start(const char* variable, const std::vector<std::string>& arguments, const Netns* netns) {
  auto command = words(variable);
  command.insert(command.end(), arguments.begin(), arguments.end());
  return std::make_unique<Process>(Process::start(command, {.netns = netns, .environment = {}, .input = {}}));
}

}  // namespace

std::vector<Manifest> manifest_documents(const std::string& yaml) {
  static const std::set<std::string> kOfTheCluster{"ClusterRole",  "ClusterRoleBinding", "CustomResourceDefinition",
                                                   "GatewayClass", "Namespace",          "Node"};
  std::vector<Manifest> documents;
  std::string rest = "\n" + yaml;
  for (std::size_t end = 0; end != std::string::npos; rest.erase(0, end == std::string::npos ? end : end + 4)) {
    end = rest.find("\n---");
    const std::string text = rest.substr(0, end) + "\n";
    const std::string kind = value_of(text, "kind"), version = value_of(text, "apiVersion");
    if (kind.empty()) continue;
    const std::string in = kOfTheCluster.contains(kind) ? "" : "/namespaces/" + value_of(text, "  namespace");
    documents.push_back(
        {kind,
         (version == "v1" ? "/api/" : "/apis/") + version + in + "/" + plural(kind) + "/" + value_of(text, "  name"),
         text});
  }
  return documents;
}

std::string KubeApi::missing() {
  for (const char* variable : {"WEFT_KUBE_APISERVER", "WEFT_ETCD"}) {
    if (words(variable).empty()) return std::string(variable) + " names no program";
  }
  return {};
}

KubeApi::KubeApi(const Netns* netns, std::string address) : netns_(netns), address_(std::move(address)) {
  write_server_certificate(folder_.path() + "/api.pem", folder_.path() + "/api-key.pem", address_);
  folder_.write("tokens.csv", "administrator,admin,admin,system:masters\n");
  folder_.write("admin-token", "administrator");
  etcd_url_ = "http://127.0.0.1:" + std::to_string(free_port());
  const std::string peers = "http://127.0.0.1:" + std::to_string(free_port());
  etcd_ = start("WEFT_ETCD",
                {"--data-dir", folder_.path() + "/etcd", "--listen-client-urls", etcd_url_, "--advertise-client-urls",
                 etcd_url_, "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster",
                 "default=" + peers, "--unsafe-no-fsync", "--log-level", "warn"},
                netns_);
  port_ = free_port();
  admin_ = std::make_unique<kube::ApiClient>(config());
  start_server();
}

void KubeApi::start_server() {
  const std::string certificate = folder_.path() + "/api.pem", key = folder_.path() + "/api-key.pem";
  server_ =
      start("WEFT_KUBE_APISERVER",
            {"--etcd-servers=" + etcd_url_, "--secure-port=" + std::to_string(port_), "--bind-address=" + address_,
             "--advertise-address=192.0.2.1", "--endpoint-reconciler-type=none", "--tls-cert-file=" + certificate,
             "--tls-private-key-file=" + key, "--token-auth-file=" + folder_.path() + "/tokens.csv",
             "--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/16,fd96::/108",
             "--service-account-issuer=https://kubernetes.default.svc",
             "--api-audiences=https://kubernetes.default.svc,istio-ca", "--service-account-key-file=" + certificate,
             "--service-account-signing-key-file=" + key, "--allow-privileged=true",
             // Both need controllers, of which there are none here.
             "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition"},
            netns_);
  const bool ready = eventually(kReadyDeadline, [this] {
    const auto answer = in_place([this] { return admin_->send({.path = "/readyz"}); });
    return !server_->running() || !etcd_->running() || (answer && answer->ok());
  });
  if (!ready || !server_->running() || !etcd_->running())
    throw TestError("the API server does not become ready:\n" + etcd_->err() + "\n" + server_->err());
}

kube::ApiConfig KubeApi::config(const std::string& token_file) const {
  return {.server = "https://" + address_ + ":" + std::to_string(port_),
          .token_file = token_file.empty() ? folder_.path() + "/admin-token" : token_file,
          .root_file = folder_.path() + "/api.pem"};
}

Json KubeApi::ask(const kube::ApiRequest& request) {
  auto answer = in_place([&] { return admin_->ask(request); });
  if (!answer) throw TestError(answer.error().message());
  return std::move(*answer);
}

kube::ApiResponse KubeApi::send(const kube::ApiRequest& request) {
  auto answer = in_place([&] { return admin_->send(request); });
  if (!answer) throw TestError(answer.error().message());
  return std::move(*answer);
}

kube::ApiResponse KubeApi::apply(const std::string& path, const std::string& yaml, bool dry_run) {
  return send({.method = "PATCH",
               .path = path + "?fieldManager=test&fieldValidation=Strict" + (dry_run ? "&dryRun=All" : ""),
               .body = yaml,
               .content_type = "application/apply-patch+yaml"});
}

std::string KubeApi::token_of(const std::string& namespace_name, const std::string& account, const Json& spec) {
  const Json request = {{"apiVersion", "authentication.k8s.io/v1"}, {"kind", "TokenRequest"}, {"spec", spec}};
  const Json answer = ask({.method = "POST",
                           .path = "/api/v1/namespaces/" + namespace_name + "/serviceaccounts/" + account + "/token",
                           .body = request.dump()});
  return folder_.write("token-" + std::to_string(++tokens_), answer.at("status").at("token").get<std::string>());
}

void KubeApi::grant(const std::string& manifest_path) {
  for (const auto& document : manifest_documents(read_file(manifest_path))) {
    if (document.kind == "DaemonSet" || document.kind == "ConfigMap") continue;
    if (const auto applied = apply(document.path, document.text, false); !applied.ok())
      throw TestError(document.path + ": " + applied.body);
  }
}

void KubeApi::kill() { server_->kill(); }

void KubeApi::restart() { start_server(); }

}  // namespace weft::test
