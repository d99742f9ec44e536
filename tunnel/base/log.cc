// SPDX-License-Identifier: Apache-2.0
#include "tunnel/base/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <cerrno>
#include <iterator>

namespace weft::log {
namespace {

constexpr const char* kTextPattern = "%Y-%m-%dT%H:%M:%S.%fZ %l %v";
/// The logger of what write_members gets, whose messages are JSON already.
constexpr const char* kMembersLogger = "weft-members";

/// Set once by init, before threads start; null: text.
std::shared_ptr<spdlog::logger>& members_logger() {
  static std::shared_ptr<spdlog::logger> logger;
  return logger;
}

Result<spdlog::level::level_enum> parse_level(std::string_view name) {
  if (name == "error") return spdlog::level::err;
  if (name == "warn") return spdlog::level::warn;
  if (name == "info") return spdlog::level::info;
  if (name == "debug") return spdlog::level::debug;
  if (name == "trace") return spdlog::level::trace;
  if (name == "off") return spdlog::level::off;
  return fail(ErrorCode::kInvalid,
              "log level '" + excerpt(name) + "': expected error, warn, info, debug, trace or off");
}

spdlog::level::level_enum to_spdlog(Severity severity) {
  switch (severity) {
    case Severity::kError:
      return spdlog::level::err;
    case Severity::kWarn:
      return spdlog::level::warn;
    case Severity::kInfo:
      return spdlog::level::info;
    case Severity::kDebug:
      return spdlog::level::debug;
    case Severity::kTrace:
      return spdlog::level::trace;
  }
  return spdlog::level::info;
}

/// Writes one JSON object a line; spdlog's own pattern cannot escape the message. Both loggers share it through their
/// sink.
class JsonFormatter : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& msg, spdlog::memory_buf_t& dest) override {
    spdlog::memory_buf_t time;
    time_.format(msg, time);
    const std::string_view level(spdlog::level::to_string_view(msg.level).data());
    const std::string_view payload(msg.payload.data(), msg.payload.size());
    const bool members = std::string_view(msg.logger_name.data(), msg.logger_name.size()) == kMembersLogger;
    const std::string line = R"({"time":")" + std::string(time.data(), time.size()) + R"(","level":")" +
                             std::string(level) + "\"," +
                             (members ? std::string(payload) : R"("message":)" + quote(payload)) + "}\n";
    dest.append(line.data(), line.data() + line.size());
  }
  [[nodiscard]] std::unique_ptr<spdlog::formatter> clone() const override { return std::make_unique<JsonFormatter>(); }

 private:
  spdlog::pattern_formatter time_{"%Y-%m-%dT%H:%M:%S.%fZ", spdlog::pattern_time_type::utc, ""};
};

}  // namespace

Result<void> init(std::string_view level_name, Format format, const std::string& file) {
  auto level = parse_level(level_name);
  if (!level) return Failure(level.error());
  std::shared_ptr<spdlog::sinks::sink> sink;
  if (file.empty()) {
    sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  } else {
    try {
      sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(file);
    } catch (const spdlog::spdlog_ex& e) {
      return fail(ErrorCode::kInvalid, "open log file " + file + ": " + e.what());
    }
  }
  auto logger = std::make_shared<spdlog::logger>("weft", sink);
  members_logger().reset();
  if (format == Format::kJson) {
    logger->set_formatter(std::make_unique<JsonFormatter>());
    // Whether something is written is decided by the level of the first one.
    members_logger() = std::make_shared<spdlog::logger>(kMembersLogger, std::move(sink));
    members_logger()->set_level(spdlog::level::trace);
    members_logger()->flush_on(spdlog::level::info);
  } else {
    logger->set_pattern(kTextPattern, spdlog::pattern_time_type::utc);
  }
  logger->set_level(*level);
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
  return {};
}

Result<void> set_level(std::string_view name) {
  auto level = parse_level(name);
  if (!level) return Failure(level.error());
  spdlog::default_logger()->set_level(*level);
  return {};
}

std::string level() {
  switch (spdlog::default_logger()->level()) {
    case spdlog::level::err:
      return "error";
    case spdlog::level::warn:
      return "warn";
    case spdlog::level::debug:
      return "debug";
    case spdlog::level::trace:
      return "trace";
    case spdlog::level::off:
      return "off";
    default:
      return "info";
  }
}

Format format() { return members_logger() ? Format::kJson : Format::kText; }

void write_members(Severity severity, std::string_view members) {
  if (!enabled(severity) || !members_logger()) return;
  members_logger()->log(to_spdlog(severity), spdlog::string_view_t(members.data(), members.size()));
}

bool enabled(Severity severity) { return spdlog::default_logger_raw()->should_log(to_spdlog(severity)); }

namespace detail {

void write(Severity severity, fmt::string_view text, fmt::format_args args) {
  if (!enabled(severity)) return;
  fmt::memory_buffer line;
  fmt::vformat_to(std::back_inserter(line), text, args);
  spdlog::default_logger_raw()->log(to_spdlog(severity), spdlog::string_view_t(line.data(), line.size()));
}

}  // namespace detail

std::string quote(std::string_view value) {
  std::string out = "\"";
  for (const char c : value) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          out += fmt::format("\\u{:04x}", static_cast<unsigned>(static_cast<unsigned char>(c)));
        } else {
          out += c;
        }
    }
  }
  return out + '"';
}

}  // namespace weft::log
