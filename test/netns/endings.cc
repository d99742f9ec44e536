// SPDX-License-Identifier: Apache-2.0
#include "test/netns/endings.h"

#include <sys/socket.h>

#include <cstring>

namespace weft::test {
namespace {

const Ending kEndings[] = {
    {"the server resets at once",
     [](Fd& client, Fd& server) {
       reset(server);
       return "client " + read_to_end(client);
     },
     "client |reset"},
    {"the server resets after data",
     [](Fd& client, Fd& server) {
       send_all(server, "hello");
       std::string seen = read_some(client, 5);
       reset(server);
       return "client " + seen + read_to_end(client);
     },
     "client hello|reset"},
    {"the server closes with something unread",
     [](Fd& client, Fd& server) {
       send_all(client, "a request that nobody reads");
       send_all(server, "x");
       std::string seen = read_some(client, 1);
       // Until it is there: the kernel resets for unread bytes alone.
       char byte = 0;
       if (::recv(server.get(), &byte, 1, MSG_PEEK) != 1) return std::string("nothing arrived");
       server.reset();
       return "client " + seen + read_to_end(client);
     },
     "client x|reset"},
    {"the client half-closes and gets its answer",
     [](Fd& client, Fd& server) {
       send_all(client, "question");
       shut_write(client);
       std::string seen = "server " + read_to_end(server);
       send_all(server, "answer");
       server.reset();
       return seen + ", client " + read_to_end(client);
     },
     "server question|end, client answer|end"},
    {"the server half-closes and goes on reading",
     [](Fd& client, Fd& server) {
       send_all(server, "greeting");
       shut_write(server);
       std::string seen = "client " + read_to_end(client);
       send_all(client, "more");
       client.reset();
       return seen + ", server " + read_to_end(server);
     },
     "client greeting|end, server more|end"},
    {"the client half-closes, the server resets",
     [](Fd& client, Fd& server) {
       shut_write(client);
       std::string seen = "server " + read_to_end(server);
       reset(server);
       return seen + ", client " + read_to_end(client);
     },
     "server |end, client |reset"},
    {"the client closes",
     [](Fd& client, Fd& server) {
       client.reset();
       return "server " + read_to_end(server);
     },
     "server |end"},
    {"the client resets",
     [](Fd& client, Fd& server) {
       reset(client);
       return "server " + read_to_end(server);
     },
     "server |reset"},
    {"the client resets after data",
     [](Fd& client, Fd& server) {
       send_all(client, "hello");
       std::string seen = read_some(server, 5);
       reset(client);
       return "server " + seen + read_to_end(server);
     },
     "server hello|reset"},
    {"the server half-closes, the client resets",
     [](Fd& client, Fd& server) {
       shut_write(server);
       std::string seen = "client " + read_to_end(client);
       reset(client);
       return seen + ", server " + read_to_end(server);
     },
     "client |end, server |reset"},
};

}  // namespace

std::span<const Ending> endings() { return kEndings; }

std::string play_ending(const Ending& ending, const Netns& client, const Netns& server, const Endpoint& to) {
  const Fd listener = listen_in(server, to.port);
  Dialled client_end = dial_in(client, to);
  if (!client_end.fd) return std::string("connect: ") + std::strerror(client_end.error);
  Fd server_end = accept_from(listener);
  return ending.play(client_end.fd, server_end);
}

}  // namespace weft::test
