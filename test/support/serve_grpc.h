// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <grpcpp/grpcpp.h>

#include <cstdio>
#include <memory>
#include <string>

namespace weft::test {

/// The main part of a test's program that is one gRPC service: listens, says so on stdout, and serves until killed.
/// Gives the program's exit status; `hint` ends what it says where it cannot listen.
inline int serve_until_killed(const std::string& program, const std::string& listen,
                              const std::shared_ptr<grpc::ServerCredentials>& credentials, grpc::Service& service,
                              const std::string& where, const std::string& hint) {
  grpc::ServerBuilder builder;
  int port = 0;  // 1 for a Unix socket
  builder.AddListeningPort(listen, credentials, &port);
  builder.RegisterService(&service);
  const auto server = builder.BuildAndStart();
  if (!server || port == 0) {
    std::fprintf(stderr, "%s: listen on %s: failed (%s)\n", program.c_str(), where.c_str(), hint.c_str());
    return 1;
  }
  std::printf("serving %s\n", where.c_str());
  std::fflush(stdout);
  server->Wait();
  return 0;
}

}  // namespace weft::test
