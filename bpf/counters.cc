// SPDX-License-Identifier: Apache-2.0
#include "bpf/counters.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>

#include "bpf/shared.h"
#include "bpf/words.h"

namespace weft::bpf {
namespace {

/// One value for each CPU that there may be.
template <class Value>
Result<std::vector<Value>> per_cpu_values() {
  static_assert(sizeof(Value) % 8 == 0, "the kernel aligns what it gives of each CPU");
  const int cpus = libbpf_num_possible_cpus();
  if (cpus < 0) return fail_errno(-cpus, "count the CPUs");
  return std::vector<Value>(static_cast<std::size_t>(cpus));
}

/// An entry of counters, added up over the CPUs.
template <class Value>
Result<std::array<std::uint64_t, sizeof(Value) / 8>> sums_of(int map, std::uint32_t key, const char* name) {
  auto values = per_cpu_values<Value>();
  if (!values) return Failure(values.error());
  if (bpf_map_lookup_elem(map, &key, values->data()) != 0) {
    return fail_errno(errno, "read the map " + std::string(name));
  }
  std::array<std::uint64_t, sizeof(Value) / 8> sums{};
  for (const Value& value : *values) {
    std::array<std::uint64_t, sizeof(Value) / 8> one{};
    std::memcpy(one.data(), &value, sizeof one);
    for (std::size_t i = 0; i < one.size(); ++i) sums[i] += one[i];
  }
  return sums;
}

}  // namespace

Result<std::vector<Counter>> read_counters(int map) {
  std::vector<Counter> out;
  for (std::uint32_t program = 0; program < WEFT_PROGRAMS; ++program) {
    auto sums = sums_of<weft_counters>(map, program, "counters");
    if (!sums) return Failure(sums.error());
    for (std::size_t i = 0; i < sums->size(); ++i) {
      out.push_back({program_name(program), verdict_of(i), reason_words(i), (*sums)[i]});
    }
  }
  return out;
}

Result<PodTraffic> read_traffic(int map, std::uint32_t slot) {
  auto sums = sums_of<weft_pod_counters>(map, slot, "pod_counters");
  if (!sums) return Failure(sums.error());
  weft_pod_counters sum{};
  std::memcpy(&sum, sums->data(), sizeof sum);
  PodTraffic traffic{.packets_out = sum.packets[WEFT_OUT],
                     .bytes_out = sum.bytes[WEFT_OUT],
                     .packets_in = sum.packets[WEFT_IN],
                     .bytes_in = sum.bytes[WEFT_IN],
                     .captured = sum.captured,
                     .drops = {}};
  std::array<std::uint64_t, sizeof sum.drops / 8> drops{};
  std::memcpy(drops.data(), &sum.drops, sizeof drops);
  for (std::size_t i = 0; i < drops.size(); ++i) {
    if (drops[i] != 0) traffic.drops.push_back({reason_words(WEFT_FIRST_DROP + i), drops[i]});
  }
  return traffic;
}

Result<void> zero_traffic(int map, std::uint32_t slot) {
  const auto zeros = per_cpu_values<weft_pod_counters>();
  if (!zeros) return Failure(zeros.error());
  if (bpf_map_update_elem(map, &slot, zeros->data(), BPF_ANY) == 0) return {};
  return fail_errno(errno, "begin the counters of slot " + std::to_string(slot));
}

}  // namespace weft::bpf
