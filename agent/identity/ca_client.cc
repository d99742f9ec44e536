// SPDX-License-Identifier: Apache-2.0
#include "agent/identity/ca_client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <utility>

#include "agent/identity/x509_builder.h"
#include "agent/istiod_channel.h"
#include "agent/text_file.h"
#include "ca.grpc.pb.h"

namespace weft::agent {
namespace {

namespace wire = istio::v1::auth;
using hbone::OpenSslPtr;
using Certificates = std::vector<OpenSslPtr<X509>>;

/// istiod's own texts say little, so that nobody learns from them; what is behind them most often.
const char* likely_cause(const grpc::Status& status) {
  switch (status.error_code()) {
    case grpc::StatusCode::UNAUTHENTICATED:
    case grpc::StatusCode::PERMISSION_DENIED:
      return " (is the agent's service account in istiod's CA_TRUSTED_NODE_ACCOUNTS, its token of its own pod, and a "
             "pod "
             "with the identity on this node?)";
    case grpc::StatusCode::DEADLINE_EXCEEDED:
    case grpc::StatusCode::UNAVAILABLE:
      return " (is istiod running, and the address right?)";
    default:
      return "";
  }
}

bool among(const Certificates& certificates, const X509* one) {
  return std::ranges::any_of(certificates, [&](const auto& other) { return X509_cmp(other.get(), one) == 0; });
}

Result<std::string> to_pem(const Certificates& certificates) {
  std::string out;
  for (const auto& certificate : certificates) {
    auto pem = x509::to_pem(certificate.get());
    if (!pem) return pem;
    out += *pem;
  }
  return out;
}

/// istiod's answer, taken apart.
struct Parts {
  Certificates chain;  ///< the leaf first
  Certificates roots;
};

Result<Parts> take_apart(const std::vector<std::string>& answer) {
  if (answer.size() < 2) {
    return fail(ErrorCode::kInvalid, "istiod answered with " + std::to_string(answer.size()) +
                                         " certificates: expected the leaf first and the root last");
  }
  std::string chain_pem;
  for (std::size_t i = 0; i + 1 < answer.size(); ++i) chain_pem += answer[i] + "\n";
  auto chain = hbone::read_certificates(chain_pem, "the chain of istiod's answer");
  if (!chain) return Failure(chain.error());
  auto roots = hbone::read_certificates(answer.back(), "the root of istiod's answer");
  if (!roots) return Failure(roots.error());
  if (chain->empty() || roots->empty())
    return fail(ErrorCode::kInvalid, "istiod's answer has " + std::string(chain->empty() ? "no leaf" : "no root"));
  // Some CAs have their root in the chain, too.
  std::erase_if(*chain, [&](const auto& c) { return c != chain->front() && among(*roots, c.get()); });
  return Parts{std::move(*chain), std::move(*roots)};
}

/// Whether the leaf is what was asked for.
Result<void> check_leaf(const X509* leaf, EVP_PKEY* key, const std::string& uri) {
  const auto uris = hbone::uri_sans(leaf);
  if (uris.size() != 1 || uris.front() != uri || hbone::san_count(leaf) != 1) {
    std::string found;
    for (const auto& one : uris) found += (found.empty() ? "" : ", ") + hbone::printable(one);
    return fail(ErrorCode::kInvalid,
                "istiod's certificate is for " + (found.empty() ? "nobody" : found) + ": expected " + uri + " alone");
  }
  if (EVP_PKEY_eq(X509_get0_pubkey(leaf), key) != 1)
    return fail(ErrorCode::kInvalid, "istiod's certificate is for another key than the one that was sent");
  return {};
}

/// Where the root file is the mesh's list of roots, all of it: while a root is replaced, peers have certificates of
/// either. A file that only vouches for istiod itself vouches for no peer.
void add_mesh_roots(const std::string& root_file, Certificates& roots) {
  const auto pem = read_text_file(root_file);
  if (!pem) return;
  auto listed = hbone::read_certificates(*pem, root_file);
  if (!listed || !std::ranges::all_of(roots, [&](const auto& root) { return among(*listed, root.get()); })) return;
  for (auto& one : *listed) {
    if (!among(roots, one.get())) roots.push_back(std::move(one));
  }
}

}  // namespace

Result<hbone::CertificateBundle> CaClient::issue(const state::Identity& identity) {
  auto bundle = ask(identity);
  const std::lock_guard lock(mutex_);
  if (!bundle) {
    problem_ = "get a certificate for " + hbone::printable(identity.to_uri()) + " from istiod at " +
               options_.istiod.address + ": " + bundle.error().message();
    return fail(bundle.error().code, problem_);
  }
  problem_.clear();
  roots_pem_ = bundle->roots_pem;
  return bundle;
}

Result<hbone::CertificateBundle> CaClient::ask(const state::Identity& identity) {
  const std::string uri = identity.to_uri();
  const auto parsed = state::Identity::parse(uri);
  if (!parsed || *parsed != identity) return fail(ErrorCode::kInvalid, "it is not an identity of SPIFFE's form");
  const auto key = x509::generate_key();
  if (!key) return Failure(key.error());
  const auto request = x509::make_request(key->get(), uri);
  if (!request) return Failure(request.error());
  const auto answer = call(uri, *request);
  if (!answer) return Failure(answer.error());
  auto parts = take_apart(*answer);
  if (!parts) return Failure(parts.error());
  if (auto fits = check_leaf(parts->chain.front().get(), key->get(), uri); !fits) return Failure(fits.error());
  add_mesh_roots(options_.istiod.root_file, parts->roots);

  hbone::CertificateBundle bundle;
  bundle.identity = identity;
  auto leaf = x509::to_pem(parts->chain.front().get());
  parts->chain.erase(parts->chain.begin());
  auto chain = to_pem(parts->chain);
  auto roots = to_pem(parts->roots);
  auto key_pem = x509::to_pem(key->get());
  for (auto [pem, into] : {std::pair{&leaf, &bundle.certificate_pem},
                           {&chain, &bundle.chain_pem},
                           {&roots, &bundle.roots_pem},
                           {&key_pem, &bundle.private_key_pem}}) {
    if (!*pem) return Failure(pem->error());
    *into = std::move(**pem);
  }
  return bundle;
}

Result<std::vector<std::string>> CaClient::call(const std::string& uri, const std::string& request_pem) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, static_cast<int>(options_.timeout.count()));
  const auto channel = connect_istiod(options_.istiod, arguments);
  if (!channel) return Failure(channel.error());
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + options_.timeout);
  if (auto known = authorize(options_.istiod, context); !known) return Failure(known.error());
  wire::IstioCertificateRequest request;
  request.set_csr(request_pem);
  request.set_validity_duration(options_.lifetime.count());
  (*request.mutable_metadata()->mutable_fields())["ImpersonatedIdentity"].set_string_value(uri);
  wire::IstioCertificateResponse response;
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return fail(ErrorCode::kUnavailable, "the agent stops");
    call_ = &context;
  }
  const auto status = wire::IstioCertificateService::NewStub(*channel)->CreateCertificate(&context, request, &response);
  {
    const std::lock_guard lock(mutex_);
    call_ = nullptr;
  }
  if (!status.ok()) return fail(error_code(status), status_text(status) + likely_cause(status));
  return std::vector<std::string>(response.cert_chain().begin(), response.cert_chain().end());
}

void CaClient::stop() {
  const std::lock_guard lock(mutex_);
  stopping_ = true;
  if (call_ != nullptr) call_->TryCancel();
}

CaStatus CaClient::status() const {
  const std::lock_guard lock(mutex_);
  CaStatus out;
  out.directory = "istiod " + options_.istiod.address;
  out.problem = problem_;
  const auto roots = hbone::read_certificates(roots_pem_, "roots");
  if (!roots) return out;
  for (const auto& root : *roots) {
    out.roots.push_back({.subject = hbone::name_text(X509_get_subject_name(root.get())),
                         .sha256 = hbone::certificate_digest(root.get()),
                         .not_after = hbone::to_wall_time(X509_get0_notAfter(root.get())),
                         .signs = &root == &roots->front()});
  }
  return out;
}

}  // namespace weft::agent
