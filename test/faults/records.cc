// SPDX-License-Identifier: Apache-2.0
#include "test/faults/records.h"

#include <algorithm>
#include <array>
#include <sstream>

namespace weft::test {
namespace {

std::string field(const Record& record, const std::string& key) {
  const auto found = record.find(key);
  return found == record.end() ? "" : found->second;
}

/// key=value and key="quoted value".
Record parse(const std::string& line) {
  Record record;
  for (std::size_t at = 0; at < line.size();) {
    const std::size_t equals = line.find('=', at);
    if (equals == std::string::npos) break;
    const std::size_t word = line.rfind(' ', equals) + 1;
    std::size_t begin = equals + 1, end = begin;
    if (begin < line.size() && line[begin] == '"') {
      end = ++begin;
      while (end < line.size() && line[end] != '"') end += line[end] == '\\' ? 2 : 1;
    } else {
      end = std::min(line.find(' ', begin), line.size());
    }
    record[line.substr(word, equals - word)] = line.substr(begin, end - begin);
    at = end + 1;
  }
  return record;
}

/// The flags that go with a reason. Nothing here blocks a port, revokes a certificate or hides one.
std::string wrong_flag(const Record& record, bool denied) {
  const std::string flag = field(record, "response_flags");
  std::string error = field(record, "error");
  // Where there were several attempts the flag is the last one's.
  if (const auto last = error.rfind("; then "); last != std::string::npos) error.erase(0, last);
  const auto says = [&](const char* words) { return error.find(words) != std::string::npos; };
  if (error.empty()) return flag.empty() ? "" : "flag without a reason";
  static constexpr std::array kPossible{"", "CONNECT", "TLS_FAILURE", "H2_HANDSHAKE_FAILURE", "DENY", "UO"};
  if (std::ranges::find(kPossible, flag) == kPossible.end()) return "nothing is there that would be " + flag;
  if (flag == "DENY" && !denied) return "nothing was denied";
  if (says("TLS handshake") && flag != "TLS_FAILURE") return "a handshake failed";
  // ETIMEDOUT apart, which is injected.
  for (const char* words : {": timed out", "no answer", "yet ("}) {
    if (says(words)) return "no timer of the product's can have ended";
  }
  return "";
}

class Auditor {
 public:
  explicit Auditor(const Audit& audit) : audit_(audit), records_(records_in(audit.log)) {}

  std::vector<std::string> run() {
    for (const Flow& flow : audit_.flows.all()) {
      if (flow.client == nullptr) continue;
      check_bytes(flow);
      check_outcome(flow);
      check_records(flow);
    }
    check_all_records();
    if (!audit_.flows.strange().empty()) found_.push_back(audit_.flows.strange());
    return found_;
  }

 private:
  void blame(const Flow& flow, const std::string& what) { found_.push_back(what + ":\n" + flow.describe()); }

  void check_bytes(const Flow& flow) {
    if (!flow.client->wrong().empty()) blame(flow, "the client: " + flow.client->wrong());
    const bool known = flow.application != nullptr;
    if (known && !flow.application->wrong().empty()) blame(flow, "the application: " + flow.application->wrong());
    // An end that was heard is the end that was said.
    if (flow.client->heard_end() &&
        !(known && flow.application->sent_fin() && flow.client->received() == flow.client_part.to_receive)) {
      blame(flow, "the client heard an end that the application did not say");
    }
    if (known && flow.application->heard_end() &&
        !(flow.client->sent_fin() && flow.application->received() == flow.application_part.to_receive)) {
      blame(flow, "the application heard an end that the client did not say");
    }
  }

  void check_outcome(const Flow& flow) {
    if (audit_.harm == Harm::kAny || flow.disturbed || flow.ends_with_reset()) return;
    if (!flow.well()) blame(flow, "it failed although nothing has happened that breaks connections");
  }

