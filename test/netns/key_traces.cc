// SPDX-License-Identifier: Apache-2.0
#include "test/netns/key_traces.h"

#include <fcntl.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>

#include "test/support/netns.h"
#include "test/support/process.h"
#include "tunnel/base/fd.h"
#include "tunnel/hbone/tls_x509.h"

namespace weft::test {
namespace {

constexpr std::size_t kScalarBytes = 32;

std::string scalar_of(const std::string& pem) {
  const auto key = hbone::read_private_key(pem, "the key");
  BIGNUM* number = nullptr;
  if (!key || EVP_PKEY_get_bn_param(key->get(), OSSL_PKEY_PARAM_PRIV_KEY, &number) != 1)
    throw TestError("no key of a curve");
  const hbone::OpenSslPtr<BIGNUM> owned(number);
  std::string bytes(kScalarBytes, '\0');
  if (BN_bn2binpad(number, reinterpret_cast<unsigned char*>(bytes.data()), kScalarBytes) < 0)
    throw TestError("no P-256 key");
  return bytes;
}

std::string hex(const std::string& bytes) {
  std::string text;
  for (const char c : bytes) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", static_cast<unsigned char>(c));
    text += two;
  }
  return text;
}

/// What stands before the scalar in a PrivateKeyInfo of P-256; of its beginning, which free() overwrites, nothing.
const std::string kDer("\xce\x3d\x03\x01\x07\x04\x6d\x30\x6b\x02\x01\x01\x04\x20", 14);
/// The same, as far as it is the same in every PEM text.
const std::string kPem = "AwEHBG0wawIBAQQg";

/// One mapping of /proc/PID/smaps.
struct Mapping {
  unsigned long begin = 0, end = 0;
  std::string line;
  bool readable = false, locked = false, dumped = true;
};

std::vector<Mapping> mappings_of(pid_t pid) {
  std::vector<Mapping> all;
  std::istringstream lines(read_file("/proc/" + std::to_string(pid) + "/smaps"));
  for (std::string line; std::getline(lines, line);) {
    Mapping mapping;
    char rights[5] = {};
    if (std::sscanf(line.c_str(), "%lx-%lx %4s", &mapping.begin, &mapping.end, rights) == 3) {
      mapping.line = line;
      mapping.readable = rights[0] == 'r' && line.find("[v") == std::string::npos;
      all.push_back(mapping);
    } else if (line.starts_with("VmFlags:")) {
      all.back().locked = line.find(" lo") != std::string::npos;
      all.back().dumped = line.find(" dd") == std::string::npos;
    }
  }
  return all;
}

int count(const std::string& haystack, const std::string& needle) {
  int found = 0;
  for (std::size_t at = 0; (at = haystack.find(needle, at)) != std::string::npos; ++at) ++found;
  return found;
}

}  // namespace

KeyTraces::KeyTraces(const std::string& key_path) {
  const std::string pem = read_file(key_path);
  const std::string big_endian = scalar_of(pem);
  const std::string little_endian(big_endian.rbegin(), big_endian.rend());
  std::istringstream lines(pem);
  std::string first, second;
  std::getline(lines, first);
  std::getline(lines, first);
  std::getline(lines, second);
  in_memory_ = {{"the CA's key", big_endian},
                {"the CA's key as a number", little_endian},
                {"the CA's key as PEM", second},
                {"a key as DER", kDer},
                {"a key as PEM", kPem}};
  in_text_ = {{"a key as PEM", kPem}, {"the CA's key in hex", hex(big_endian)}};
}

KeyTraces::Found KeyTraces::find_in(pid_t pid) const {
  Found found;
  const Fd memory(::open(("/proc/" + std::to_string(pid) + "/mem").c_str(), O_RDONLY | O_CLOEXEC));
  if (!memory) throw TestError("the memory of " + std::to_string(pid) + " cannot be read");
  for (const Mapping& mapping : mappings_of(pid)) {
    if (!mapping.readable) continue;
    std::string bytes(mapping.end - mapping.begin, '\0');
    const ssize_t got = ::pread(memory.get(), bytes.data(), bytes.size(), static_cast<off_t>(mapping.begin));
    if (got <= 0) continue;
    bytes.resize(static_cast<std::size_t>(got));
    for (const auto& [what, trace] : in_memory_) {
      const int times = count(bytes, trace);
      if (mapping.locked && !mapping.dumped)
        found.locked += times;
      else if (times > 0)
        found.in_the_open.push_back(std::to_string(times) + " times " + what + " in " + mapping.line);
    }
  }
  return found;
}

int KeyTraces::find_in_text(const std::string& text) const {
  int found = 0;
  for (const auto& trace : in_text_) found += count(text, trace.bytes);
  return found;
}

}  // namespace weft::test
