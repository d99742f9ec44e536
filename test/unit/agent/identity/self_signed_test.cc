// SPDX-License-Identifier: Apache-2.0
#include "agent/identity/self_signed.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "agent/identity/ca_files.h"
#include "test/support/test_ca.h"

namespace weft::agent {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using ::testing::HasSubstr;

const state::Identity kWeb{"cluster.local", "shop", "web"};

void write(const std::string& path, const std::string& text) {
  std::ofstream(path) << text;
  EXPECT_EQ(::chmod(path.c_str(), 0600), 0) << path;
}
mode_t mode_of(const std::string& path) {
  struct stat status {};
  EXPECT_EQ(::stat(path.c_str(), &status), 0) << path;
  return status.st_mode & 07777;
}

class SelfSignedTest : public ::testing::Test {
 protected:
  SelfSignedTest() {
    std::string name = (fs::temp_directory_path() / "weft-ca-test.XXXXXX").string();
    base_ = ::mkdtemp(name.data()) != nullptr ? name : "";
    dir_ = base_ + "/ca";
  }
  ~SelfSignedTest() override {
    if (!base_.empty()) fs::remove_all(base_);
  }
  std::string load_error() {
    auto ca = SelfSignedCa::load(dir_, clock_);
    EXPECT_FALSE(ca);
    return ca ? "" : ca.error().message();
  }
  std::unique_ptr<SelfSignedCa> made() {
    EXPECT_TRUE(init_ca(dir_, clock_));
    auto ca = SelfSignedCa::load(dir_, clock_);
    EXPECT_TRUE(ca) << ca.error().message();
    return ca ? std::move(*ca) : nullptr;
  }

  std::string base_, dir_;
  FakeClock clock_;
};

TEST_F(SelfSignedTest, InitMakesPrivateFilesAndNothingElse) {
  ASSERT_TRUE(init_ca(dir_, clock_));
  EXPECT_EQ(mode_of(dir_), 0700U);
  EXPECT_EQ(mode_of(dir_ + "/root-key.pem"), 0600U);
  EXPECT_EQ(mode_of(dir_ + "/root.pem"), 0644U);
  EXPECT_EQ(std::distance(fs::directory_iterator(dir_), fs::directory_iterator()), 2);
}

TEST_F(SelfSignedTest, InitNeverOverwrites) {
  ASSERT_TRUE(init_ca(dir_, clock_));
  const auto before = read_pem_file(dir_ + "/root.pem").value();
  const auto again = init_ca(dir_, clock_);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, ErrorCode::kInvalid);
  EXPECT_THAT(again.error().message(), HasSubstr("it has a root.pem already, which is never overwritten"));
  EXPECT_EQ(read_pem_file(dir_ + "/root.pem").value(), before);
  fs::remove(dir_ + "/root.pem");
  EXPECT_THAT(init_ca(dir_, clock_).error().message(), HasSubstr("there is a root-key.pem without its root.pem"));
}

TEST_F(SelfSignedTest, InitRefusesADirectoryThatOthersMayWrite) {
  fs::create_directory(dir_);
  fs::permissions(dir_, fs::perms::all);
  const auto refused = init_ca(dir_, clock_);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kDenied);
  EXPECT_THAT(refused.error().message(), HasSubstr("chmod 0700"));
  EXPECT_TRUE(fs::is_empty(dir_));
}

TEST_F(SelfSignedTest, InitWhereNothingCanBeMade) {
  EXPECT_THAT(init_ca(base_ + "/no/such", clock_).error().message(), HasSubstr("make directory " + base_ + "/no/such"));
  write(base_ + "/file", "x");
  EXPECT_THAT(init_ca(base_ + "/file", clock_).error().message(), HasSubstr("Not a directory"));
}

TEST_F(SelfSignedTest, OfInitsAtOnceOneWins) {
  std::atomic<int> wins{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) threads.emplace_back([&] { wins += init_ca(dir_, clock_) ? 1 : 0; });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wins, 1);
  EXPECT_TRUE(SelfSignedCa::load(dir_, clock_));
}

