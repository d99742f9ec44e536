// SPDX-License-Identifier: Apache-2.0
#include "tunnel/proxy/source_ports.h"

#include <gtest/gtest.h>

#include <set>

namespace weft::proxy {
namespace {

std::vector<std::uint16_t> all(const SourcePorts& ports) {
  std::vector<std::uint16_t> out;
  for (std::size_t i = 0; i < ports.count(); ++i) out.push_back(ports.at(i));
  return out;
}

TEST(SourcePorts, AreBelowTheEphemeralOnesAndAboveTheWellKnown) {
  const SourcePorts ports;
  ASSERT_EQ(ports.count(), 31744U);
  EXPECT_EQ(ports.at(0), 1024);
  EXPECT_EQ(ports.at(31743), 32767);
}

TEST(SourcePorts, LeaveOutWhatIsReserved) {
  EXPECT_EQ(all(SourcePorts("1024-32760,32762")),
            (std::vector<std::uint16_t>{32761, 32763, 32764, 32765, 32766, 32767}));
  EXPECT_EQ(all(SourcePorts("1-1025,1030-40000")), (std::vector<std::uint16_t>{1026, 1027, 1028, 1029}));
  EXPECT_EQ(all(SourcePorts("1028-32767,1025-1026,1026-1026")), (std::vector<std::uint16_t>{1024, 1027}));
  EXPECT_EQ(SourcePorts("1024-32767").count(), 0U);
  EXPECT_EQ(SourcePorts("80,40000-50000").count(), 31744U);
}

TEST(SourcePorts, SkipWhatIsNoPort) { EXPECT_EQ(SourcePorts("x,,-,9-3,2000").count(), 31743U); }

TEST(PortSearch, TriesFewPortsToTheLastOneEachOnce) {
  const SourcePorts ports("1124-32767");
  std::size_t cursor = 77;
  PortSearch search(ports, cursor);
  std::set<std::uint16_t> seen;
  std::uint16_t port = 0;
  while (search.next(5, port)) seen.insert(port);
  EXPECT_EQ(seen.size(), 100U);
  EXPECT_FALSE(search.next(5, port));
}

TEST(PortSearch, BeginsWhereTheLastOneLeftOffAndGoesOnAtRandom) {
  const SourcePorts ports;
  std::size_t cursor = 0;
  std::uint16_t port = 0;
  for (std::uint16_t expected = 1024; expected < 1034; ++expected) {
    PortSearch search(ports, cursor);
    ASSERT_TRUE(search.next(9999, port));
    EXPECT_EQ(port, expected);
  }
  PortSearch search(ports, cursor);
  ASSERT_TRUE(search.next(9999, port));
  ASSERT_TRUE(search.next(9999, port));
  EXPECT_EQ(port, 1024 + 9999);
  int more = 0;
  while (search.next(static_cast<std::uint64_t>(more), port)) ++more;
  EXPECT_EQ(more, 254) << "it gives up after a while";
}

TEST(PortSearch, OfNothingFindsNothing) {
  const SourcePorts ports("1024-32767");
  std::size_t cursor = 3;
  std::uint16_t port = 0;
  EXPECT_FALSE(PortSearch(ports, cursor).next(1, port));
}

}  // namespace
}  // namespace weft::proxy
