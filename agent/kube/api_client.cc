// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/api_client.h"

#include <curl/curl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <mutex>

#include "agent/text_file.h"

namespace weft::kube {
namespace {

/// Between two looks of a request that nothing happens to; stop() wakes it all the same.
constexpr int kPollMs = 1'000;
/// A server that vanished is noticed by TCP within that time, also by a watch that is told nothing.
constexpr int kKeepAliveSeconds = 15;
constexpr int kPeerGoneMs = 30'000;
/// The API's own words as an error shows them.
constexpr std::size_t kMaxReason = 400;

struct HeadersFree {
  void operator()(curl_slist* list) const { ::curl_slist_free_all(list); }
};
using Headers = std::unique_ptr<curl_slist, HeadersFree>;

void add_header(Headers& headers, const std::string& line) {
  headers.reset(::curl_slist_append(headers.release(), line.c_str()));
}

int prepare_socket(void* /*owner*/, curl_socket_t socket, curlsocktype /*purpose*/) {
  ::setsockopt(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, &kPeerGoneMs, sizeof kPeerGoneMs);
  return CURL_SOCKOPT_OK;
}

ErrorCode code_of(CURLcode code) {
  switch (code) {
    case CURLE_OPERATION_TIMEDOUT:
      return ErrorCode::kTimeout;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
      return ErrorCode::kDenied;
    default:
      return ErrorCode::kUnavailable;
  }
}

const char* hint_of(CURLcode code) {
  switch (code) {
    case CURLE_PEER_FAILED_VERIFICATION:
      return " (is --kube-root the cluster's CA, and is the server's name in its certificate?)";
    case CURLE_COULDNT_CONNECT:
    case CURLE_OPERATION_TIMEDOUT:
      return " (is the API server up, and reachable from this node?)";
    default:
      return "";
  }
}

/// The message of a Status object, or what there is of the body.
std::string reason_of(const std::string& body) {
  auto document = cni::parse_json(body);
  const std::string message = document ? cni::text_member(*document, "message") : "";
  return excerpt(message.empty() ? body : message, kMaxReason);
}

}  // namespace

struct ApiClient::Curl {
  CURLM* multi = nullptr;
  CURL* easy = nullptr;
  std::array<char, CURL_ERROR_SIZE> error{};
  ~Curl() {
    ::curl_easy_cleanup(easy);
    ::curl_multi_cleanup(multi);
  }
};

/// What comes of one request, while it comes.
struct ApiClient::Transfer {
  const ApiRequest* request = nullptr;
  CURL* easy = nullptr;
  std::string body;
  enum class End : std::uint8_t { kNone, kByReceiver, kTooLong } end = End::kNone;

  static std::size_t on_data(char* data, std::size_t size, std::size_t count, void* self) {
    return static_cast<Transfer*>(self)->take({data, size * count}) ? size * count : 0;
  }

  bool take(std::string_view data) {
    long status = 0;
    ::curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    const bool lines = request->on_line && status == 200;
    if (!lines) {
      if (body.size() + data.size() > kMaxBody) return stop(End::kTooLong);
      body += data;
      return true;
    }
    while (!data.empty()) {
      const auto line_end = data.find('\n');
      const auto part = data.substr(0, line_end);
      if (body.size() + part.size() > kMaxLine) return stop(End::kTooLong);
      body += part;
      if (line_end == std::string_view::npos) return true;
      data.remove_prefix(line_end + 1);
      const bool go_on = body.empty() || request->on_line(body);
      body.clear();
      if (!go_on) return stop(End::kByReceiver);
    }
    return true;
  }

