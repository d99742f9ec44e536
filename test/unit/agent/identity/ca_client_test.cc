// SPDX-License-Identifier: Apache-2.0
#include "agent/identity/ca_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <thread>

#include "agent/identity/x509_builder.h"
#include "test/support/fake_istiod.h"

namespace weft::agent {
namespace {

using namespace std::chrono_literals;
using test::FakeIstiod;
using test::TestCa;
using ::testing::AllOf;
using ::testing::HasSubstr;

const state::Identity kWeb{"cluster.local", "shop", "web"};

class CaClientTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "weft-ca-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    dir_ = name;
    write("root.pem", istiods_.roots_pem());
    write("token", "token-1");
    answer([this](const FakeIstiod::Asked& asked) { return signed_by(mesh_, asked); });
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }
  void write(const std::string& name, const std::string& text) const { std::ofstream(dir_ / name) << text; }
  void answer(std::function<FakeIstiod::Answer(const FakeIstiod::Asked&)> with) {
    istiod_.on_certificate([this, with = std::move(with)](const FakeIstiod::Asked& asked) {
      const std::lock_guard lock(mutex_);
      asked_.push_back(asked);
      return with(asked);
    });
  }
  static FakeIstiod::Answer signed_by(const TestCa& ca, const FakeIstiod::Asked& asked,
                                      const test::LeafOptions& options = {}) {
    return {.message = {}, .chain = {ca.sign_request(asked.csr, options), ca.roots_pem()}};
  }
  CaClient::Options options() const {
    return {.istiod = {.address = istiod_.address(),
                       .root_file = dir_ / "root.pem",
                       .token_file = dir_ / "token",
                       .cluster_id = "c1"}};
  }
  Error error(CaClient& client) {
    auto bundle = client.issue(kWeb);
    EXPECT_FALSE(bundle);
    return bundle ? Error() : bundle.error();
  }
  FakeIstiod::Asked asked() {
    const std::lock_guard lock(mutex_);
    return asked_.empty() ? FakeIstiod::Asked() : asked_.back();
  }

  TestCa istiods_{"istiod's"}, mesh_{"mesh"};
  std::filesystem::path dir_;
  FakeIstiod istiod_{istiods_};
  std::mutex mutex_;
  std::vector<FakeIstiod::Asked> asked_;
};

std::size_t count(const std::string& pem) { return hbone::read_certificates(pem, "pem").value().size(); }

