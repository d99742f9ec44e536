// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <poll.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "test/faults/mesh_ends.h"
#include "tunnel/base/fd.h"

namespace weft::test {

/// What one end of a connection does, and what it has a right to.
struct Part {
  std::size_t to_send = 0;
  std::size_t held_back = 0;  ///< of it, sent only when the other end has said FIN
  std::size_t to_receive = 0;
  std::optional<std::size_t> reset_at;  ///< ends with RST when so many bytes went both ways
  bool reads_slowly = false;
};

/// One end of a connection of this test, client or application. Every byte sent says where it belongs, and every byte
/// received is compared.
class Peer {
 public:
  enum class Ending : std::uint8_t { kNone, kEnd, kReset };
  /// Bytes at the head of what the client sends: the number of the flow.
  static constexpr std::size_t kHead = 4;

  /// `connecting`: the connect is under way.
  Peer(Fd fd, bool is_client, bool connecting) : fd_(std::move(fd)), is_client_(is_client), connecting_(connecting) {}
  void take_part(std::uint32_t flow, const Part& part);
  [[nodiscard]] pollfd wants() const;
  void on_events(short events);

  /// The flow that the first bytes named; application only.
  [[nodiscard]] std::optional<std::uint32_t> named() const;
  [[nodiscard]] bool over() const { return !fd_; }
  [[nodiscard]] Ending ending() const { return ending_; }
  /// FIN came, whatever happened afterwards.
  [[nodiscard]] bool heard_end() const { return heard_end_; }
  [[nodiscard]] bool sent_fin() const { return sent_fin_; }
  [[nodiscard]] bool was_reset_here() const { return reset_here_; }
  [[nodiscard]] std::size_t sent() const { return sent_; }
  [[nodiscard]] std::size_t received() const { return received_; }
  /// What came that nobody sent; empty where all was well.
  [[nodiscard]] const std::string& wrong() const { return wrong_; }
  /// It said all it had, and heard all that the other end had.
  [[nodiscard]] bool well() const { return ending_ == Ending::kEnd && sent_fin_ && received_ == part_.to_receive; }
  [[nodiscard]] std::string describe() const;

 private:
  void receive();
  void send();
  void broke(int error);
  void check(std::span<const std::uint8_t> bytes);
  [[nodiscard]] std::size_t may_send() const;
  /// All is done that has to be done before its own end.
  [[nodiscard]] bool may_end() const;
  [[nodiscard]] std::uint8_t byte_at(bool from_client, std::size_t offset) const;

  Fd fd_;
  bool is_client_, connecting_;
  bool taking_part_ = false;
  std::uint32_t flow_ = 0;
  Part part_;
  std::string head_;  ///< of what came, until it takes part
  std::size_t sent_ = 0, received_ = 0;
  bool sent_fin_ = false, reset_here_ = false, heard_end_ = false;
  Ending ending_ = Ending::kNone;
  int error_ = 0;
  std::string wrong_;
};

/// One connection of the calling pod.
struct Flow {
  /// To the service: by a tunnel. Out of the mesh: as it is. To a called pod, without a tunnel: into it in plaintext.
  enum class Way : std::uint8_t { kTunnel, kOutside, kPlaintext };
  std::uint32_t number = 0;
  Way way = Way::kTunnel;
  bool v6 = false;
  Part client_part, application_part;
  const char* kind = "";
  Endpoint local;                     ///< the client's
  bool disturbed = false;             ///< a pod went, or was denied, while it lived
  std::unique_ptr<Peer> client;       ///< null until it is started
  std::unique_ptr<Peer> application;  ///< null until the application knows whose connection it has
  [[nodiscard]] bool well() const { return client->well() && application && application->well(); }
  [[nodiscard]] bool ends_with_reset() const { return client_part.reset_at || application_part.reset_at; }
  [[nodiscard]] std::string describe() const;
};

/// Drives the flows of one seed, some at a time, both ends in the calling thread.
class Flows {
 public:
  Flows(const Ground& ground, std::uint64_t seed, std::size_t count);
  /// Plain ones, one for each way, which nothing disturbs.
  static Flows undisturbed(const Ground& ground, std::uint32_t first_number,
                           std::initializer_list<Flow::Way> ways = {Flow::Way::kTunnel, Flow::Way::kOutside,
                                                                    Flow::Way::kPlaintext});

  /// Runs them all to their ends; false where nothing happens any more for ten seconds. `before` is called before each
  /// is started.
  bool run(const std::function<void(std::size_t)>& before);
  /// Moves what can be moved; waits at most so long for something to do. False where nothing came.
  bool step(milliseconds at_most);
  /// Marks what lives now as disturbed.
  void disturb();
  /// No end of any flow is open.
  [[nodiscard]] bool over() const;
  [[nodiscard]] const std::vector<Flow>& all() const { return flows_; }
  /// What is wrong with connections of the application that are no flow's.
  [[nodiscard]] const std::string& strange() const { return strange_; }
  [[nodiscard]] std::string describe() const;

 private:
  explicit Flows(const Ground& ground) : ground_(ground) {}
  void start(Flow& flow);
  Fd client_socket(Flow& flow);
  void accept(const Fd& listener);
  void recognise();
  [[nodiscard]] std::size_t running() const;

  const Ground& ground_;
  std::vector<Flow> flows_;
  std::vector<std::unique_ptr<Peer>> strangers_;  ///< accepted, but not heard whose yet
  std::string strange_;
};

}  // namespace weft::test
