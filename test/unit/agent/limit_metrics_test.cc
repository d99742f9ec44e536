// SPDX-License-Identifier: Apache-2.0
#include "agent/admin/limit_metrics.h"

#include <gmock/gmock.h>

#include "agent/cli/output.h"
#include "test/unit/agent/admin_fixture.h"

namespace weft::admin {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class LimitViews : public test::AdminFixture {
 protected:
  LimitViews() {
    limits_->set_sizes({.connections = 10, .descriptors = 100});
    for (int interface = 0; interface < 2; ++interface) {
      auto pod = std::make_shared<proxy::PodContext>();
      pod->namespace_name = "shop";
      pod->name = "web";
      uses_.push_back(limits_->use_of(pod));
      contexts_.push_back(std::move(pod));
    }
    for (int i = 0; i < 6; ++i) {
      auto admission = limits_->admit(uses_[0], 2);
      if (admission.refused == proxy::Shed::kNone) charges_.push_back(std::move(admission.charge));
    }
    charges_.push_back(limits_->admit(uses_[1], 1).charge);
    uses_[1]->count_delayed_handshake();
    limits_->count_accept_pause();
  }
  std::string get(const char* path) { return admin_routes(sources_).at({"GET", path})({}).body; }

  std::vector<std::shared_ptr<const proxy::PodContext>> contexts_;
  std::vector<std::shared_ptr<proxy::PodUse>> uses_;
  std::vector<proxy::Charge> charges_;
};

TEST_F(LimitViews, MetricsHaveWhatIsUsedWithItsLimit) {
  limits_->set_memory_pressure(proxy::MemoryPressure::kHigh);
  const std::string body = get("/metrics");
  EXPECT_THAT(body, AllOf(HasSubstr("weft_connections 6\n"), HasSubstr("weft_connections_limit 10\n"),
                          HasSubstr("weft_descriptors 11\n"), HasSubstr("weft_descriptors_limit 100\n"),
                          HasSubstr("process_open_fds 123\n"), HasSubstr("process_max_fds 4096\n"),
                          HasSubstr("weft_memory_used_bytes 31457280\n"), HasSubstr("weft_memory_pressure 1\n"),
                          HasSubstr("weft_accept_pauses_total 1\n")));
  limits_->set_sizes({});
  EXPECT_THAT(get("/metrics"), HasSubstr("weft_connections_limit +Inf\n"));
}

TEST_F(LimitViews, MetricsOfAPodAddItsInterfacesUpAndNameOnlyReasonsThatCame) {
  const std::string body = get("/metrics");
  EXPECT_THAT(body, AllOf(HasSubstr(R"(weft_pod_connections{namespace="shop",pod="web"} 6)"),
                          HasSubstr(R"(weft_pod_descriptors{namespace="shop",pod="web"} 11)"),
                          HasSubstr(R"(weft_shed_total{namespace="shop",pod="web",reason="fair_share"} 1)"),
                          HasSubstr(R"(weft_handshakes_delayed_total{namespace="shop",pod="web"} 1)")));
  EXPECT_THAT(body, Not(HasSubstr(R"(reason="memory")")));
}

TEST_F(LimitViews, StatusHasThem) {
  const json limits = json::parse(get("/status")).at("limits");
  EXPECT_EQ(limits.at("connections"), json({{"used", 6}, {"limit", 10}}));
  EXPECT_EQ(limits.at("descriptors"), json({{"used", 11}, {"limit", 100}}));
  EXPECT_EQ(limits.at("openFds"), json({{"used", 123}, {"limit", 4096}}));
  EXPECT_EQ(limits.at("memoryBytes"), json({{"used", 30U << 20}, {"limit", 64U << 20}}));
  EXPECT_EQ(limits.at("shed"), 1);
  limits_->set_sizes({});
  EXPECT_TRUE(json::parse(get("/status")).at("limits").at("connections").at("limit").is_null());
}

TEST_F(LimitViews, WeftctlShowsThemAndAgentsThatDoNotTellThem) {
  json status = json::parse(get("/status"));
  EXPECT_THAT(*cli::status_table(status),
              HasSubstr("in use          6 of 10 connections, 11 of 100 descriptors for pods, 123 of 4096 in all, "
                        "30 of 64 MiB, 1 refused\n"));
  status.at("limits").at("memoryBytes").at("limit") = nullptr;
  EXPECT_THAT(*cli::status_table(status), HasSubstr(", 30 MiB, 1 refused\n"));
  EXPECT_THAT(*cli::status_table(status), HasSubstr("outbound        allow-any\n"));
  status.at("outboundTrafficPolicy") = {{"mode", "registry-only"}, {"exempt", {"192.0.2.0/24", "2001:db8::1/128"}}};
  EXPECT_THAT(*cli::status_table(status),
              HasSubstr("outbound        registry-only, exempt 192.0.2.0/24,2001:db8::1/128\n"));
  status.erase("limits");
  EXPECT_THAT(*cli::status_table(status), Not(HasSubstr("in use")));
}

}  // namespace
}  // namespace weft::admin
