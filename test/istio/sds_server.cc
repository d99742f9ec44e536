// SPDX-License-Identifier: Apache-2.0
/// weft-test-sds: what istio-agent is to a proxy of Istio's, as far as Envoy needs it in a test. It runs in the proxy's
/// pod, gets the pod's certificate from istiod's CA with the pod's own token, and hands it to Envoy on a Unix socket.
#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "agent/identity/x509_builder.h"
#include "agent/istiod_channel.h"
#include "ca.grpc.pb.h"
#include "sds.grpc.pb.h"
#include "test/support/serve_grpc.h"
#include "tunnel/hbone/tls_x509.h"

namespace weft::test {
namespace {

namespace ca = istio::v1::auth;
namespace sds = envoy::service::secret::v3;

constexpr const char* kSecretType = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
constexpr std::chrono::seconds kLifetime{86'400}, kPatience{20};

struct Issued {
  std::string chain_pem, key_pem, roots_pem;
};

/// Nobody is impersonated: istiod takes who asks from the token.
Result<Issued> get_certificate(const agent::IstiodAddress& istiod, const std::string& identity) {
  const auto key = agent::x509::generate_key();
  if (!key) return Failure(key.error());
  auto key_pem = agent::x509::to_pem(key->get());
  if (!key_pem) return Failure(key_pem.error());
  const auto csr = agent::x509::make_request(key->get(), identity);
  if (!csr) return Failure(csr.error());
  const auto channel = agent::connect_istiod(istiod, {});
  if (!channel) return Failure(channel.error());

  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  context.set_wait_for_ready(true);
  if (auto known = agent::authorize(istiod, context); !known) return Failure(known.error());
  ca::IstioCertificateRequest request;
  request.set_csr(*csr);
  request.set_validity_duration(kLifetime.count());
  ca::IstioCertificateResponse response;
  const auto status = ca::IstioCertificateService::NewStub(*channel)->CreateCertificate(&context, request, &response);
  if (!status.ok()) return fail(agent::error_code(status), agent::status_text(status));
  const auto& parts = response.cert_chain();
  if (parts.size() < 2) return fail(ErrorCode::kInvalid, "istiod's answer has no leaf or no root");
  const auto leaf = hbone::read_certificates(parts.Get(0), "istiod's answer");
  if (!leaf) return Failure(leaf.error());
  if (const auto uris = hbone::uri_sans(leaf->front().get()); uris != std::vector<std::string>{identity})
    return fail(ErrorCode::kInvalid, "istiod's certificate is for " + (uris.empty() ? "nobody" : uris.front()));
  Issued issued{.chain_pem = {}, .key_pem = std::move(*key_pem), .roots_pem = *parts.rbegin()};
  for (int i = 0; i + 1 < parts.size(); ++i) issued.chain_pem += parts.Get(i) + "\n";
  return issued;
}

/// `default` is the certificate, `ROOTCA` the roots; they never change.
class SecretService final : public sds::SecretDiscoveryService::Service {
 public:
  explicit SecretService(Issued issued) : issued_(std::move(issued)) {}

  grpc::Status StreamSecrets(grpc::ServerContext* /*context*/,
                             grpc::ServerReaderWriter<sds::DiscoveryResponse, sds::DiscoveryRequest>* stream) override {
    sds::DiscoveryRequest request;
    std::vector<std::string> known;
    for (int number = 1; stream->Read(&request); ++number) {
      if (request.has_error_detail()) {
        std::fprintf(stderr, "Envoy refuses what it was given: %s\n", request.error_detail().message().c_str());
        continue;
      }
      std::vector<std::string> asked(request.resource_names().begin(), request.resource_names().end());
      if (asked == known) continue;
      sds::DiscoveryResponse response;
      response.set_version_info("1");
      response.set_type_url(kSecretType);
      response.set_nonce(std::to_string(number));
      for (const auto& name : asked) {
        const auto secret = secret_of(name);
        if (!secret) return {grpc::StatusCode::NOT_FOUND, "there is no secret " + name};
        auto* resource = response.add_resources();
        resource->set_type_url(kSecretType);
        resource->set_value(secret->SerializeAsString());
      }
      known = std::move(asked);
      stream->Write(response);
    }
    return grpc::Status::OK;
  }

 private:
  [[nodiscard]] std::optional<sds::Secret> secret_of(const std::string& name) const {
    sds::Secret secret;
    secret.set_name(name);
    if (name == "default") {
      auto& certificate = *secret.mutable_tls_certificate();
      certificate.mutable_certificate_chain()->set_inline_bytes(issued_.chain_pem);
      certificate.mutable_private_key()->set_inline_bytes(issued_.key_pem);
    } else if (name == "ROOTCA") {
      secret.mutable_validation_context()->mutable_trusted_ca()->set_inline_bytes(issued_.roots_pem);
    } else {
      return std::nullopt;
    }
    return secret;
  }

  Issued issued_;
};

int serve(const agent::IstiodAddress& istiod, const std::string& identity, const std::string& socket) {
  auto issued = get_certificate(istiod, identity);
  if (!issued) {
    std::fprintf(stderr, "weft-test-sds: a certificate for %s from %s: %s\n", identity.c_str(), istiod.address.c_str(),
                 issued.error().message().c_str());
    return 1;
  }
  SecretService service(std::move(*issued));
  return serve_until_killed("weft-test-sds", "unix:" + socket, grpc::InsecureServerCredentials(), service, socket,
                            "is its folder there?");
}

}  // namespace
}  // namespace weft::test

int main(int argc, char** argv) {
  CLI::App app{"A certificate of istiod's CA for Envoy in a test, until killed.", "weft-test-sds"};
  weft::agent::IstiodAddress istiod;
  std::string identity, socket;
  app.add_option("--istiod", istiod.address, "ADDRESS:PORT of istiod's CA, over TLS")->required();
  app.add_option("--root", istiod.root_file, "PEM: the root of istiod's certificate")->required();
  app.add_option("--token", istiod.token_file, "a file with the token of the pod's service account")->required();
  app.add_option("--identity", identity, "the URI that the token stands for")->required();
  app.add_option("--listen", socket, "the path of the socket")->required();
  CLI11_PARSE(app, argc, argv);
  return weft::test::serve(istiod, identity, socket);
}
