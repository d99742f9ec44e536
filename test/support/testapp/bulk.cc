// SPDX-License-Identifier: Apache-2.0
#include "test/support/testapp/bulk.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

namespace weft::testapp {
namespace {

constexpr std::size_t kBlock = 64 * 1024;  // a multiple of 8, see Generator

/// The stream of a seed (splitmix64), block by block.
class Generator {
 public:
  explicit Generator(std::uint64_t seed) : state_(seed) {}
  void fill(std::vector<char>& block) {
    for (std::size_t i = 0; i < block.size(); i += sizeof(std::uint64_t)) {
      const std::uint64_t value = next();
      std::memcpy(&block[i], &value, sizeof value);
    }
  }

 private:
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }
  std::uint64_t state_;
};

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) { EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr); }
  void update(const char* data, std::size_t size) { EVP_DigestUpdate(context_.get(), data, size); }
  std::string hex() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned int length = 0;
    EVP_DigestFinal_ex(context_.get(), digest.data(), &length);
    std::string text;
    for (unsigned int i = 0; i < length; ++i) {
      char pair[3];
      std::snprintf(pair, sizeof pair, "%02x", static_cast<unsigned>(digest[i]));
      text += pair;
    }
    return text;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context_;
};

/// Compares what arrives with the stream that should, whatever pieces it comes in.
class Comparer {
 public:
  explicit Comparer(std::uint64_t seed) : generator_(seed), block_(kBlock), used_(kBlock) {}
  void check(const char* data, std::size_t size) {
    while (size > 0 && !mismatch_) {
      if (used_ == kBlock) {
        generator_.fill(block_);
        used_ = 0;
      }
      const std::size_t part = std::min(size, kBlock - used_);
      if (std::memcmp(data, &block_[used_], part) != 0) mismatch_ = position_;
      data += part;
      size -= part;
      used_ += part;
      position_ += part;
    }
  }
  /// Where the first block that differs starts.
  [[nodiscard]] std::optional<std::uint64_t> mismatch() const { return mismatch_; }

 private:
  Generator generator_;
  std::vector<char> block_;
  std::size_t used_;
  std::uint64_t position_ = 0;
  std::optional<std::uint64_t> mismatch_;
};

struct Sent {
  std::uint64_t bytes = 0;
  std::string sha256;
  std::optional<Trouble> trouble;
};

/// Sends through a duplicate of the stream's state: only the write side is used here, the read side by the other
/// thread.
Sent send_all(int fd, std::uint64_t seed, std::uint64_t size) {
  Generator generator(seed);
  std::vector<char> block(kBlock);
  Sha256 hash;
  Sent sent;
  while (sent.bytes < size) {
    generator.fill(block);
    auto left = static_cast<std::size_t>(std::min<std::uint64_t>(size - sent.bytes, kBlock));
    const char* data = block.data();
    while (left > 0) {
      const ssize_t done = ::send(fd, data, left, MSG_NOSIGNAL);
      if (done < 0 && errno == EINTR) continue;
      if (done < 0) {
        sent.trouble = trouble_of(errno, "write");
        return sent;
      }
      hash.update(data, static_cast<std::size_t>(done));
      data += done;
      left -= static_cast<std::size_t>(done);
      sent.bytes += static_cast<std::uint64_t>(done);
    }
  }
  ::shutdown(fd, SHUT_WR);
  sent.sha256 = hash.hex();
  return sent;
}

}  // namespace

std::size_t Pace::portion() const {
  return rate_ == 0 ? kBlock : std::clamp<std::size_t>(static_cast<std::size_t>(rate_ / 50), 1, kBlock);
}

void Pace::wait_for(std::uint64_t bytes) const {
  if (rate_ == 0) return;
  std::this_thread::sleep_until(
      start_ + std::chrono::duration_cast<std::chrono::nanoseconds>(
                   std::chrono::duration<double>(static_cast<double>(bytes) / static_cast<double>(rate_))));
}

std::string BulkPlan::header() const {
  char text[160];
  std::snprintf(text, sizeof text, "BULK send=%" PRIu64 " receive=%" PRIu64 " seed=%" PRIu64 " rate=%" PRIu64, send,
                receive, seed, server_rate);
  return text;
}

Result<BulkPlan> BulkPlan::parse(const std::string& header) {
  BulkPlan plan;
  const int fields =
      std::sscanf(header.c_str(), "BULK send=%" SCNu64 " receive=%" SCNu64 " seed=%" SCNu64 " rate=%" SCNu64,
                  &plan.send, &plan.receive, &plan.seed, &plan.server_rate);
  if (fields != 4)
    return fail(ErrorCode::kInvalid, "bulk request \"" + header + "\": expected send, receive, seed, rate");
  return plan;
}

BulkResult run_bulk(Stream& stream, const BulkPlan& plan, bool is_client) {
  const std::uint64_t to_send = is_client ? plan.send : plan.receive;
  const std::uint64_t to_receive = is_client ? plan.receive : plan.send;
  Sent sent;
  std::thread sender([&, fd = stream.fd()] { sent = send_all(fd, plan.seed + (is_client ? 0 : 1), to_send); });

  const Pace pace(is_client ? plan.client_rate : plan.server_rate);
  Sha256 hash;
  Comparer comparer(plan.seed + (is_client ? 1 : 0));
  std::uint64_t received = 0;
  std::vector<char> block(kBlock);
  while (const std::size_t got = stream.read(block.data(), pace.portion())) {
    hash.update(block.data(), got);
    comparer.check(block.data(), got);
    received += got;
    pace.wait_for(received);
  }
  // A reader that failed ends the sender too; one that met the end of the stream lets it finish.
  if (stream.trouble()) ::shutdown(stream.fd(), SHUT_RDWR);
  sender.join();

  BulkResult result;
  std::string verdict = "exact";
  if (stream.trouble() || sent.trouble) {
    const Trouble& trouble = stream.trouble() ? *stream.trouble() : *sent.trouble;
    result.exit = trouble.exit;
    verdict = "\"" + trouble.text + "\"";
  } else if (received != to_receive) {
    result.exit = Exit::kClosed;
    verdict = "short";
  } else if (comparer.mismatch()) {
    result.exit = Exit::kMismatch;
    verdict = "\"differs after byte " + std::to_string(*comparer.mismatch()) + "\"";
  }
  result.text = "sent=" + std::to_string(sent.bytes) + " sent_sha256=" + sent.sha256 +
                " received=" + std::to_string(received) + " received_sha256=" + hash.hex() + " verdict=" + verdict;
  return result;
}

}  // namespace weft::testapp
