// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "tunnel/base/error.h"
#include "tunnel/base/fd.h"
#include "tunnel/base/ip.h"

/// Blocking sockets for weft-testapp: a client and a server that know nothing of the mesh. All calls may be made from
/// any thread; a socket belongs to one connection.
namespace weft::testapp {

/// Exit statuses, so that scripts can tell how a connection ended.
enum class Exit : int {
  kOk = 0,
  kError = 1,    ///< anything not listed
  kUsage = 2,    ///< the command line is wrong
  kRefused = 3,  ///< RST in answer to the SYN
  kConnectTimeout = 4,
  kReset = 5,          ///< RST on the established connection
  kClosed = 6,         ///< end of stream before the answer was whole
  kAnswerTimeout = 7,  ///< connected, but the answer did not come in time
  kMismatch = 8,       ///< bytes arrived that are not those sent
  kBadStatus = 9,      ///< an HTTP answer that is not 200
};

/// How one attempt failed.
struct Trouble {
  Exit exit = Exit::kError;
  std::string text;
};

struct DialOptions {
  Endpoint to;
  std::optional<Endpoint> from;  ///< bind before connect; port 0 lets the kernel choose
  std::uint32_t mark = 0;        ///< SO_MARK; 0: none
  std::string ip_options;        ///< raw IP_OPTIONS bytes; empty: none
  bool transparent = false;      ///< IP_TRANSPARENT, so that `from` may be a foreign address
  std::chrono::milliseconds connect_timeout{5000};
  std::chrono::milliseconds answer_timeout{5000};  ///< every later read and write
};

/// Opens, sets the options and connects. On success `trouble` is unset.
struct Dialled {
  Fd fd;
  std::optional<Trouble> trouble;
};
Dialled dial(const DialOptions& options);

/// Binds and listens on all addresses of both families (IPv4 alone where there is no IPv6), or on `address`.
Result<Fd> listen_on(const std::optional<IpAddress>& address, std::uint16_t port, int backlog);

/// A stream that is read by lines first and by blocks later. Reads at most what the peer sent; keeps what it read too
/// far.
class Stream {
 public:
  explicit Stream(Fd fd) : fd_(std::move(fd)) {}

  /// The next line without its end (LF or CRLF); nothing at the end of the stream or on trouble (see trouble()).
  std::optional<std::string> line();
  /// At most `size` bytes into `into`; 0 at the end of the stream or on trouble.
  std::size_t read(char* into, std::size_t size);
  /// Writes everything; false on trouble.
  bool write(std::string_view data);
  void shutdown_write();
  /// Why the last call gave nothing: unset for a plain end of stream.
  [[nodiscard]] const std::optional<Trouble>& trouble() const { return trouble_; }
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] Endpoint local() const;
  [[nodiscard]] Endpoint peer() const;

 private:
  std::size_t receive(char* into, std::size_t size);

  Fd fd_;
  std::string buffer_;
  std::optional<Trouble> trouble_;
};

/// The trouble that an errno value of a read or write on an established connection means.
Trouble trouble_of(int errno_value, std::string_view doing);

/// Prints a line to stdout, whole, at once and in one piece whatever thread calls.
void print(const std::string& line);

}  // namespace weft::testapp