TEST_F(CaClientTest, GetsWhatMakesATlsIdentity) {
  CaClient client(options());
  const auto bundle = client.issue(kWeb);
  ASSERT_TRUE(bundle) << bundle.error().message();
  EXPECT_EQ(bundle->identity, kWeb);
  EXPECT_EQ(bundle->chain_pem, "");
  EXPECT_EQ(count(bundle->roots_pem), 1U) << "the root of istiod's own certificate vouches for no peer";
  EXPECT_EQ(asked().impersonated, "spiffe://cluster.local/ns/shop/sa/web");
  EXPECT_EQ(asked().token, "Bearer token-1");
  EXPECT_EQ(asked().cluster_id, "c1");
  EXPECT_EQ(asked().seconds, 86'400);
  const auto made = hbone::TlsIdentity::create(*bundle);
  EXPECT_TRUE(made) << made.error().message();
  const auto status = client.status();
  EXPECT_EQ(status.problem, "");
  ASSERT_EQ(status.roots.size(), 1U);
  EXPECT_THAT(status.roots[0].subject, HasSubstr("mesh"));
}

TEST_F(CaClientTest, MakesANewKeyAndReadsTheTokenEachTime) {
  CaClient client(options());
  const auto first = client.issue(kWeb);
  write("token", "token-2\n");
  const auto second = client.issue(kWeb);
  ASSERT_TRUE(first && second);
  EXPECT_NE(first->private_key_pem, second->private_key_pem);
  EXPECT_EQ(asked().token, "Bearer token-2");
}

TEST_F(CaClientTest, TakesIntermediatesAndLeavesTheRootOutOfTheChain) {
  const TestCa below = mesh_.intermediate();
  const auto sample = below.issue(kWeb);
  answer([&](const FakeIstiod::Asked& asked) {
    return FakeIstiod::Answer{
        .message = {},
        .chain = {below.sign_request(asked.csr, {}), sample.chain_pem, mesh_.roots_pem(), mesh_.roots_pem()}};
  });
  const auto bundle = CaClient(options()).issue(kWeb);
  ASSERT_TRUE(bundle) << bundle.error().message();
  EXPECT_EQ(count(bundle->chain_pem), 1U);
  EXPECT_EQ(count(bundle->roots_pem), 1U);
  EXPECT_TRUE(hbone::TlsIdentity::create(*bundle));
}

TEST_F(CaClientTest, TakesAllRootsOfTheMesh) {
  const TestCa next("next");
  // In istiod's answer.
  answer([&](const FakeIstiod::Asked& asked) {
    return FakeIstiod::Answer{.message = {},
                              .chain = {mesh_.sign_request(asked.csr, {}), mesh_.roots_pem() + next.roots_pem()}};
  });
  auto bundle = CaClient(options()).issue(kWeb);
  ASSERT_TRUE(bundle) << bundle.error().message();
  EXPECT_EQ(count(bundle->roots_pem), 2U);
  // In the file, where that is the mesh's own list.
  answer([this](const FakeIstiod::Asked& asked) { return signed_by(mesh_, asked); });
  write("root.pem", istiods_.roots_pem() + mesh_.roots_pem() + next.roots_pem());
  bundle = CaClient(options()).issue(kWeb);
  ASSERT_TRUE(bundle) << bundle.error().message();
  EXPECT_EQ(count(bundle->roots_pem), 3U);
}

TEST_F(CaClientTest, SaysWhatIstiodSays) {
  CaClient client(options());
  answer([](const FakeIstiod::Asked&) {
    return FakeIstiod::Answer{.code = 16, .message = "request impersonation authentication failure", .chain = {}};
  });
  auto why = error(client);
  EXPECT_EQ(why.code, ErrorCode::kDenied);
  EXPECT_THAT(why.context, AllOf(HasSubstr("spiffe://cluster.local/ns/shop/sa/web"), HasSubstr(istiod_.address()),
                                 HasSubstr("UNAUTHENTICATED: request impersonation authentication failure"),
                                 HasSubstr("CA_TRUSTED_NODE_ACCOUNTS")));
  EXPECT_EQ(client.status().problem, why.context);
  answer([](const FakeIstiod::Asked&) { return FakeIstiod::Answer{.code = 14, .message = "not leader", .chain = {}}; });
  why = error(client);
  EXPECT_EQ(why.code, ErrorCode::kUnavailable);
  EXPECT_THAT(why.context, HasSubstr("UNAVAILABLE: not leader"));
  answer([this](const FakeIstiod::Asked& asked) { return signed_by(mesh_, asked); });
  EXPECT_TRUE(client.issue(kWeb));
  EXPECT_EQ(client.status().problem, "");
}

TEST_F(CaClientTest, RefusesWhatItDidNotAskFor) {
  CaClient client(options());
  const auto with = [this](const test::LeafOptions& leaf) {
    answer([this, leaf](const FakeIstiod::Asked& asked) { return signed_by(mesh_, asked, leaf); });
  };
  with({.uris = {"spiffe://cluster.local/ns/shop/sa/other"}, .dns_names = {}});
  EXPECT_THAT(error(client).context, HasSubstr("is for spiffe://cluster.local/ns/shop/sa/other: expected spiffe://"));
  with({.uris = {kWeb.to_uri(), "spiffe://cluster.local/ns/shop/sa/other"}, .dns_names = {}});
  EXPECT_EQ(error(client).code, ErrorCode::kInvalid);
  with({.uris = {kWeb.to_uri()}, .dns_names = {"web"}});
  EXPECT_EQ(error(client).code, ErrorCode::kInvalid);
  answer([this](const FakeIstiod::Asked&) {
    return FakeIstiod::Answer{.message = {}, .chain = {mesh_.issue(kWeb).certificate_pem, mesh_.roots_pem()}};
  });
  EXPECT_THAT(error(client).context, HasSubstr("another key"));
  answer([this](const FakeIstiod::Asked& asked) {
    return FakeIstiod::Answer{.message = {}, .chain = {mesh_.sign_request(asked.csr, {})}};
  });
  EXPECT_THAT(error(client).context, HasSubstr("answered with 1 certificates"));
  answer([this](const FakeIstiod::Asked&) {
    return FakeIstiod::Answer{.message = {}, .chain = {"", mesh_.roots_pem()}};
  });
  EXPECT_THAT(error(client).context, HasSubstr("no leaf"));
  answer([](const FakeIstiod::Asked&) {
    return FakeIstiod::Answer{.message = {},
                              .chain = {"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", ""}};
  });
  EXPECT_THAT(error(client).context, HasSubstr("the chain of istiod's answer"));
}

TEST_F(CaClientTest, WaitsNoLongerThanItMay) {
  auto given = options();
  given.timeout = 200ms;
  answer([](const FakeIstiod::Asked&) { return FakeIstiod::Answer{.message = {}, .chain = {}, .delay = 20s}; });
  CaClient client(given);
  const auto began = std::chrono::steady_clock::now();
  EXPECT_EQ(error(client).code, ErrorCode::kTimeout);
  EXPECT_LT(std::chrono::steady_clock::now() - began, 5s);
}

TEST_F(CaClientTest, StopEndsACall) {
  std::promise<void> arrived;
  answer([&](const FakeIstiod::Asked&) {
    arrived.set_value();
    return FakeIstiod::Answer{.message = {}, .chain = {}, .delay = 20s};
  });
  CaClient client(options());
  std::thread stopper([&] {
    arrived.get_future().wait();
    client.stop();
  });
  const auto began = std::chrono::steady_clock::now();
  EXPECT_EQ(error(client).code, ErrorCode::kUnavailable);
  EXPECT_LT(std::chrono::steady_clock::now() - began, 5s);
  stopper.join();
  EXPECT_THAT(error(client).context, HasSubstr("the agent stops"));
}

TEST_F(CaClientTest, NeedsIstiodItsRootAndAToken) {
  auto given = options();
  given.istiod.address = "127.0.0.1:1";
  CaClient nobody(given);
  EXPECT_EQ(error(nobody).code, ErrorCode::kUnavailable);
  given = options();
  given.istiod.server_name = "istiod.elsewhere.svc";
  CaClient other(given);
  EXPECT_EQ(error(other).code, ErrorCode::kUnavailable);
  CaClient client(options());
  write("token", "");
  EXPECT_THAT(error(client).context, HasSubstr("it is empty"));
  std::filesystem::remove(dir_ / "root.pem");
  EXPECT_EQ(error(client).code, ErrorCode::kNotFound);
  EXPECT_EQ(asked().csr, "") << "nobody was told the token";
}

TEST_F(CaClientTest, AsksForNoIdentityThatIsNone) {
  CaClient client(options());
  EXPECT_EQ(client.issue({"cluster.local", "a/b", "c"}).error().code, ErrorCode::kInvalid);
  EXPECT_EQ(asked().csr, "");
}

}  // namespace
}  // namespace weft::agent
