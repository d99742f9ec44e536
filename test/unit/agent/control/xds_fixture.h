// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <string>

#include "agent/control/xds_cache.h"
#include "authorization.pb.h"
#include "workload.pb.h"

/// Short ways to write what istiod sends. What cannot be parsed fails the test.
namespace weft::control::test {

template <class Wire>
Wire parse(const std::string& text) {
  Wire out;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &out)) << text;
  return out;
}

inline istio::workload::Workload wire_workload(const std::string& text) {
  return parse<istio::workload::Workload>(text);
}
inline istio::workload::Service wire_service(const std::string& text) { return parse<istio::workload::Service>(text); }
inline istio::security::Authorization wire_policy(const std::string& text) {
  return parse<istio::security::Authorization>(text);
}

/// The pod shop/NAME with HBONE at 10.0.0.LAST; `more` as text.
inline istio::workload::Workload wire_pod(const std::string& name, char last, const std::string& more = "") {
  auto out = wire_workload("namespace: 'shop' service_account: 'web' tunnel_protocol: TUNNEL_HBONE " + more);
  out.set_name(name);
  out.set_uid("Kubernetes//Pod/shop/" + name);
  out.add_addresses(std::string{10, 0, 0, last});
  return out;
}

/// A response, one resource at a time.
class ResponseBuilder {
 public:
  ResponseBuilder(std::string_view url, const std::string& nonce) {
    out_.set_type_url(std::string(url));
    out_.set_nonce(nonce);
    out_.set_system_version_info("push-" + nonce);
  }
  ResponseBuilder& add(const istio::workload::Workload& workload, const std::string& version = "v1") {
    istio::workload::Address address;
    *address.mutable_workload() = workload;
    return add(workload.uid(), version, address);
  }
  ResponseBuilder& add(const istio::workload::Service& service, const std::string& version = "v1") {
    istio::workload::Address address;
    *address.mutable_service() = service;
    return add(service.namespace_() + "/" + service.hostname(), version, address);
  }
  ResponseBuilder& add(const istio::security::Authorization& policy) {
    return add(policy.namespace_() + "/" + policy.name(), "", policy);
  }
  template <class Wire>
  ResponseBuilder& add(const std::string& name, const std::string& version, const Wire& object) {
    auto& resource = *out_.add_resources();
    resource.set_name(name);
    resource.set_version(version);
    resource.mutable_resource()->PackFrom(object);
    return *this;
  }
  ResponseBuilder& remove(const std::string& name) {
    out_.add_removed_resources(name);
    return *this;
  }
  operator XdsCache::Response() const { return out_; }  // NOLINT: that is what it is for

 private:
  XdsCache::Response out_;
};

inline ResponseBuilder addresses(const std::string& nonce) { return {XdsCache::kAddressUrl, nonce}; }
inline ResponseBuilder policies(const std::string& nonce) { return {XdsCache::kAuthorizationUrl, nonce}; }

}  // namespace weft::control::test
