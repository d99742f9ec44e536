// SPDX-License-Identifier: Apache-2.0
/// weft-test-ca: the CA of a mesh of `weftctl ca init` as a service, for a ztunnel in a test. It asks nobody who they
/// are: it listens on the loopback of a test's namespace.

#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <string>

#include "ca.grpc.pb.h"
#include "test/support/serve_grpc.h"
#include "test/support/test_ca.h"

namespace weft::test {
namespace {

namespace wire = istio::v1::auth;

class CaService final : public wire::IstioCertificateService::Service {
 public:
  CaService(const TestCa& ca, std::string identity) : ca_(ca), identity_(std::move(identity)) {}

  grpc::Status CreateCertificate(grpc::ServerContext* /*context*/, const wire::IstioCertificateRequest* request,
                                 wire::IstioCertificateResponse* response) override {
    LeafOptions options;
    if (!identity_.empty()) options.uris = {identity_};
    if (request->validity_duration() > 0) options.valid_until = std::chrono::seconds(request->validity_duration());
    response->add_cert_chain(ca_.sign_request(request->csr(), options));
    response->add_cert_chain(ca_.roots_pem());
    return grpc::Status::OK;
  }

 private:
  const TestCa& ca_;
  std::string identity_;
};

int serve(const std::string& ca_dir, const std::string& listen, const std::string& identity) {
  const TestCa ca = TestCa::load(ca_dir);
  LeafOptions own;
  own.dns_names = {"localhost"};
  const auto bundle = ca.issue({"cluster.local", "weft-test", "ca"}, own);
  grpc::SslServerCredentialsOptions tls;
  tls.pem_key_cert_pairs.push_back({bundle.private_key_pem, bundle.certificate_pem});
  CaService service(ca, identity);
  return serve_until_killed("weft-test-ca", listen, grpc::SslServerCredentials(tls), service, listen,
                            "does another program have the port?");
}

}  // namespace
}  // namespace weft::test

int main(int argc, char** argv) {
  CLI::App app{"The CA of a test's mesh as a gRPC service, until killed.", "weft-test-ca"};
  std::string ca_dir;
  std::string listen = "127.0.0.1:15012";
  std::string identity;
  app.add_option("--ca-dir", ca_dir, "a directory made by weftctl ca init")->required();
  app.add_option("--listen", listen, "ADDRESS:PORT")->capture_default_str();
  app.add_option("--identity", identity, "the URI that every certificate says, whatever was asked for");
  CLI11_PARSE(app, argc, argv);
  return weft::test::serve(ca_dir, listen, identity);
}