  void check_records(const Flow& flow) {
    const char* direction = flow.way == Flow::Way::kPlaintext ? "inbound" : "outbound";
    const auto own = records_of(direction, "src.addr", flow.local.to_string());
    const bool taken_back = std::ranges::find(audit_.taken_back, flow.local) != audit_.taken_back.end();
    if (own.size() != 1 && !(own.empty() && (taken_back || flow.disturbed))) {
      blame(flow, std::to_string(own.size()) + " records instead of 1");
    }
    if (own.size() != 1) return;
    const Record& record = *own.front();
    check_record(flow, record);
    if (field(record, "dst.hbone_addr").empty() || field(record, "traceparent").empty()) return;
    // Attempts that failed before the last one have left records as well.
    const auto far = records_of("inbound", "traceparent", field(record, "traceparent"));
    const auto good = std::ranges::count_if(far, [](const Record* r) { return field(*r, "error").empty(); });
    const bool application_well = flow.application && flow.application->well();
    if (good > (application_well ? 1 : 0) || (flow.well() && good == 0)) {
      blame(flow, std::to_string(good) + " records of the destination say that it ended well");
    }
  }

  /// Who had all, and was heard to the end, may still have an agent that could not bring it to the other end: then that
  /// is in its record.
  void check_record(const Flow& flow, const Record& record) {
    const std::string error = field(record, "error");
    if (flow.well() && !error.empty()) blame(flow, "it ended well, and its record says: " + error);
    if (!error.empty()) return;
    if (!(flow.way == Flow::Way::kTunnel ? flow.client->well() : flow.well()))
      blame(flow, "it ended badly, and its record says nothing");
    const std::size_t up = flow.client_part.to_send, down = flow.client_part.to_receive;
    const bool into = flow.way == Flow::Way::kPlaintext;
    if (field(record, "bytes_sent") != std::to_string(into ? down : up) ||
        field(record, "bytes_recv") != std::to_string(into ? up : down)) {
      blame(flow, "the record counts " + field(record, "bytes_sent") + " and " + field(record, "bytes_recv"));
    }
  }

  void check_all_records() {
    const auto nameless = std::ranges::count_if(records_, [](const Record& record) {
      return field(record, "direction") == "inbound" && field(record, "error").find("getpeername") != std::string::npos;
    });
    if (static_cast<std::size_t>(nameless) != audit_.nameless_peers) {
      found_.push_back(std::to_string(audit_.nameless_peers) + " HBONE connections have failed in getpeername, " +
                       std::to_string(nameless) + " have a record");
    }
    for (const Record& record : records_) {
      if (const auto wrong = wrong_flag(record, audit_.denied); !wrong.empty()) {
        found_.push_back("a record has the wrong flag (" + wrong +
                         "): response_flags=" + field(record, "response_flags") + " error=" + field(record, "error"));
      }
      if (field(record, "direction") != "outbound") continue;
      const bool known = std::ranges::any_of(audit_.flows.all(), [&](const Flow& flow) {
        return flow.client && flow.way != Flow::Way::kPlaintext && flow.local.to_string() == field(record, "src.addr");
      });
      if (!known) found_.push_back("a record of nobody's connection, from " + field(record, "src.addr"));
    }
  }

  std::vector<const Record*> records_of(const std::string& direction, const std::string& key,
                                        const std::string& value) const {
    std::vector<const Record*> out;
    for (const Record& record : records_) {
      if (field(record, "direction") == direction && field(record, key) == value) out.push_back(&record);
    }
    return out;
  }

  const Audit& audit_;
  std::vector<Record> records_;
  std::vector<std::string> found_;
};

}  // namespace

std::vector<Record> records_in(const std::string& log) {
  std::vector<Record> out;
  std::istringstream lines(log);
  for (std::string line; std::getline(lines, line);) {
    if (line.find("connection complete") != std::string::npos) out.push_back(parse(line));
  }
  return out;
}

std::vector<std::string> violations(const Audit& audit) { return Auditor(audit).run(); }

}  // namespace weft::test