TEST_F(SelfSignedTest, LoadSaysWhatToDoWhereThereIsNoCa) {
  EXPECT_THAT(load_error(),
              HasSubstr("there is no such directory (make the mesh's root once with `weftctl ca init " + dir_));
  fs::create_directory(dir_);
  EXPECT_THAT(load_error(), HasSubstr("there is no CA in it (make the mesh's root once with `weftctl ca init "));
  ASSERT_TRUE(init_ca(dir_, clock_));
  fs::remove(dir_ + "/root-key.pem");
  EXPECT_THAT(load_error(), HasSubstr("root-key.pem is missing"));
  EXPECT_EQ(SelfSignedCa::load(dir_, clock_).error().code, ErrorCode::kNotFound);
}

TEST_F(SelfSignedTest, LoadRefusesFilesThatDoNotBelongTogether) {
  ASSERT_TRUE(init_ca(dir_, clock_));
  ASSERT_TRUE(init_ca(base_ + "/other", clock_));
  fs::copy_file(base_ + "/other/root.pem", dir_ + "/root.pem", fs::copy_options::overwrite_existing);
  EXPECT_THAT(load_error(), HasSubstr("root-key.pem is not the key of a root in root.pem"));
}

TEST_F(SelfSignedTest, LoadRefusesRubbish) {
  ASSERT_TRUE(init_ca(dir_, clock_));
  const auto root = read_pem_file(dir_ + "/root.pem").value();
  write(dir_ + "/root.pem", "");
  EXPECT_THAT(load_error(), HasSubstr("root.pem: no certificate in it, expected the root"));
  write(dir_ + "/root.pem", root + root);
  EXPECT_THAT(load_error(), HasSubstr("root.pem: certificate 2 is in it twice"));
  write(dir_ + "/root.pem", root.substr(0, 300));
  EXPECT_THAT(load_error(), HasSubstr("root.pem: certificate 1 is not a PEM certificate"));
  write(dir_ + "/root.pem", std::string(300'000, 'x'));
  EXPECT_THAT(load_error(), HasSubstr("larger than 256 KiB"));
  write(dir_ + "/root.pem", root);
  write(dir_ + "/root-key.pem", "-----BEGIN ENCRYPTED PRIVATE KEY-----\n");
  EXPECT_THAT(load_error(), HasSubstr("root-key.pem: not an unencrypted PEM private key"));
}

TEST_F(SelfSignedTest, LoadRefusesAKeyThatOthersMayRead) {
  ASSERT_TRUE(init_ca(dir_, clock_));
  const std::string key = dir_ + "/root-key.pem";
  for (const mode_t mode : {0640, 0604, 0620, 0601}) {
    ASSERT_EQ(::chmod(key.c_str(), mode), 0);
    auto ca = SelfSignedCa::load(dir_, clock_);
    ASSERT_FALSE(ca) << mode;
    EXPECT_EQ(ca.error().code, ErrorCode::kDenied);
    EXPECT_THAT(ca.error().message(), HasSubstr("read the key " + key + ": its group or others may use it"));
    EXPECT_THAT(ca.error().message(), HasSubstr("chmod 0600 it; in a Secret's volume set defaultMode: 0400"));
  }
  ASSERT_EQ(::chmod(key.c_str(), 0400), 0);
  EXPECT_TRUE(SelfSignedCa::load(dir_, clock_));
  // As a Secret's volume shows it: a link to a file, which is what is asked.
  fs::rename(key, base_ + "/data");
  fs::create_symlink(base_ + "/data", key);
  EXPECT_TRUE(SelfSignedCa::load(dir_, clock_));
  ASSERT_EQ(::chmod((base_ + "/data").c_str(), 0444), 0);
  EXPECT_THAT(load_error(), HasSubstr("its group or others may use it"));
}

TEST_F(SelfSignedTest, LoadRefusesAKeyOfAnotherUser) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root: gives a file away";
  ASSERT_TRUE(init_ca(dir_, clock_));
  ASSERT_EQ(::chown((dir_ + "/root-key.pem").c_str(), 65534, 65534), 0);
  EXPECT_THAT(load_error(), HasSubstr("it belongs to uid 65534, who could replace it"));
}

TEST_F(SelfSignedTest, LoadRefusesWhatIsNoRoot) {
  const test::TestCa ca;
  fs::create_directory(dir_);
  const auto leaf = ca.issue(kWeb);
  write(dir_ + "/root.pem", leaf.certificate_pem);
  write(dir_ + "/root-key.pem", leaf.private_key_pem);
  EXPECT_THAT(load_error(), HasSubstr("root.pem: certificate 1 is not a CA's"));
  test::LeafOptions options;
  options.is_ca = true;
  const auto below = ca.issue(kWeb, options);
  write(dir_ + "/root.pem", below.certificate_pem);
  write(dir_ + "/root-key.pem", below.private_key_pem);
  EXPECT_THAT(load_error(), HasSubstr("not signed by itself"));
}

TEST_F(SelfSignedTest, TheKeySaysWhichOfSeveralRootsSigns) {
  ASSERT_TRUE(init_ca(dir_, clock_));
  ASSERT_TRUE(init_ca(base_ + "/other", clock_));
  const auto own = read_pem_file(dir_ + "/root.pem").value(), other = read_pem_file(base_ + "/other/root.pem").value();
  for (const auto& both : {own + other, other + own}) {
    write(dir_ + "/root.pem", both);
    const auto ca = SelfSignedCa::load(dir_, clock_);
    ASSERT_TRUE(ca) << ca.error().message();
    EXPECT_EQ((*ca)->roots_pem(), both);
    const auto identity = hbone::TlsIdentity::create((*ca)->issue(kWeb).value());
    ASSERT_TRUE(identity);
    const auto roots = hbone::read_certificates(own, "root");
    EXPECT_EQ(X509_cmp((*identity)->chain().back(), roots->front().get()), 0);
  }
}

TEST_F(SelfSignedTest, LoadRefusesARootOutsideItsDates) {
  ASSERT_TRUE(init_ca(dir_, clock_));
  clock_.advance(std::chrono::hours(24 * 3650));
  EXPECT_THAT(load_error(), HasSubstr("root.pem: the root expired at 2033-"));
  clock_.advance(-std::chrono::hours(24 * 3650 + 2));
  EXPECT_THAT(load_error(), HasSubstr("is this node's clock behind?"));
}

TEST_F(SelfSignedTest, LoadNeedsNoWriteAccess) {
  ASSERT_TRUE(init_ca(dir_, clock_));
  fs::permissions(dir_, fs::perms::owner_read | fs::perms::owner_exec);
  const auto before = fs::last_write_time(dir_);
  EXPECT_TRUE(SelfSignedCa::load(dir_, clock_));
  EXPECT_EQ(fs::last_write_time(dir_), before);
  fs::permissions(dir_, fs::perms::owner_all);
}

TEST_F(SelfSignedTest, LeafIsWhatPeersDemand) {
  const auto ca = made();
  const auto bundle = ca->issue(kWeb);
  ASSERT_TRUE(bundle) << bundle.error().message();
  EXPECT_EQ(bundle->roots_pem, ca->roots_pem());
  EXPECT_EQ(bundle->chain_pem, "");
  const auto identity = hbone::TlsIdentity::create(*bundle);
  ASSERT_TRUE(identity) << identity.error().message();
  EXPECT_EQ((*identity)->not_before(), clock_.wall_now() - 2min);
  EXPECT_EQ((*identity)->not_after(), clock_.wall_now() + 1h);
  EXPECT_EQ((*identity)->serial().size(), 32U);

  const auto leaf = std::move(hbone::read_certificates(bundle->certificate_pem, "leaf")->front());
  EXPECT_EQ(X509_get_version(leaf.get()), X509_VERSION_3);
  EXPECT_EQ(X509_NAME_entry_count(X509_get_subject_name(leaf.get())), 0);
  EXPECT_EQ(X509_get_key_usage(leaf.get()), static_cast<std::uint32_t>(KU_DIGITAL_SIGNATURE));
  EXPECT_EQ(X509_get_extended_key_usage(leaf.get()), static_cast<std::uint32_t>(XKU_SSL_SERVER | XKU_SSL_CLIENT));
  EXPECT_EQ(X509_check_ca(leaf.get()), 0);
  const int san = X509_get_ext_by_NID(leaf.get(), NID_subject_alt_name, -1);
  ASSERT_GE(san, 0);
  EXPECT_EQ(X509_EXTENSION_get_critical(X509_get_ext(leaf.get(), san)), 1);
  char group[32] = {};
  EXPECT_EQ(EVP_PKEY_get_group_name(X509_get0_pubkey(leaf.get()), group, sizeof group, nullptr), 1);
  EXPECT_STREQ(group, "prime256v1");
}

TEST_F(SelfSignedTest, SerialsAndKeysDiffer) {
  const auto ca = made();
  std::set<std::string> serials, keys;
  for (int i = 0; i < 20; ++i) {
    const auto bundle = ca->issue(kWeb).value();
    serials.insert((*hbone::TlsIdentity::create(bundle))->serial());
    keys.insert(bundle.private_key_pem);
  }
  EXPECT_EQ(serials.size(), 20U);
  EXPECT_EQ(keys.size(), 20U);
}

TEST_F(SelfSignedTest, IdentityCannotSmuggleASecondName) {
  const auto ca = made();
  EXPECT_FALSE(ca->issue({"cluster.local", "shop/sa/admin", "web"}));
  EXPECT_FALSE(ca->issue({"", "shop", "web"}));
  EXPECT_FALSE(ca->issue({"cluster.local", "shop", "web\n"}));
  // Commas and colons are separators in OpenSSL's own extension language.
  const state::Identity odd{"cluster.local", "shop", "web,DNS:evil"};
  const auto bundle = ca->issue(odd);
  ASSERT_TRUE(bundle);
  const auto leaf = std::move(hbone::read_certificates(bundle->certificate_pem, "leaf")->front());
  EXPECT_EQ(hbone::uri_sans(leaf.get()), std::vector<std::string>{odd.to_uri()});
  EXPECT_EQ(hbone::san_count(leaf.get()), 1U);
}

TEST_F(SelfSignedTest, LifetimeIsBounded) {
  const auto ca = made();
  EXPECT_THAT(ca->issue(kWeb, 0s).error().message(), HasSubstr("the lifetime must be positive"));
  EXPECT_FALSE(ca->issue(kWeb, -1s));
  const auto forever = hbone::TlsIdentity::create(ca->issue(kWeb, std::chrono::seconds::max()).value());
  EXPECT_EQ((*forever)->not_after(), ca->not_after());
  clock_.advance(24h * 3650 - 10s);
  const auto last = hbone::TlsIdentity::create(ca->issue(kWeb).value());
  EXPECT_EQ((*last)->not_after(), ca->not_after());
  clock_.advance(10s);
  EXPECT_THAT(ca->issue(kWeb).error().message(), HasSubstr("the root in " + dir_ + " expired at"));
}

TEST_F(SelfSignedTest, TwoNodesOfOneRootTrustEachOther) {
  ASSERT_TRUE(init_ca(dir_));
  const auto a = SelfSignedCa::load(dir_), b = SelfSignedCa::load(dir_);
  ASSERT_TRUE(a && b);
  auto client = (*a)->issue(kWeb).value();
  client.roots_pem = (*b)->roots_pem();
  EXPECT_TRUE(hbone::TlsIdentity::create(client));
  ASSERT_TRUE(init_ca(base_ + "/other"));
  client.roots_pem = (*SelfSignedCa::load(base_ + "/other"))->roots_pem();
  EXPECT_FALSE(hbone::TlsIdentity::create(client));
}

TEST_F(SelfSignedTest, BundleIsWrittenAndReplaced) {
  const auto ca = made();
  const std::string out = base_ + "/out";
  for (int i = 0; i < 2; ++i) {
    const auto bundle = ca->issue(kWeb, 5min).value();
    ASSERT_TRUE(write_bundle(bundle, out));
    EXPECT_EQ(read_pem_file(out + "/cert.pem").value(), bundle.certificate_pem);
    EXPECT_EQ(read_pem_file(out + "/key.pem").value(), bundle.private_key_pem);
    EXPECT_EQ(read_pem_file(out + "/roots.pem").value(), ca->roots_pem());
  }
  EXPECT_EQ(mode_of(out + "/key.pem"), 0600U);
  EXPECT_EQ(mode_of(out), 0700U);
  EXPECT_EQ(std::distance(fs::directory_iterator(out), fs::directory_iterator()), 3);
}

TEST_F(SelfSignedTest, FailedWriteLeavesNothing) {
  fs::create_directories(base_ + "/target");
  write(base_ + "/target/child", "x");
  const auto failed = write_file_atomically(base_ + "/target", "text", 0600);  // a directory cannot be renamed over
  ASSERT_FALSE(failed);
  EXPECT_THAT(failed.error().message(), HasSubstr("Is a directory"));
  EXPECT_EQ(std::distance(fs::directory_iterator(base_), fs::directory_iterator()), 1);
}

}  // namespace
}  // namespace weft::agent
