// SPDX-License-Identifier: Apache-2.0
#include "agent/registration_records.h"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include <fstream>

#include "test/unit/agent/fakes.h"

namespace weft::agent {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

Registration example() {
  Registration r;
  r.key = {"abc.def", "eth0"};
  r.netns_path = "/run/netns/cni-1";
  r.netns_id = {4026532000, 17};
  r.pod_namespace = "shop";
  r.pod_name = "web";
  r.pod_uid = "u-1";
  r.addresses = {test::ip("10.0.0.5"), test::ip("fd00::5")};
  r.ifindex = 2;
  r.host_ifindex = 9;
  r.slot = 4;
  r.workload_uid = "Kubernetes//Pod/shop/web";
  r.enrolled = true;
  r.registered_at = WallTime(std::chrono::seconds(1'700'000'000));
  return r;
}

TEST(RegistrationRecords, GiveBackWhatWasSaved) {
  const test::TemporaryDirectory directory;
  const auto records = RegistrationRecords::open(directory.path()).value();
  ASSERT_TRUE(records.save(example()));
  auto second = example();
  second.key.if_name = "net1";
  ASSERT_TRUE(records.save(second));
  second.enrolled = false;
  ASSERT_TRUE(records.save(second));

  const auto loaded = RegistrationRecords::open(directory.path()).value().load().value();
  EXPECT_THAT(loaded.problems, IsEmpty());
  ASSERT_EQ(loaded.registrations.size(), 2U);
  const bool first_is_eth0 = loaded.registrations[0].key.if_name == "eth0";
  const Registration& r = loaded.registrations[first_is_eth0 ? 0 : 1];
  const Registration expected = example();
  EXPECT_EQ(r.key, expected.key);
  EXPECT_EQ(r.netns_path, expected.netns_path);
  EXPECT_EQ(r.netns_id.inode, expected.netns_id.inode);
  EXPECT_EQ(r.netns_id.cookie, expected.netns_id.cookie);
  EXPECT_EQ(r.pod(), "shop/web");
  EXPECT_EQ(r.pod_uid, expected.pod_uid);
  EXPECT_EQ(r.addresses, expected.addresses);
  EXPECT_EQ(r.ifindex, 2U);
  EXPECT_EQ(r.host_ifindex, 9U);
  EXPECT_EQ(r.slot, 4U);
  EXPECT_EQ(r.workload_uid, expected.workload_uid);
  EXPECT_EQ(r.registered_at, expected.registered_at);
  EXPECT_TRUE(r.enrolled);
  EXPECT_FALSE(loaded.registrations[first_is_eth0 ? 1 : 0].enrolled);
}

TEST(RegistrationRecords, RemovesOneAndDoesNotMindAMissingOne) {
  const test::TemporaryDirectory directory;
  const auto records = RegistrationRecords::open(directory.path()).value();
  ASSERT_TRUE(records.save(example()));
  EXPECT_TRUE(records.remove(example().key));
  EXPECT_TRUE(records.remove(example().key));
  EXPECT_THAT(records.load().value().registrations, IsEmpty());
}

TEST(RegistrationRecords, PutsAsideWhatItCannotRead) {
  const test::TemporaryDirectory directory;
  const auto records = RegistrationRecords::open(directory.path()).value();
  ASSERT_TRUE(records.save(example()));
  const std::string folder = directory.path() + "/registrations/";
  std::ofstream(folder + "half.json") << R"({"version": 1, "bootId": )";
  std::ofstream(folder + "odd.json") << R"({"version": 1})";
  std::ofstream(folder + "newer.json") << R"({"version": 2})";
  std::ofstream(folder + "killed.json.tmp") << "{";
  const auto loaded = records.load().value();
  EXPECT_EQ(loaded.registrations.size(), 1U);
  EXPECT_THAT(loaded.problems,
              ::testing::UnorderedElementsAre(HasSubstr("half.json"), HasSubstr("odd.json"), HasSubstr("newer.json")));
  EXPECT_TRUE(std::filesystem::exists(folder + "odd.json.bad"));
  EXPECT_FALSE(std::filesystem::exists(folder + "killed.json.tmp"));
  EXPECT_THAT(records.load().value().problems, IsEmpty());
}

TEST(RegistrationRecords, AreReadStrictlyAndSayWhichFieldIsWrong) {
  const auto complaint = [](const char* field, const nlohmann::json& value) {
    auto record = nlohmann::json::parse(encode_record(example(), "boot"));
    record[field] = value;
    const auto parsed = parse_record(record.dump());
    return parsed ? std::string("taken") : parsed.error().message();
  };
  EXPECT_EQ(complaint("slot", 4), "taken");
  // Of a float or a number that is too large, the library would take what is left of it.
  for (const nlohmann::json& value : {nlohmann::json(4294967296), nlohmann::json(-1), nlohmann::json(4.5),
                                      nlohmann::json(1e300), nlohmann::json(true), nlohmann::json("4")}) {
    EXPECT_EQ(complaint("slot", value),
              "record: slot is " + value.dump() + ", expected a whole number from 0 to 4294967295");
  }
  EXPECT_THAT(complaint("netnsInode", 1e300), HasSubstr("netnsInode is 1e+300"));
  EXPECT_THAT(complaint("registeredAt", 9'223'372'036'854'775'807), HasSubstr("registeredAt is 9223372036854775807"));
  EXPECT_EQ(complaint("registeredAt", 9'223'372'036), "taken") << "the last second that the clock can hold";
  EXPECT_THAT(complaint("registeredAt", 9'223'372'037), HasSubstr("registeredAt is 9223372037"));
  EXPECT_THAT(complaint("podName", 7), HasSubstr("podName is 7, expected a text"));
  EXPECT_THAT(complaint("bootId", nullptr), HasSubstr("bootId is missing"));
  EXPECT_THAT(complaint("enrolled", 1), HasSubstr("enrolled is 1, expected true or false"));
  EXPECT_THAT(complaint("addresses", {"10.0.0.5", "10.0.0"}), HasSubstr("addresses is \"10.0.0\""));
  EXPECT_THAT(complaint("annotations", {{"a", 1}}), HasSubstr("annotations is 1, expected an object of texts"));
  EXPECT_EQ(parse_record(R"({"version": 2})").error().message(), "record: version 2, expected 1");
}

TEST(RegistrationRecords, DropsRecordsOfAnotherBoot) {
  const test::TemporaryDirectory directory;
  const auto records = RegistrationRecords::open(directory.path()).value();
  const std::string path = directory.path() + "/registrations/old.json";
  std::ofstream(path) << encode_record(example(), "00000000-0000-0000-0000-000000000000");
  EXPECT_THAT(records.load().value().registrations, IsEmpty());
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(RegistrationRecords, SaysWhichDirectoryCannotBeMade) {
  auto records = RegistrationRecords::open("/proc/version");
  ASSERT_FALSE(records);
  EXPECT_THAT(records.error().message(), HasSubstr("/proc/version/registrations"));
}

}  // namespace
}  // namespace weft::agent
