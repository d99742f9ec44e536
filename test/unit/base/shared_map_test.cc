// SPDX-License-Identifier: Apache-2.0
#include "tunnel/base/shared_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>

namespace weft::test {
namespace {

/// Sends all of a few keys into one list, so that what lies side by side is tested too.
struct FewHashes {
  std::size_t operator()(int key) const { return static_cast<std::size_t>(key % 7); }
};

template <class Map>
std::map<int, int> contents(const Map& map) {
  std::map<int, int> out;
  map.each([&](int key, int value) { return out.emplace(key, value).second; });
  return out;
}

TEST(SharedMap, EmptyHasNothing) {
  SharedMap<int, int> map;
  EXPECT_EQ(map.find(1), nullptr);
  map.erase(1, Edit());
  EXPECT_TRUE(map.empty());
  EXPECT_THAT(contents(map), ::testing::IsEmpty());
}

TEST(SharedMap, FindsStringsByViewsOfThem) {
  SharedMap<std::string, int, StringHash> map;
  const Edit edit;
  map.at(std::string_view("key"), edit) = 5;
  ASSERT_NE(map.find(std::string_view("key")), nullptr);
  EXPECT_EQ(*map.find("key"), 5);
  EXPECT_FALSE(map.contains("ke"));
}

TEST(SharedMap, EndsEarlyWhereItIsToldTo) {
  SharedMap<int, int> map;
  const Edit edit;
  for (int key = 0; key < 100; ++key) map.at(key, edit) = key;
  int seen = 0;
  map.each([&](int /*key*/, int /*value*/) { return ++seen < 3; });
  EXPECT_EQ(seen, 3);
}

/// Copies that are kept while their successors change stay what they were.
template <class Hash>
void change_copies(int keys) {
  std::minstd_rand random(7);
  std::vector<std::pair<SharedMap<int, int, Hash>, std::map<int, int>>> versions(1);
  for (int version = 1; version <= 60; ++version) {
    auto [map, expected] = versions.back();
    const Edit edit;
    for (int i = 0; i < 40; ++i) {
      const int key = static_cast<int>(random() % static_cast<unsigned>(keys));
      if (random() % 3 == 0) {
        map.erase(key, edit);
        expected.erase(key);
      } else {
        map.at(key, edit) = version * 1000 + i;
        expected[key] = version * 1000 + i;
      }
    }
    versions.emplace_back(std::move(map), std::move(expected));
  }
  for (const auto& [map, expected] : versions) {
    EXPECT_EQ(map.size(), expected.size());
    EXPECT_EQ(contents(map), expected);
    for (int key = 0; key < keys; ++key) EXPECT_EQ(map.contains(key), expected.contains(key));
  }
}

TEST(SharedMap, CopiesStayWhatTheyWere) { change_copies<std::hash<int>>(3000); }
TEST(SharedMap, CopiesOfColliding) { change_copies<FewHashes>(50); }

}  // namespace
}  // namespace weft::test