  bool stop(End why) {
    end = why;
    return false;
  }
};

ApiClient::ApiClient(ApiConfig config) : config_(std::move(config)), curl_(std::make_unique<Curl>()) {
  static std::once_flag once;
  std::call_once(once, [] { ::curl_global_init(CURL_GLOBAL_DEFAULT); });
  curl_->multi = ::curl_multi_init();
  curl_->easy = ::curl_easy_init();
}

ApiClient::~ApiClient() = default;

void ApiClient::stop() {
  stopped_ = true;
  ::curl_multi_wakeup(curl_->multi);
}

std::string ApiClient::name_of(const ApiRequest& request) const {
  return request.method + " " + config_.server + request.path;
}

Result<std::string> ApiClient::token() const {
  auto text = agent::read_text_file(config_.token_file);
  if (!text) return Failure(text.error());
  while (!text->empty() && std::isspace(static_cast<unsigned char>(text->back())) != 0) text->pop_back();
  if (text->empty() || std::ranges::any_of(*text, [](char c) { return c <= ' ' || c > '~'; })) {
    return fail(ErrorCode::kInvalid, "the token in " + config_.token_file + ": expected one line of printable text");
  }
  return text;
}

/// What libcurl does not copy lives as long as the request.
void ApiClient::prepare(const ApiRequest& request, curl_slist* headers, Transfer& transfer) {
  const auto timeout = request.timeout.count() > 0 ? request.timeout : config_.request_timeout;
  const std::string url = config_.server + request.path;
  CURL* easy = transfer.easy;
  ::curl_easy_reset(easy);
  const auto set = [easy](CURLoption option, auto value) { (void)::curl_easy_setopt(easy, option, value); };
  set(CURLOPT_URL, url.c_str());
  set(CURLOPT_CUSTOMREQUEST, request.method.c_str());
  if (!request.body.empty()) {
    set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
    set(CURLOPT_POSTFIELDS, request.body.data());
  }
  set(CURLOPT_HTTPHEADER, headers);
  set(CURLOPT_USERAGENT, "weft-agent");
  set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  set(CURLOPT_PROTOCOLS_STR, "https");
  set(CURLOPT_PROXY, "");
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_CAINFO, config_.root_file.c_str());
  set(CURLOPT_CAPATH, static_cast<const char*>(nullptr));
  // Otherwise the roots of a day ago would do.
  set(CURLOPT_CA_CACHE_TIMEOUT, 0L);
  set(CURLOPT_SSL_VERIFYPEER, 1L);
  set(CURLOPT_SSL_VERIFYHOST, 2L);
  set(CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
  set(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(std::min(timeout, config_.connect_timeout).count()));
  set(CURLOPT_TIMEOUT_MS, static_cast<long>(timeout.count()));
  set(CURLOPT_TCP_KEEPALIVE, 1L);
  set(CURLOPT_TCP_KEEPIDLE, static_cast<long>(kKeepAliveSeconds));
  set(CURLOPT_TCP_KEEPINTVL, static_cast<long>(kKeepAliveSeconds));
  set(CURLOPT_SOCKOPTFUNCTION, &prepare_socket);
  set(CURLOPT_WRITEFUNCTION, &Transfer::on_data);
  set(CURLOPT_WRITEDATA, static_cast<void*>(&transfer));
  set(CURLOPT_ERRORBUFFER, curl_->error.data());
  curl_->error.front() = '\0';
}

Result<ApiResponse> ApiClient::send(const ApiRequest& request) {
  const std::string name = name_of(request);
  if (curl_->easy == nullptr || curl_->multi == nullptr)
    return fail(ErrorCode::kInternal, name + ": no memory for a connection");
  auto bearer = token();
  if (!bearer) {
    Error error = bearer.error();
    error.context = name + ": " + error.context;
    return Failure(std::move(error));
  }
  Headers headers;
  add_header(headers, "Authorization: Bearer " + *bearer);
  add_header(headers, "Accept: " + request.accept);
  if (!request.body.empty()) add_header(headers, "Content-Type: " + request.content_type);
  Transfer transfer{.request = &request, .easy = curl_->easy, .body = {}};
  prepare(request, headers.get(), transfer);
  if (auto performed = perform(transfer, name); !performed) return Failure(performed.error());
  ApiResponse response;
  ::curl_easy_getinfo(transfer.easy, CURLINFO_RESPONSE_CODE, &response.status);
  curl_off_t retry_after = 0;
  ::curl_easy_getinfo(transfer.easy, CURLINFO_RETRY_AFTER, &retry_after);
  if (retry_after > 0) response.retry_after = seconds(retry_after);
  if (!request.on_line || response.status != 200) response.body = std::move(transfer.body);
  return response;
}

Result<void> ApiClient::perform(Transfer& transfer, const std::string& name) {
  CURLM* multi = curl_->multi;
  if (::curl_multi_add_handle(multi, curl_->easy) != CURLM_OK)
    return fail(ErrorCode::kInternal, name + ": the request cannot be begun");
  CURLcode ended = CURLE_OK;
  for (int running = 1; running > 0;) {
    if (stopped_) {
      ::curl_multi_remove_handle(multi, curl_->easy);
      return fail(ErrorCode::kUnavailable, name + ": the agent stops");
    }
    const CURLMcode stepped = ::curl_multi_perform(multi, &running);
    if (stepped == CURLM_OK && running > 0) (void)::curl_multi_poll(multi, nullptr, 0, kPollMs, nullptr);
    if (stepped == CURLM_OK) continue;
    ::curl_multi_remove_handle(multi, curl_->easy);
    return fail(ErrorCode::kInternal, name + ": " + ::curl_multi_strerror(stepped));
  }
  int left = 0;
  while (const CURLMsg* message = ::curl_multi_info_read(multi, &left)) {
    if (message->msg == CURLMSG_DONE) ended = message->data.result;
  }
  ::curl_multi_remove_handle(multi, curl_->easy);
  if (transfer.end == Transfer::End::kByReceiver) return {};
  if (transfer.end == Transfer::End::kTooLong) {
    return fail(ErrorCode::kOverLimit, name + ": more came than one answer may have (" +
                                           std::to_string((transfer.request->on_line ? kMaxLine : kMaxBody) >> 20) +
                                           " MiB)");
  }
  if (ended == CURLE_OK) return {};
  const char* detail = curl_->error.front() != '\0' ? curl_->error.data() : ::curl_easy_strerror(ended);
  return fail(code_of(ended), name + ": " + excerpt(detail, kMaxReason) + hint_of(ended));
}

Error ApiClient::refusal(const ApiRequest& request, const ApiResponse& response) const {
  Error error;
  error.context = name_of(request) + ": " + std::to_string(response.status);
  const char* hint = "";
  switch (response.status) {
    case 401:
      error.code = ErrorCode::kDenied;
      hint = " (is the service account's token the right one, and not past its end?)";
      break;
    case 403:
      error.code = ErrorCode::kDenied;
      hint = " (is the ClusterRole of docs/kubernetes.md bound to the agent's service account?)";
      break;
    case 404:
      error.code = ErrorCode::kNotFound;
      break;
    case 429:
      error.code = ErrorCode::kUnavailable;
      break;
    default:
      error.code = response.status >= 500 ? ErrorCode::kUnavailable : ErrorCode::kInvalid;
  }
  if (const std::string reason = reason_of(response.body); !reason.empty()) error.context += ": " + reason;
  error.context += hint;
  return error;
}

Result<Json> ApiClient::ask(const ApiRequest& request) {
  auto response = send(request);
  if (!response) return Failure(response.error());
  if (!response->ok()) return Failure(refusal(request, *response));
  auto document = cni::parse_json(response->body);
  if (document) return document;
  return fail(ErrorCode::kUnavailable, name_of(request) + ": the answer is no document: " + document.error().message());
}

std::string escape(std::string_view value) {
  constexpr const char* kDigits = "0123456789ABCDEF";
  std::string text;
  for (const char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0 || c == '-' || c == '.' || c == '_' || c == '~') {
      text += c;
    } else {
      text += '%';
      text += kDigits[byte >> 4];
      text += kDigits[byte & 15];
    }
  }
  return text;
}

}  // namespace weft::kube
