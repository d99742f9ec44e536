// SPDX-License-Identifier: Apache-2.0
#include "tunnel/dns/servers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "test/support/netns.h"

namespace weft::dns {
namespace {

using ::testing::HasSubstr;

std::vector<std::string> parsed(std::string_view text) {
  std::vector<std::string> out;
  for (const auto& address : parse_resolv_conf(text)) out.push_back(address.to_string());
  return out;
}

TEST(ResolvConf, NamesItsServersInOrder) {
  using Texts = std::vector<std::string>;
  EXPECT_EQ(parsed("nameserver 192.0.2.1\nnameserver 2001:db8::1\n"), (Texts{"192.0.2.1", "2001:db8::1"}));
  EXPECT_EQ(parsed("# c\n; nameserver 192.0.2.9\n#nameserver 192.0.2.8\nsearch a b\noptions ndots:5\n"
                   "  nameserver\t192.0.2.1 # the first\r\nnameserver 192.0.2.2"),
            (Texts{"192.0.2.1", "192.0.2.2"}));
  EXPECT_EQ(parsed("nameserver bogus\nnameserver\nnameservers 192.0.2.3\nnameserver 192.0.2.1"), (Texts{"192.0.2.1"}));
  EXPECT_EQ(parsed("nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4").size(),
            3U);
  EXPECT_TRUE(parsed("").empty());
}

TEST(ResolvConf, IsReadAgainWhenItChanges) {
  const test::ScratchDir folder;
  Servers servers(folder.path() + "/resolv.conf", 53);
  EXPECT_THAT(servers.get().error().message(), HasSubstr(folder.path() + "/resolv.conf"));
  folder.write("resolv.conf", "search x\n");
  EXPECT_THAT(servers.get().error().message(), HasSubstr("names no DNS server"));
  folder.write("resolv.conf", "nameserver 192.0.2.1\n");
  EXPECT_EQ(servers.get().value().at(0).to_string(), "192.0.2.1:53");
  folder.write("resolv.conf", "nameserver 192.0.2.2\n");
  EXPECT_EQ(servers.get().value().at(0).to_string(), "192.0.2.2:53");
}

}  // namespace
}  // namespace weft::dns
