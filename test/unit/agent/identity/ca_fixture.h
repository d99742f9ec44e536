// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "agent/identity/ca_directory.h"
#include "agent/identity/ca_files.h"
#include "agent/identity/self_signed.h"
#include "tunnel/hbone/cert_store.h"

namespace weft::agent::test {

inline const state::Identity kWeb{"cluster.local", "shop", "web"};

/// The machine's clock moved by what the test says: files are dated by the machine's.
class MovedClock : public Clock {
 public:
  [[nodiscard]] SteadyTime now() const override { return Clock::real().now() + by; }
  [[nodiscard]] WallTime wall_now() const override { return Clock::real().wall_now() + by; }
  std::chrono::seconds by{0};
};

/// A directory with a CA of its own.
class CaFixture : public ::testing::Test {
 protected:
  CaFixture() {
    std::string name = (std::filesystem::temp_directory_path() / "weft-ca-test.XXXXXX").string();
    base_ = ::mkdtemp(name.data()) != nullptr ? name : "";
    dir_ = base_ + "/ca";
    EXPECT_TRUE(init_ca(dir_));
  }
  ~CaFixture() override {
    if (!base_.empty()) std::filesystem::remove_all(base_);
  }

  static void write(const std::string& path, const std::string& text) { std::ofstream(path) << text; }
  [[nodiscard]] std::string text_of(const std::string& name) const {
    const auto text = read_pem_file(dir_ + "/" + name, kMaxCrlBytes);
    return text ? *text : text.error().message();
  }
  [[nodiscard]] bool has(const std::string& name) const { return exists(dir_ + "/" + name); }
  /// A certificate as an agent with this directory would issue it now.
  [[nodiscard]] std::shared_ptr<const hbone::TlsIdentity> issued() const {
    const auto ca = SelfSignedCa::load(dir_);
    EXPECT_TRUE(ca) << ca.error().message();
    if (!ca) return nullptr;
    auto made = hbone::TlsIdentity::create((*ca)->issue(kWeb).value());
    EXPECT_TRUE(made) << made.error().message();
    return made ? *made : nullptr;
  }
  /// Whether two certificates of the mesh accept each other.
  static bool trust_each_other(const hbone::TlsIdentity& a, const hbone::TlsIdentity& b) {
    return a.has_root(b.chain().back()) && b.has_root(a.chain().back());
  }

  std::string base_, dir_;
  MovedClock clock_;
};

}  // namespace weft::agent::test
