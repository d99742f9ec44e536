// SPDX-License-Identifier: Apache-2.0
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdlib>
#include <thread>

#include "test/support/testapp/modes.h"

namespace weft::testapp {
namespace {

/// One HTTP request after its first line; false when the connection is to end.
bool answer_get(Stream& stream, const std::string& request, const std::string& name) {
  const auto path_start = request.find(' ');
  const auto path_end = request.find(' ', path_start + 1);
  const std::string path = request.substr(path_start + 1, path_end - path_start - 1);
  bool keep = request.find("HTTP/1.1") != std::string::npos;
  while (auto header = stream.line()) {
    if (header->empty()) {
      std::string body = "server=" + name + " client=" + stream.peer().to_string() +
                         " local=" + stream.local().to_string() + " path=" + path + "\n";
      if (const auto more = path.find("?bytes="); more != std::string::npos) {
        body.append(std::strtoul(path.c_str() + more + 7, nullptr, 10), '.');
      }
      const std::string head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: ";
      return stream.write(head + (keep ? "keep-alive" : "close") +
                          "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body) &&
             keep;
    }
    if (*header == "Connection: close") keep = false;
    if (*header == "Connection: keep-alive" || *header == "Connection: Keep-Alive") keep = true;
  }
  return false;
}

std::string how_ended(const Stream& stream) {
  if (!stream.trouble()) return "eof";
  return stream.trouble()->exit == Exit::kReset ? "reset" : "\"" + stream.trouble()->text + "\"";
}

/// A connection's whole life, on a thread of its own.
void serve_one(Fd fd, const std::string& name) {
  Stream stream(std::move(fd));
  const std::string client = stream.peer().to_string();
  auto line = stream.line();
  print("connection client=" + client + " first=\"" + line.value_or("") + "\"");
  while (line && line->starts_with("GET ") && answer_get(stream, *line, name)) line = stream.line();
  if (line && line->starts_with("BULK ")) {
    const auto plan = BulkPlan::parse(*line);
    print("bulk client=" + client + " " + (plan ? run_bulk(stream, *plan, false).text : plan.error().message()));
    return;
  }
  if (line && line->starts_with("HOLD")) {
    do {
      if (!stream.write(*line + "\n")) break;
      line = stream.line();
    } while (line);
  }
  print("closed client=" + client + " how=" + how_ended(stream));
}

}  // namespace

Exit serve(const ServeOptions& options) {
  auto listener = listen_on(options.address, options.port, options.backlog);
  if (!listener) {
    print("error " + listener.error().message());
    return Exit::kError;
  }
  print("serving name=" + options.name + " port=" + std::to_string(options.port));
  while (true) {
    Fd fd(::accept4(listener->get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!fd) {
      if (errno == EINTR || errno == ECONNABORTED || errno == EMFILE) continue;
      print("error " + fail_errno(errno, "accept").value().message());
      return Exit::kError;
    }
    const int one = 1;
    ::setsockopt(fd.get(), SOL_TCP, TCP_NODELAY, &one, sizeof one);
    std::thread(serve_one, std::move(fd), options.name).detach();
  }
}

}  // namespace weft::testapp
