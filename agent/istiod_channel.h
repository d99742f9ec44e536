// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/channel_arguments.h>

#include <memory>
#include <string>

#include "agent/istiod_address.h"
#include "tunnel/base/error.h"

/// How istiod is reached, for its discovery service and its CA alike.
namespace weft::agent {

/// A channel of its own, never shared with others of the process: TLS, no proxy, no look-up of anything but the host.
/// The root is read from its file each time. It connects with the first call. Errors: errno of reading the root;
/// kInvalid where the file holds no certificate.
Result<std::shared_ptr<grpc::Channel>> connect_istiod(const IstiodAddress& istiod, grpc::ChannelArguments arguments);

/// Puts the token, read anew, and the cluster into the call's metadata. Errors: errno of reading the token; kInvalid
/// where it holds none.
Result<void> authorize(const IstiodAddress& istiod, grpc::ClientContext& call);

/// gRPC's code and what the server said, fit for a line: `PERMISSION_DENIED: no such account`.
[[nodiscard]] std::string status_text(const grpc::Status& status);
/// The code that corresponds: kUnavailable and kTimeout where trying again may help.
[[nodiscard]] ErrorCode error_code(const grpc::Status& status);

}  // namespace weft::agent
