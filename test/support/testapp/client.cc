// SPDX-License-Identifier: Apache-2.0
#include <strings.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <thread>

#include "test/support/testapp/modes.h"

namespace weft::testapp {
namespace {

using Clock = std::chrono::steady_clock;

Exit report(const Trouble& trouble) {
  print("error " + trouble.text);
  return trouble.exit;
}

Trouble ended_early(const Stream& stream) {
  return stream.trouble().value_or(Trouble{Exit::kClosed, "read: the peer closed before its answer was whole"});
}

std::string milliseconds_since(Clock::time_point start) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", std::chrono::duration<double, std::milli>(Clock::now() - start).count());
  return text;
}

/// One HTTP answer; nothing where the stream ended or failed before it was whole.
struct Answer {
  std::string status_line, body;
  [[nodiscard]] bool ok() const { return status_line.find(" 200 ") != std::string::npos; }
};
std::optional<Answer> read_answer(Stream& stream, std::uint64_t rate) {
  std::size_t length = 0;
  auto line = stream.line();
  const std::string status_line = line.value_or("");
  while (line && !line->empty()) {
    // Proxies write names in lower case.
    constexpr std::string_view kLength = "content-length:";
    if (::strncasecmp(line->c_str(), kLength.data(), kLength.size()) == 0) {
      length = std::strtoul(line->c_str() + kLength.size(), nullptr, 10);
    }
    line = stream.line();
  }
  if (!line) return {};
  std::string body(length, '\0');
  const Pace pace(rate);
  std::size_t have = 0;
  while (have < length) {
    const std::size_t got = stream.read(body.data() + have, std::min(length - have, pace.portion()));
    if (got == 0) return {};
    have += got;
    pace.wait_for(have);
  }
  body.resize(std::min(body.find('\n'), body.size()));
  return Answer{status_line, body};
}

}  // namespace

Exit get(const GetOptions& options) {
  std::optional<Stream> stream;
  for (int i = 0; i < options.count; ++i) {
    if (i > 0) std::this_thread::sleep_for(options.interval);
    const auto start = Clock::now();
    if (!stream || !options.keep_alive) {
      stream.reset();
      Dialled dialled = dial(options.dial);
      if (dialled.trouble) return report(*dialled.trouble);
      stream.emplace(std::move(dialled.fd));
    }
    std::string request = "GET /" + options.marker + " HTTP/1.1\r\nHost: " + options.dial.to.to_string() + "\r\n";
    for (const auto& header : options.headers) request += header + "\r\n";
    request += options.keep_alive ? "\r\n" : "Connection: close\r\n\r\n";
    if (!stream->write(request)) return report(ended_early(*stream));
    const auto answer = read_answer(*stream, options.read_rate);
    if (!answer) return report(ended_early(*stream));
    if (!answer->ok()) return report({Exit::kBadStatus, "answer: " + answer->status_line + " " + answer->body});
    if (char more = 0; options.to_end && (stream->read(&more, 1) != 0 || stream->trouble())) {
      return report(stream->trouble().value_or(Trouble{Exit::kError, "read: more than the answer"}));
    }
    if ((i + 1) % options.every == 0)
      print(answer->body + " own=" + stream->local().to_string() + " ms=" + milliseconds_since(start));
  }
  return Exit::kOk;
}

Exit hold(const HoldOptions& options) {
  Dialled dialled = dial(options.dial);
  if (dialled.trouble) return report(*dialled.trouble);
  Stream stream(std::move(dialled.fd));
  const auto start = Clock::now();
  std::uint64_t beats = 0;
  while (!options.duration || Clock::now() - start < *options.duration) {
    if (!stream.write("HOLD " + std::to_string(beats) + "\n") || !stream.line()) {
      const Trouble trouble = ended_early(stream);
      const char* how = trouble.exit == Exit::kClosed ? "eof" : trouble.exit == Exit::kReset ? "reset" : "error";
      print(std::string("ended how=") + how + " beats=" + std::to_string(beats) + " ms=" + milliseconds_since(start) +
            " text=\"" + trouble.text + "\"");
      return trouble.exit;
    }
    if (++beats == 1) print("held own=" + stream.local().to_string() + " peer=" + stream.peer().to_string());
    if (beats % 10 == 0) print("beats=" + std::to_string(beats));
    std::this_thread::sleep_for(options.interval);
  }
  print("ended how=done beats=" + std::to_string(beats) + " ms=" + milliseconds_since(start));
  return Exit::kOk;
}

Exit bulk(const BulkOptions& options) {
  Dialled dialled = dial(options.dial);
  if (dialled.trouble) return report(*dialled.trouble);
  Stream stream(std::move(dialled.fd));
  if (!stream.write(options.plan.header() + "\n")) return report(ended_early(stream));
  const auto start = Clock::now();
  const BulkResult result = run_bulk(stream, options.plan, true);
  print("bulk own=" + stream.local().to_string() + " " + result.text + " ms=" + milliseconds_since(start));
  return result.exit;
}

}  // namespace weft::testapp
