// SPDX-License-Identifier: Apache-2.0
#include "tunnel/dns/server_message.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace weft::dns {
namespace {

using namespace std::string_literals;
using Bytes = std::vector<std::byte>;
using ::testing::HasSubstr;

Bytes bytes(std::string_view text) {
  const auto view = std::as_bytes(std::span(text));
  return {view.begin(), view.end()};
}

/// A question under the number 0x1234, with `more` behind it, of which the header counts `additional` records.
Bytes question(const std::string& name, char type, const std::string& more = "", char additional = 0) {
  return bytes("\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00"s + additional + name + "\0"s + "\0"s + type + "\0\1"s +
               more);
}
const std::string kWeb = "\3WeB\4test"s;
/// An OPT record that offers `size` bytes.
std::string opt(unsigned size, char version = 0) {
  return "\0\0\x29"s + static_cast<char>(size >> 8U) + static_cast<char>(size & 0xffU) + "\0"s + version + "\0\0\0\0"s;
}

std::vector<IpAddress> addresses(int count, const std::string& prefix = "10.0.0.") {
  std::vector<IpAddress> out;
  for (int i = 1; i <= count; ++i) out.push_back(IpAddress::parse(prefix + std::to_string(i)).value());
  return out;
}

unsigned flags_of(const Bytes& message) {
  return std::to_integer<unsigned>(message.at(2)) << 8U | std::to_integer<unsigned>(message.at(3));
}

/// Of an answer, as a client of ours reads it.
Reply reply_of(const Bytes& message, RecordType type) {
  auto reply = decode(message, {.name = "web.test", .type = type, .id = 0x1234});
  EXPECT_TRUE(reply) << reply.error().message();
  return reply.value_or(Reply());
}

TEST(Inquiry, SaysWhatIsAsked) {
  const auto plain = read_inquiry(question(kWeb, 1)).value();
  EXPECT_EQ(plain.id, 0x1234);
  EXPECT_EQ(plain.name, "web.test");
  EXPECT_EQ(plain.address_type(), RecordType::kA);
  EXPECT_TRUE(plain.is_query);
  EXPECT_FALSE(plain.has_edns);
  EXPECT_EQ(plain.udp_bytes, 512U);
  EXPECT_EQ(plain.question, bytes(kWeb + "\0\0\1\0\1"s)) << "letters stay as they are";
  EXPECT_EQ(read_inquiry(question(kWeb, 28)).value().address_type(), RecordType::kAaaa);
  EXPECT_FALSE(read_inquiry(question(kWeb, 16)).value().address_type());
  EXPECT_EQ(read_inquiry(question("\5a.b\0c\4test"s, 1)).value().name, "a\\.b\\000c.test") << "no name of ours";
  EXPECT_EQ(read_inquiry(question("", 1)).value().name, "");
}

TEST(Inquiry, SizesOfDatagrams) {
  for (const auto& [offered, used] :
       {std::pair{0U, 512U}, {100U, 512U}, {512U, 512U}, {1000U, 1000U}, {4096U, 1232U}}) {
    const auto inquiry = read_inquiry(question(kWeb, 1, opt(offered), 1)).value();
    EXPECT_TRUE(inquiry.has_edns);
    EXPECT_EQ(inquiry.udp_bytes, used) << offered;
  }
  EXPECT_EQ(read_inquiry(question(kWeb, 1, opt(1232, 3), 1)).value().edns_version, 3);
}

TEST(Inquiry, OtherKindsAreNotOurs) {
  Bytes notify = question(kWeb, 1);
  notify[2] |= std::byte{0x20};
  EXPECT_FALSE(read_inquiry(notify).value().is_query);
  Bytes chaos = question(kWeb, 16);
  chaos.back() = std::byte{3};
  EXPECT_FALSE(read_inquiry(chaos).value().is_query);
}

TEST(Inquiry, WhatIsNone) {
  const auto error = [](const Bytes& message) { return read_inquiry(message).error(); };
  EXPECT_EQ(error({}).code, ErrorCode::kNotFound);
  EXPECT_EQ(error(bytes("\x12\x34\x01\x00"s)).code, ErrorCode::kNotFound);
  Bytes answer = question(kWeb, 1);
  answer[2] |= std::byte{0x80};
  EXPECT_EQ(error(answer).code, ErrorCode::kNotFound);
  const auto is_invalid = [&](const Bytes& message, const char* why) {
    EXPECT_EQ(error(message).code, ErrorCode::kInvalid) << why;
    EXPECT_THAT(error(message).message(), HasSubstr("read a DNS question: ")) << why;
  };
  Bytes cut = question(kWeb, 1);
  cut.pop_back();
  is_invalid(cut, "cut off");
  is_invalid(bytes("\x12\x34\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00"s), "no question");
  is_invalid(bytes("\x12\x34\x01\x00\x00\x02\x00\x00\x00\x00\x00\x00\1a\0\0\1\0\1\1b\0\0\1\0\1"s), "two questions");
  is_invalid(question("\xc0\x0c"s, 1), "a name that points to itself");
  is_invalid(question("\1a\xc0\x0c"s, 1), "a name that goes round");
  is_invalid(question("\x7f" + std::string(127, 'a'), 1), "a label that is too long");
  std::string long_name;
  for (int i = 0; i < 5; ++i) long_name += "\x3f" + std::string(63, 'a');
  is_invalid(question(long_name, 1), "a name that is too long");
  is_invalid(question(kWeb, 1, "", 1), "a record that is not there");
}

TEST(Answer, HasTheAddressesOfItsType) {
  auto both = addresses(2);
  both.push_back(IpAddress::parse("fd00::1").value());
  const auto v4 = write_answer(read_inquiry(question(kWeb, 1)).value(), both, 30, 512);
  EXPECT_EQ(flags_of(v4), 0x8580U) << "an authoritative answer, recursion desired and available";
  EXPECT_EQ(Bytes(v4.begin() + 12, v4.begin() + 12 + 14), bytes(kWeb + "\0\0\1\0\1"s)) << "letters as they came";
  const Reply a = reply_of(v4, RecordType::kA);
  EXPECT_EQ(a.addresses, addresses(2));
  EXPECT_EQ(a.ttl.count(), 30);
  const Reply aaaa = reply_of(write_answer(read_inquiry(question(kWeb, 28)).value(), both, 30, 512), RecordType::kAaaa);
  ASSERT_EQ(aaaa.addresses.size(), 1U);
  EXPECT_EQ(aaaa.addresses.front().to_string(), "fd00::1");
  const auto none = write_answer(read_inquiry(question(kWeb, 28)).value(), addresses(2), 30, 512);
  EXPECT_EQ(flags_of(none), 0x8580U) << "the name exists";
  EXPECT_EQ(reply_of(none, RecordType::kAaaa).kind, Reply::Kind::kNoAddress);
}

TEST(Answer, IsNoLongerThanItMayBe) {
  const auto plain = read_inquiry(question(kWeb, 1)).value();
  const auto many = addresses(30);
  const auto whole = write_answer(plain, many, 30, 512);
  EXPECT_EQ(whole.size(), 12U + 14 + 30 * 16) << "names are compressed";
  const auto cut = write_answer(plain, addresses(31), 30, 512);
  EXPECT_EQ(flags_of(cut), 0x8780U) << "TC";
  EXPECT_EQ(cut.size(), 12U + 14);
  const auto edns = read_inquiry(question(kWeb, 1, opt(1232), 1)).value();
  EXPECT_EQ(write_answer(edns, addresses(31), 30, edns.udp_bytes).size(), 12U + 14 + 31 * 16 + 11) << "and OPT";
  EXPECT_EQ(write_answer(edns, addresses(250), 30, edns.udp_bytes).size(), 12U + 14 + 11);
  std::vector<IpAddress> thousands;
  for (int i = 0; i < 20; ++i) {
    for (const auto& one : addresses(250, "10.1." + std::to_string(i) + ".")) thousands.push_back(one);
  }
  EXPECT_EQ(write_answer(plain, thousands, 30, kStreamBytes).size(), 12U + 14 + kAnswersMax * 16);
}

TEST(Answer, Failures) {
  const auto edns = read_inquiry(question(kWeb, 1, opt(1232, 1), 1)).value();
  const auto failure = write_failure(edns, ResponseCode::kServerFailure);
  EXPECT_EQ(flags_of(failure), 0x8182U);
  EXPECT_EQ(reply_of(failure, RecordType::kA).rcode, "SERVFAIL");
  const auto version = write_failure(edns, ResponseCode::kBadVersion);
  EXPECT_EQ(flags_of(version) & 0xfU, 0U);
  EXPECT_EQ(version.at(12 + 14 + 5), std::byte{1}) << "the rest of the code is in OPT";
  EXPECT_EQ(write_format_error(question("\xc0\x0c"s, 1)), bytes("\x12\x34\x81\x81\0\0\0\0\0\0\0\0"s));
  EXPECT_TRUE(write_format_error(bytes("short")).empty());
}

TEST(Forwarded, AnswersAreThoseToTheQuestion) {
  const auto inquiry = read_inquiry(question(kWeb, 1)).value();
  Bytes answer = question("\3web\4TEST"s, 1);
  answer[2] |= std::byte{0x80};
  EXPECT_TRUE(is_answer_to(answer, inquiry, 0x1234));
  EXPECT_FALSE(is_answer_to(answer, inquiry, 0x1235));
  EXPECT_FALSE(is_answer_to(question(kWeb, 1), inquiry, 0x1234)) << "a question";
  for (const auto& other : {question("\3wes\4test"s, 1), question("\3web\5test"s, 1), question(kWeb, 28)}) {
    Bytes wrong = other;
    wrong[2] |= std::byte{0x80};
    EXPECT_FALSE(is_answer_to(wrong, inquiry, 0x1234));
  }
  // 65 is the type HTTPS and a letter, 97 the same letter in small and no type.
  const auto https = read_inquiry(question(kWeb, 65)).value();
  Bytes other = question(kWeb, 97);
  other[2] |= std::byte{0x80};
  EXPECT_FALSE(is_answer_to(other, https, 0x1234));
  Bytes refused = bytes("\x12\x34\x81\x05\0\0\0\0\0\0\0\0"s);
  EXPECT_TRUE(is_answer_to(refused, inquiry, 0x1234)) << "errors may leave the question out";
  refused[3] = std::byte{0};
  EXPECT_FALSE(is_answer_to(refused, inquiry, 0x1234));
  EXPECT_FALSE(is_answer_to(bytes("\x12\x34\x81"s), inquiry, 0x1234));
  set_id(answer, 0xabcd);
  EXPECT_EQ(id_of(answer), 0xabcd);
}

TEST(TypeNames, AreFew) {
  EXPECT_STREQ(type_name(1), "a");
  EXPECT_STREQ(type_name(65), "https");
  EXPECT_STREQ(type_name(4711), "other");
}

}  // namespace
}  // namespace weft::dns
