// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "test/support/testapp/bulk.h"
#include "test/support/testapp/net.h"

/// What weft-testapp can be. Each mode prints lines `what key=value …` to stdout and gives the exit status.
namespace weft::testapp {

struct ServeOptions {
  std::uint16_t port = 8080;
  std::string name = "server";       ///< what answers call this server
  std::optional<IpAddress> address;  ///< listen here alone; unset: on all addresses of both families
  int backlog = 1024;
};
/// Serves until it is killed: HTTP (keep-alive) for GET lines, echo for HOLD lines, bulk for BULK lines. The answer to
/// a GET is `server=NAME client=ADDRESS:PORT local=ADDRESS:PORT path=PATH`, with N bytes more where PATH ends in
/// ?bytes=N.
Exit serve(const ServeOptions& options);

struct GetOptions {
  DialOptions dial;
  std::string marker = "hello";           ///< becomes the path of the request
  std::vector<std::string> headers;       ///< further ones, "name: value"
  int count = 1;                          ///< requests
  int every = 1;                          ///< of so many answers one is printed
  bool keep_alive = false;                ///< all on one connection
  std::chrono::milliseconds interval{0};  ///< between an answer and the next request
  std::uint64_t read_rate = 0;            ///< bytes of an answer's body a second; 0: all
  bool to_end = false;                    ///< each answer must be followed by the plain end of its connection
};
/// Sends requests one after the other, without retries; prints the answers' first lines with ` own=ADDRESS:PORT ms=…`.
/// Stops at the first trouble.
Exit get(const GetOptions& options);

struct HoldOptions {
  DialOptions dial;
  std::chrono::milliseconds interval{100};            ///< between heartbeats
  std::optional<std::chrono::milliseconds> duration;  ///< hold so long; unset: until cut
};
/// Keeps one connection with a heartbeat; prints `held …` when the first was answered and `ended how=… beats=… ms=…`.
Exit hold(const HoldOptions& options);

struct BulkOptions {
  DialOptions dial;
  BulkPlan plan;
};
Exit bulk(const BulkOptions& options);

/// Takes any number of connections in one thread and throws away what comes, until it is killed.
Exit sink(std::uint16_t port);

struct HogOptions {
  Endpoint to;
  int connections = 1000;
};
/// Opens so many connections and sends on all of them as fast as it can, in one thread, until it is killed. Prints
/// `opened connections=N` when all are there, and ends with kError when one of them does.
Exit hog(const HogOptions& options);

struct CrowdOptions {
  Endpoint to;
  int connections = 1000;
  int opening = 256;  ///< attempts that are under way at once
};
/// Opens so many connections to weft-testapp echo in one thread; each says one line and waits for its echo. When each
/// has had its answer, or has ended, prints `opened connections=N ms=… longest_ms=…` with a count for each way in which
/// others ended (refused, reset, closed, other); longest_ms is the longest that one of them waited. SIGUSR1: the same
/// once more on those that live (`echoed …`). SIGTERM: ends them with FIN and waits for the server's (`closed clean=N
/// …`), and ends, with kReset where one of all did not end so. A signal is lost while connections wait.
Exit crowd(const CrowdOptions& options);
/// Gives back whatever comes on any number of connections, in one thread, until it is killed.
Exit echo(std::uint16_t port);

struct DnsOptions {
  Endpoint to;
  std::vector<std::string> names;  ///< in turn
  double rate = 1000;              ///< questions a second
  std::chrono::milliseconds duration{1000};
  std::chrono::milliseconds timeout{5000};  ///< how long the last answers may take
  int sockets = 8;
};
/// Asks for names by UDP at an even rate, each question once, whether answers come or not. Prints `asking`, and at the
/// end `dns sent=N answered=N failed=N lost=N … p50_ms=… p99_ms=… max_ms=…`: answered are those with a record, failed
/// those without one. Ends with kAnswerTimeout where one is failed or lost.
Exit dns(const DnsOptions& options);

}  // namespace weft::testapp
