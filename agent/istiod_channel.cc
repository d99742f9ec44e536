// SPDX-License-Identifier: Apache-2.0
#include "agent/istiod_channel.h"

#include <grpc/grpc.h>
#include <grpc/support/log.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <algorithm>
#include <utility>

#include "agent/text_file.h"
#include "tunnel/base/log.h"

namespace weft::agent {
namespace {

constexpr std::size_t kShownMax = 400;

std::string trimmed(std::string text) {
  const auto blank = [](unsigned char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
  text.erase(std::find_if_not(text.rbegin(), text.rend(), blank).base(), text.end());
  text.erase(text.begin(), std::ranges::find_if_not(text, blank));
  return text;
}

const char* name_of(grpc::StatusCode code) {
  switch (code) {
    case grpc::StatusCode::OK:
      return "OK";
    case grpc::StatusCode::CANCELLED:
      return "CANCELLED";
    case grpc::StatusCode::INVALID_ARGUMENT:
      return "INVALID_ARGUMENT";
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return "DEADLINE_EXCEEDED";
    case grpc::StatusCode::NOT_FOUND:
      return "NOT_FOUND";
    case grpc::StatusCode::ALREADY_EXISTS:
      return "ALREADY_EXISTS";
    case grpc::StatusCode::PERMISSION_DENIED:
      return "PERMISSION_DENIED";
    case grpc::StatusCode::UNAUTHENTICATED:
      return "UNAUTHENTICATED";
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      return "RESOURCE_EXHAUSTED";
    case grpc::StatusCode::FAILED_PRECONDITION:
      return "FAILED_PRECONDITION";
    case grpc::StatusCode::ABORTED:
      return "ABORTED";
    case grpc::StatusCode::OUT_OF_RANGE:
      return "OUT_OF_RANGE";
    case grpc::StatusCode::UNIMPLEMENTED:
      return "UNIMPLEMENTED";
    case grpc::StatusCode::INTERNAL:
      return "INTERNAL";
    case grpc::StatusCode::UNAVAILABLE:
      return "UNAVAILABLE";
    case grpc::StatusCode::DATA_LOSS:
      return "DATA_LOSS";
    default:
      return "UNKNOWN";
  }
}

/// What matters of it comes back as a status; the rest is for whoever debugs.
void log_of_grpc(gpr_log_func_args* args) { log::debug("gRPC says text={}", log::quote(args->message)); }

}  // namespace

Result<std::shared_ptr<grpc::Channel>> connect_istiod(const IstiodAddress& istiod, grpc::ChannelArguments arguments) {
  static const bool logging = (::gpr_set_log_function(&log_of_grpc), true);
  static_cast<void>(logging);
  auto root = read_text_file(istiod.root_file);
  if (!root) return Failure(root.error());
  if (root->find("-----BEGIN CERTIFICATE-----") == std::string::npos) {
    return fail(ErrorCode::kInvalid, "read istiod's root from " + istiod.root_file +
                                         ": there is no certificate in it (is it the root-cert.pem of the ConfigMap "
                                         "istio-ca-root-cert?)");
  }
  grpc::SslCredentialsOptions tls;
  tls.pem_root_certs = std::move(*root);
  // Its name is not that of the Service where it is reached by an address or through a tunnel.
  arguments.SetSslTargetNameOverride(istiod.server_name);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  // Connections of other channels, with roots of their own and waits of their own, are none of this one's.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel("dns:///" + istiod.address, grpc::SslCredentials(tls), arguments);
}

Result<void> authorize(const IstiodAddress& istiod, grpc::ClientContext& call) {
  auto token = read_text_file(istiod.token_file);
  if (!token) return Failure(token.error());
  const std::string bare = trimmed(std::move(*token));
  const bool fits = std::ranges::all_of(bare, [](unsigned char c) { return c > 0x20 && c < 0x7f; });
  if (bare.empty() || !fits) {
    return fail(ErrorCode::kInvalid, "read the token for istiod from " + istiod.token_file + ": " +
                                         (bare.empty() ? "it is empty" : "it is no token") +
                                         " (is it the projected service account token with the audience istio-ca?)");
  }
  call.AddMetadata("authorization", "Bearer " + bare);
  call.AddMetadata("clusterid", istiod.cluster_id);
  return {};
}

std::string status_text(const grpc::Status& status) {
  const std::string message = excerpt(status.error_message(), kShownMax);
  return std::string(name_of(status.error_code())) + (message.empty() ? "" : ": " + message);
}

ErrorCode error_code(const grpc::Status& status) {
  switch (status.error_code()) {
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
    case grpc::StatusCode::ABORTED:
    case grpc::StatusCode::CANCELLED:
      return ErrorCode::kUnavailable;
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return ErrorCode::kTimeout;
    case grpc::StatusCode::UNAUTHENTICATED:
    case grpc::StatusCode::PERMISSION_DENIED:
      return ErrorCode::kDenied;
    case grpc::StatusCode::INVALID_ARGUMENT:
      return ErrorCode::kInvalid;
    case grpc::StatusCode::NOT_FOUND:
      return ErrorCode::kNotFound;
    case grpc::StatusCode::UNIMPLEMENTED:
      return ErrorCode::kUnsupported;
    default:
      return ErrorCode::kInternal;
  }
}

}  // namespace weft::agent
