// SPDX-License-Identifier: Apache-2.0
#include "test/support/fake_istiod.h"

#include <grpcpp/grpcpp.h>

#include <utility>

#include "ca.grpc.pb.h"
#include "xds.grpc.pb.h"

namespace weft::test {
namespace {

namespace xds = envoy::service::discovery::v3;
namespace ca = istio::v1::auth;

constexpr std::chrono::seconds kPatience{10};

std::string metadata(const grpc::ServerContext& context, const char* key) {
  const auto& all = context.client_metadata();
  const auto found = all.find(key);
  return found == all.end() ? "" : std::string(found->second.data(), found->second.size());
}

}  // namespace

/// The present stream: its thread reads, whoever sends holds the lock.
struct FakeIstiod::Live {
  grpc::ServerContext* context;
  grpc::ServerReaderWriter<Response, Request>* stream;
};

class FakeIstiod::Discovery final : public xds::AggregatedDiscoveryService::Service {
 public:
  explicit Discovery(FakeIstiod& owner) : owner_(owner) {}

  grpc::Status DeltaAggregatedResources(grpc::ServerContext* context,
                                        grpc::ServerReaderWriter<Response, Request>* stream) override {
    Live live{context, stream};
    {
      const std::lock_guard lock(owner_.mutex_);
      owner_.seen_.push_back({metadata(*context, "authorization"), metadata(*context, "clusterid")});
      owner_.requests_.clear();
      owner_.live_ = &live;
    }
    owner_.changed_.notify_all();
    Request request;
    while (stream->Read(&request)) {
      const std::lock_guard lock(owner_.mutex_);
      owner_.requests_.push_back(request);
      owner_.changed_.notify_all();
    }
    const std::lock_guard lock(owner_.mutex_);
    if (owner_.live_ == &live) owner_.live_ = nullptr;
    return {grpc::StatusCode::UNAVAILABLE, "the test ended the stream"};
  }

 private:
  FakeIstiod& owner_;
};

class FakeIstiod::Authority final : public ca::IstioCertificateService::Service {
 public:
  explicit Authority(FakeIstiod& owner) : owner_(owner) {}

  grpc::Status CreateCertificate(grpc::ServerContext* context, const ca::IstioCertificateRequest* request,
                                 ca::IstioCertificateResponse* response) override {
    const auto& fields = request->metadata().fields();
    const auto impersonated = fields.find("ImpersonatedIdentity");
    Asked asked{.csr = request->csr(),
                .impersonated = impersonated == fields.end() ? "" : impersonated->second.string_value(),
                .token = metadata(*context, "authorization"),
                .cluster_id = metadata(*context, "clusterid"),
                .seconds = request->validity_duration()};
    std::unique_lock lock(owner_.mutex_);
    const auto answer = owner_.answer_;
    lock.unlock();
    const Answer said = answer ? answer(asked) : Answer{.code = 12, .message = "no CA here", .chain = {}};
    const auto until = std::chrono::steady_clock::now() + said.delay;
    lock.lock();
    while (!context->IsCancelled() && !owner_.stopping_ && std::chrono::steady_clock::now() < until)
      owner_.changed_.wait_for(lock, std::chrono::milliseconds(10));
    for (const auto& part : said.chain) response->add_cert_chain(part);
    return {static_cast<grpc::StatusCode>(said.code), said.message};
  }

 private:
  FakeIstiod& owner_;
};

FakeIstiod::FakeIstiod(const TestCa& test_ca, int port, const std::string& server_name)
    : discovery_(std::make_unique<Discovery>(*this)), authority_(std::make_unique<Authority>(*this)) {
  LeafOptions own;
  own.dns_names = {server_name};
  const auto bundle = test_ca.issue({"cluster.local", "istio-system", "istiod"}, own);
  grpc::SslServerCredentialsOptions tls;
  tls.pem_key_cert_pairs.push_back({bundle.private_key_pem, bundle.certificate_pem + bundle.chain_pem});
  grpc::ServerBuilder builder;
  // An istiod that comes back has the port of the one before it.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddListeningPort("127.0.0.1:" + std::to_string(port), grpc::SslServerCredentials(tls), &port_);
  builder.RegisterService(discovery_.get());
  builder.RegisterService(authority_.get());
  server_ = builder.BuildAndStart();
  must(server_ != nullptr && port_ != 0, "listen as istiod");
}

FakeIstiod::~FakeIstiod() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    if (live_ != nullptr) live_->context->TryCancel();
  }
  changed_.notify_all();
  server_->Shutdown(std::chrono::system_clock::now());
}

std::optional<FakeIstiod::Stream> FakeIstiod::stream(std::size_t count) {
  std::unique_lock lock(mutex_);
  if (!changed_.wait_for(lock, kPatience, [&] { return seen_.size() >= count; })) return std::nullopt;
  return seen_.back();
}

std::size_t FakeIstiod::streams() const {
  const std::lock_guard lock(mutex_);
  return seen_.size();
}

std::optional<FakeIstiod::Request> FakeIstiod::next(std::chrono::milliseconds wait) {
  std::unique_lock lock(mutex_);
  if (!changed_.wait_for(lock, wait, [&] { return !requests_.empty(); })) return std::nullopt;
  Request request = std::move(requests_.front());
  requests_.pop_front();
  return request;
}

bool FakeIstiod::send(const Response& response) {
  const std::lock_guard lock(mutex_);
  return live_ != nullptr && live_->stream->Write(response);
}

void FakeIstiod::end_stream() {
  const std::lock_guard lock(mutex_);
  if (live_ != nullptr) live_->context->TryCancel();
}

void FakeIstiod::on_certificate(std::function<Answer(const Asked&)> answer) {
  const std::lock_guard lock(mutex_);
  answer_ = std::move(answer);
}

}  // namespace weft::test
