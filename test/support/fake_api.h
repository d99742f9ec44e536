// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "test/support/netns.h"

namespace httplib {
class SSLServer;
struct Request;
struct Response;
}  // namespace httplib

namespace weft::test {

/// A certificate for an IP address that signed itself, root and server at once, and its key; PEM.
void write_server_certificate(const std::string& certificate_path, const std::string& key_path,
                              const std::string& address = "127.0.0.1");

/// A Kubernetes API for tests, over TLS on a free port of 127.0.0.1: namespaces, pods with their status, events; lists
/// in pages, watches with bookmarks, and whatever may go wrong with them. Tests change its objects as a cluster would.
class FakeApi {
 public:
  /// What was asked of it.
  struct Asked {
    std::string method, path, query, body, token;
  };

  /// `folder` takes its certificate and the token of whoever may ask. Where `netns` is given, it listens there.
  explicit FakeApi(const std::string& folder, const Netns* netns = nullptr);
  ~FakeApi();
  FakeApi(const FakeApi&) = delete;
  FakeApi& operator=(const FakeApi&) = delete;

  [[nodiscard]] std::string url() const;
  [[nodiscard]] std::string root_file() const { return folder_ + "/api-root.pem"; }
  [[nodiscard]] std::string token_file() const { return folder_ + "/api-token"; }
  /// From now on this token alone is taken; the file keeps the one before until `write`.
  void rotate_token(const std::string& token, bool write);

  /// Stops to listen and cuts what is open, as a server that goes away; start() brings it back on the same port.
  void stop();
  void start();

  /// Makes the object, or replaces it; watchers are told.
  void set_namespace(const std::string& name, const nlohmann::json& labels = nlohmann::json::object());
  /// `more` is merged into the pod's document (RFC 7396).
  void set_pod(const std::string& namespace_name, const std::string& name, const std::string& node,
               const nlohmann::json& more = nlohmann::json::object());
  void delete_pod(const std::string& namespace_name, const std::string& name);
  /// Null where there is none.
  [[nodiscard]] nlohmann::json pod(const std::string& namespace_name, const std::string& name) const;
  [[nodiscard]] std::string annotation(const std::string& namespace_name, const std::string& name,
                                       const std::string& key) const;
  [[nodiscard]] std::vector<nlohmann::json> events() const;

  /// The next `times` requests whose method and path begin with this get that status in place of an answer.
  void fail_next(const std::string& method, const std::string& path, int status, int times = 1, int retry_after = 0);
  /// All is answered again.
  void fail_no_more();
  /// Ends all streams in the middle of a line.
  void cut_streams();
  /// Every stream is sent this line.
  void send_line(const std::string& line);
  void send_bookmarks();
  /// Forgets all changes up to now: whoever asks for one of them is told 410.
  void compact();
  /// Objects a page has, at most; 0: as many as were asked for.
  void set_page(std::size_t objects);

  /// Watchers are told nothing until it is over.
  void set_silent(bool silent);
  /// Called with each patch before it is applied, on a thread of the server.
  void on_patch(std::function<void(const nlohmann::json& patch)> told);

  [[nodiscard]] std::vector<Asked> asked(const std::string& method, const std::string& path_prefix) const;
  /// Watches that were begun.
  [[nodiscard]] std::size_t streams() const;

 private:
  struct Failing {
    std::string method, path;
    int status, times, retry_after;
  };
  struct Change {
    std::uint64_t version;
    std::string collection, line, node;
  };
  struct Stream {
    std::string collection, node;
    std::uint64_t seen = 0;
    std::deque<std::string> lines;
    bool cut = false;
  };
  void listen();
  void serve(const httplib::Request& request, httplib::Response& response);
  void answer_list(const httplib::Request& request, httplib::Response& response, const std::string& collection);
  void answer_watch(const httplib::Request& request, httplib::Response& response, const std::string& collection);
  void answer_one(const httplib::Request& request, httplib::Response& response);
  void answer_patch(const httplib::Request& request, httplib::Response& response);
  void tell(const std::string& type, const std::string& collection, const nlohmann::json& object);
  [[nodiscard]] std::map<std::string, nlohmann::json>& objects_of(const std::string& collection);

  const std::string folder_;
  const Netns* netns_;
  int port_ = 0;
  std::unique_ptr<httplib::SSLServer> server_;
  std::thread thread_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false, silent_ = false;
  std::function<void(const nlohmann::json&)> on_patch_;
  std::string token_;
  std::uint64_t version_ = 1000, compacted_ = 0;
  std::size_t page_ = 0, begun_ = 0;
  std::map<std::string, nlohmann::json> pods_, namespaces_;
  std::vector<nlohmann::json> events_;
  std::vector<Change> changes_;
  std::vector<std::shared_ptr<Stream>> streams_;
  std::vector<Failing> failing_;
  std::vector<Asked> asked_;
};

}  // namespace weft::test
