// SPDX-License-Identifier: Apache-2.0
/// What a pod that opted in hears when it asks for a name, by dig: the mesh's names from the agent, the rest from its
/// own resolver.

#include <algorithm>
#include <set>

#include "test/netns/dns_fixture.h"
#include "test/netns/raw_tcp.h"

namespace weft::test {
namespace {

using std::chrono::steady_clock;
using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;
using ::testing::UnorderedElementsAreArray;

using Texts = std::vector<std::string>;

class Dns : public DnsTest {
 protected:
  struct Way {
    IpAddress server;
    bool tcp;
    [[nodiscard]] Texts arguments() const { return {tcp ? "+tcp" : "+notcp"}; }
  };
  static std::vector<Way> ways() {
    return {{server_v4(), false}, {server_v6(), false}, {server_v4(), true}, {server_v6(), true}};
  }
  static void expect(const Pod& pod, const std::string& name, const Addresses& addresses) {
    for (const auto& way : ways()) {
      for (const bool v4 : {true, false}) {
        const Dug dug = dig(pod, way.server, name, v4 ? "A" : "AAAA", way.arguments());
        const auto what = name + (v4 ? " A @" : " AAAA @") + way.server.to_string() + (way.tcp ? " by TCP" : "");
        EXPECT_EQ(dug.rcode, "NOERROR") << what << ::testing::PrintToString(dug);
        EXPECT_EQ(dug.data(), texts(addresses, v4)) << what << ::testing::PrintToString(dug);
        EXPECT_EQ(dug.flags, "qr aa rd ra") << what;
        for (const auto& record : dug.records) EXPECT_THAT(record, StartsWith(name + ". 30 IN ")) << what;
      }
    }
  }
};

TEST_F(Dns, NamesOfServices) {
  for (const auto* name :
       {"web.shop.svc.cluster.local", "web", "web.shop", "web.shop.svc", "WeB.ShOp.SVC.cluster.LOCAL"}) {
    expect(*client_, name, vips_["web"]);
  }
  expect(*client_, "web.bank.svc.cluster.local", vips_["web-of-bank"]);
  // The client's own namespace.
  expect(*other_, "web", vips_["web-of-bank"]);
}

TEST_F(Dns, NamesWithASearchDomainBehindThem) {
  for (const auto* domain : {".shop.svc.cluster.local", ".svc.cluster.local", ".cluster.local"}) {
    expect(*client_, std::string("api.example.com") + domain, vips_["api"]);
  }
  expect(*client_, "web.bank.shop.svc.cluster.local", vips_["web-of-bank"]);
  const Dug other = dig(*client_, server_v4(), "api.example.com.bank.svc.cluster.local", "A");
  EXPECT_EQ(other.rcode, "NXDOMAIN") << "no search domain of this client" << ::testing::PrintToString(other);
  // As a resolver does it.
  const Dug searched = dig(*client_, server_v4(), "web", "A", {"+search", "+domain=shop.svc.cluster.local"});
  EXPECT_EQ(searched.data(), texts(vips_["web"], true)) << ::testing::PrintToString(searched);
}

TEST_F(Dns, HeadlessServicesAreTheirHealthyEndpoints) {
  expect(*client_, "pods.shop.svc.cluster.local",
         {web1_->address_v4(), web2_->address_v4(), web1_->address_v6(), web2_->address_v6()});
  std::set<std::string> first;
  for (int i = 0; i < 40 && first.size() < 2; ++i) {
    const Dug dug = dig(*client_, server_v4(), "pods", "A");
    ASSERT_THAT(dug.records, SizeIs(2)) << ::testing::PrintToString(dug);
    first.insert(dug.records.front());
  }
  EXPECT_THAT(first, SizeIs(2)) << "each comes first at times";
}

TEST_F(Dns, ServiceEntries) {
  expect(*client_, "api.example.com", vips_["api"]);
  for (const auto* name : {"a.wild.example.com", "b.a.wild.example.com"}) expect(*client_, name, vips_["wild"]);
  expect(*client_, "four.example.com", {at("192.0.2.44")});
  expect(*client_, "six.example.com", {at("2001:db8::66")});
  expect(*client_, "both.example.com", vips_["mine"]);
  expect(*other_, "both.example.com", vips_["theirs"]);
}

/// As istiod gives them to hosts that have no address of their own: nothing but the mesh knows them.
TEST_F(Dns, AServiceEntrysAutomaticVip) {
  EXPECT_THAT(dig(*client_, server_v4(), "auto.example.com", "A").data(), ElementsAre("240.240.0.7"));
  EXPECT_THAT(dig(*client_, server_v6(), "auto.example.com", "AAAA").data(), ElementsAre("2001:2::7"));
  for (const char* vip : {"240.240.0.7", "2001:2::7"}) {
    const Finished answer = client_->get({at(vip), 80});
    EXPECT_TRUE(answer.ok()) << vip << ::testing::PrintToString(answer);
  }
}

TEST_F(Dns, NamesOfOneNamespaceAlone) {
  expect(*other_, "hidden.bank.svc.cluster.local", vips_["hidden"]);
  for (const auto& way : ways()) {
    const Dug dug = dig(*client_, way.server, "hidden.bank.svc.cluster.local", "A", way.arguments());
    EXPECT_EQ(dug.rcode, "NXDOMAIN") << ::testing::PrintToString(dug);
  }
}

TEST_F(Dns, TheRestIsTheResolvers) {
  for (const auto& way : ways()) {
    const auto ask = [&](const char* name, const char* type) {
      return dig(*client_, way.server, name, type, way.arguments());
    };
    EXPECT_THAT(ask("real.ext.test", "A").data(), ElementsAre("198.51.100.80"));
    EXPECT_THAT(ask("real.ext.test", "AAAA").data(), ElementsAre("2001:db8::80"));
    EXPECT_THAT(ask("without.example.com", "A").data(), ElementsAre("198.51.100.10")) << "a service without an address";
    EXPECT_THAT(ask("wild.example.com", "A").rcode, "NXDOMAIN") << "the wildcard is for what is below it";
    EXPECT_EQ(ask("none.ext.test", "A").rcode, "NXDOMAIN");
    EXPECT_THAT(ask("web.shop.svc.cluster.local", "TXT").data(), ElementsAre("\"of the resolver\""));
    EXPECT_THAT(ask("_http._tcp.web.shop.svc.cluster.local", "SRV").data(),
                ElementsAre("0 0 80 web.shop.svc.cluster.local."));
    EXPECT_EQ(ask("web.shop.svc.cluster.local", "MX").rcode, "NOERROR");
    EXPECT_THAT(ask("web.shop.svc.cluster.local", "HTTPS").records, IsEmpty());
    EXPECT_EQ(ask("version.bind", "TXT").rcode, "REFUSED") << "class IN, which that server knows nothing of";
    const Dug chaos = dig(*client_, way.server, "version.bind", "TXT", {way.tcp ? "+tcp" : "+notcp", "-c", "CH"});
    EXPECT_THAT(chaos.data(), ElementsAre(HasSubstr("dnsmasq"))) << ::testing::PrintToString(chaos);
  }
  EXPECT_GE(counted("istio_dns_requests_total",
                    {"request_query_type=\"txt\"", "request_protocol=\"tcp\"", "source_canonical_service=\"client\""}),
            2);
  EXPECT_GE(counted("istio_dns_upstream_requests_total", {"request_query_type=\"a\"", "request_protocol=\"udp\""}), 4);
  EXPECT_GE(counted("istio_dns_upstream_request_duration_seconds_count", {"request_query_type=\"a\""}), 4);
}

TEST_F(Dns, ACacheOnTheNodeHasALinkLocalAddress) {
  for (const char* way : {"+notcp", "+tcp"}) {
    EXPECT_EQ(dig(*client_, at(kLinkLocal), "web", "A", {way}).data(), texts(vips_["web"], true)) << way;
    EXPECT_THAT(dig(*client_, at(kLinkLocal), "near.ext.test", "A", {way}).data(), ElementsAre("198.51.100.20")) << way;
  }
}

TEST_F(Dns, APodThatDidNotOptInIsLeftAlone) {
  const double before = counted("istio_dns_requests_total", {});
  for (const auto& way : ways()) {
    const Dug dug = dig(*plain_, way.server, "web.shop.svc.cluster.local", "A", way.arguments());
    EXPECT_THAT(dug.data(), ElementsAre("198.51.100.9")) << ::testing::PrintToString(dug);
    EXPECT_EQ(dig(*plain_, way.server, "api.example.com", "A", way.arguments()).rcode, "NXDOMAIN");
  }
  EXPECT_EQ(counted("istio_dns_requests_total", {}), before);
  // The same questions of a pod that did are seen.
  dig(*client_, server_v4(), "web.shop.svc.cluster.local", "A");
  EXPECT_EQ(counted("istio_dns_requests_total", {}), before + 1);
}

TEST_F(Dns, LongAnswersAreTruncatedAndComeByTcp) {
  const auto ask = [&](const std::string& name, const char* type, Texts more) {
    return dig(*client_, server_v4(), name, type, more);
  };
  const std::string many = "many.shop.svc.cluster.local";
  for (const char* type : {"A", "AAAA"}) {
    for (const Texts& way : {Texts{"+noedns"}, Texts{"+bufsize=512"}, Texts{"+bufsize=100"}}) {
      Texts ignore = way;
      ignore.emplace_back("+ignore");
      const Dug cut = ask(many, type, ignore);
      EXPECT_THAT(cut.flags, HasSubstr(" tc ")) << type << ::testing::PrintToString(cut);
      EXPECT_THAT(cut.records, IsEmpty());
      EXPECT_LE(cut.bytes, 512U);
      EXPECT_EQ(cut.edns.empty(), way.front() == "+noedns") << ::testing::PrintToString(cut);
      EXPECT_THAT(ask(many, type, way).records, SizeIs(62)) << "dig asks again by TCP";
    }
  }
  const Dug whole = ask(many, "A", {"+bufsize=4096", "+ignore"});
  EXPECT_THAT(whole.records, SizeIs(62)) << "62 addresses fit 1232 bytes" << ::testing::PrintToString(whole);
  EXPECT_THAT(whole.edns, HasSubstr("udp: 1232"));
  const Dug cut = ask(many, "AAAA", {"+bufsize=4096", "+ignore"});
  EXPECT_THAT(cut.flags, HasSubstr(" tc ")) << "and 62 of IPv6 do not" << ::testing::PrintToString(cut);
  // Of the resolver's answers it is the resolver who says so.
  EXPECT_THAT(ask("big.ext.test", "TXT", {"+ignore"}).flags, HasSubstr(" tc "));
  EXPECT_THAT(ask("big.ext.test", "TXT", {}).records, SizeIs(40));
}

TEST_F(Dns, EdnsVersionsThatNobodyKnows) {
  const Dug dug = dig(*client_, server_v4(), "web", "A", {"+edns=1", "+noednsnegotiation"});
  EXPECT_EQ(dug.rcode, "BADVERS") << ::testing::PrintToString(dug);
  EXPECT_EQ(dig(*client_, server_v4(), "web", "A", {"+edns=1"}).data(), texts(vips_["web"], true))
      << "dig asks again with version 0";
}

TEST_F(Dns, ASilentResolverLeavesItsQuestionsOpenAndNoOthers) {
  const double before = counted("istio_dns_upstream_failures_total", {});
  for (const char* server : {kSilent4, kSilent6}) {
    const auto started = steady_clock::now();
    const Dug dug = dig(*client_, at(server), "real.ext.test", "A", {"+time=7"});
    EXPECT_EQ(dug.status, 9) << "no answer" << ::testing::PrintToString(dug);
    EXPECT_GE(steady_clock::now() - started, milliseconds(6'900));
    EXPECT_EQ(dig(*client_, at(server), "web", "A").data(), texts(vips_["web"], true)) << "what is ours is answered";
    EXPECT_EQ(dig(*client_, at(server), "web", "A", {"+tcp"}).data(), texts(vips_["web"], true));
    const Dug by_tcp = dig(*client_, at(server), "real.ext.test", "A", {"+tcp", "+time=9"});
    EXPECT_EQ(by_tcp.rcode, "SERVFAIL") << ::testing::PrintToString(by_tcp);
  }
  EXPECT_EQ(counted("istio_dns_upstream_failures_total", {}), before + 4);
}

TEST_F(Dns, WhereNobodyListensTheAnswerComesAtOnce) {
  for (const char* way : {"+notcp", "+tcp"}) {
    const auto started = steady_clock::now();
    const Dug dug = dig(*client_, at(kNobody), "real.ext.test", "A", {way});
    EXPECT_EQ(dug.rcode, "SERVFAIL") << ::testing::PrintToString(dug);
    EXPECT_LT(steady_clock::now() - started, stretched(milliseconds(2'000)));
    EXPECT_EQ(dig(*client_, at(kNobody), "web", "A", {way}).data(), texts(vips_["web"], true));
  }
}

TEST_F(Dns, ForwardsThatAreOpenHaveABound) {
  // More than two workers may have under way of one pod, in less time than it takes them to give up.
  const double before = counted("istio_dns_upstream_requests_total", {});
  Process crowd = client_->start({program("weft-testapp"), "dns", Endpoint{at(kSilent4), 53}.to_string(), "--name",
                                  "real.ext.test", "--rate", "1000", "--for", "2", "--timeout", "1"});
  const Finished finished = crowd.finish(milliseconds(30'000));
  const auto number = [&](const char* key) { return std::stoi("0" + field(finished.out, key)); };
  EXPECT_EQ(number("sent"), 2000) << finished.out;
  // SERVFAIL at once for the rest.
  EXPECT_GE(number("failed"), 900) << finished.out;
  EXPECT_EQ(number("failed") + number("lost"), 2000) << finished.out;
  EXPECT_EQ(counted("istio_dns_upstream_requests_total", {}) - before, number("lost"));
  EXPECT_EQ(dig(*client_, at(kSilent4), "web", "A").data(), texts(vips_["web"], true));
  // They end, and there is room again.
  EXPECT_TRUE(eventually(milliseconds(15'000), [&] {
    return dig(*client_, server_v4(), "real.ext.test", "A").data() == Texts{"198.51.100.80"};
  }));
}

}  // namespace
}  // namespace weft::test
