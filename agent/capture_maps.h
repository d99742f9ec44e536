// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "bpf/loader.h"
#include "tunnel/base/error.h"
#include "tunnel/base/ip.h"

namespace weft::agent {

/// What the agent's control asks of capture: bpf::Capture, or a fake in tests. The methods mean what they mean there.
class CaptureMaps {
 public:
  virtual ~CaptureMaps() = default;
  virtual Result<void> set_pod(const bpf::Pod& pod) = 0;
  virtual Result<void> remove_pod(std::uint32_t slot) = 0;
  [[nodiscard]] virtual Result<std::vector<bpf::Pod>> pods() const = 0;
  virtual Result<void> set_listener(std::uint32_t slot, bpf::Listener kind, std::uint32_t worker, int fd) = 0;
  virtual Result<void> set_dns_socket(std::uint32_t slot, bpf::IpFamily family, std::uint32_t worker, int fd) = 0;
  virtual Result<void> use_workers() = 0;
  [[nodiscard]] virtual Result<std::uint32_t> listening(std::uint32_t slot) const = 0;
  virtual Result<void> set_destinations(const bpf::AddressList& wanted) = 0;
  virtual Result<void> set_destinations(const bpf::AddressList& present, const bpf::AddressList& wanted) = 0;
  virtual Result<void> set_registry(const bpf::AddressList& wanted) = 0;
  virtual Result<void> set_capture_all(bool capture_all) = 0;
  [[nodiscard]] virtual Result<std::vector<bpf::Counter>> counters() const = 0;
  [[nodiscard]] virtual Result<bpf::PodTraffic> traffic(std::uint32_t slot) const = 0;
};

/// The real one. Borrows the Capture.
class BpfCaptureMaps final : public CaptureMaps {
 public:
  explicit BpfCaptureMaps(bpf::Capture& capture) : capture_(capture) {}
  Result<void> set_pod(const bpf::Pod& pod) override { return capture_.set_pod(pod); }
  Result<void> remove_pod(std::uint32_t slot) override { return capture_.remove_pod(slot); }
  [[nodiscard]] Result<std::vector<bpf::Pod>> pods() const override { return capture_.pods(); }
  Result<void> set_listener(std::uint32_t slot, bpf::Listener kind, std::uint32_t worker, int fd) override {
    return capture_.set_listener(slot, kind, worker, fd);
  }
  Result<void> set_dns_socket(std::uint32_t slot, bpf::IpFamily family, std::uint32_t worker, int fd) override {
    return capture_.set_dns_socket(slot, family, worker, fd);
  }
  Result<void> use_workers() override { return capture_.use_workers(); }
  [[nodiscard]] Result<std::uint32_t> listening(std::uint32_t slot) const override { return capture_.listening(slot); }
  Result<void> set_destinations(const bpf::AddressList& wanted) override { return capture_.set_destinations(wanted); }
  Result<void> set_destinations(const bpf::AddressList& present, const bpf::AddressList& wanted) override {
    return capture_.set_destinations(present, wanted);
  }
  Result<void> set_registry(const bpf::AddressList& wanted) override { return capture_.set_registry(wanted); }
  Result<void> set_capture_all(bool capture_all) override { return capture_.set_capture_all(capture_all); }
  [[nodiscard]] Result<std::vector<bpf::Counter>> counters() const override { return capture_.counters(); }
  [[nodiscard]] Result<bpf::PodTraffic> traffic(std::uint32_t slot) const override { return capture_.traffic(slot); }

 private:
  bpf::Capture& capture_;
};

}  // namespace weft::agent
