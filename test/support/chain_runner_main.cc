// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "test/support/chain_runner.h"

namespace {

using weft::Result;
using weft::chain::Attachment;
using weft::chain::ChainOutcome;
using weft::chain::ChainRunner;
using weft::chain::Json;
using weft::chain::Options;

constexpr const char* kUsage =
    "usage: weft-chain [--cache DIR] [--valid CONTAINERID/IFNAME]... [--valid-none]\n"
    "                  add|check|del|gc|status CONFLIST [NETNS CONTAINERID IFNAME]\n"
    "Runs the plugins of a CNI network configuration list as a container runtime does. From the environment: CNI_PATH\n"
    "(folders of the plugins), CNI_ARGS, CAP_ARGS (a JSON object, by capability). NETNS is a path; gc and status need\n"
    "neither it nor what follows. Results are kept in DIR (default /var/lib/weft-chain). --valid and --valid-none "
    "make\n"
    "the list of gc; without them the plugins get none.\n";

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string() : std::string(value);
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  for (std::size_t start = 0; start < text.size();) {
    const auto end = std::min(text.find(separator, start), text.size());
    if (end > start) parts.push_back(text.substr(start, end - start));
    start = end + 1;
  }
  return parts;
}

struct CommandLine {
  Options options;
  std::vector<std::string> words;
  bool usable = true;
};

CommandLine read_command_line(const std::vector<std::string>& arguments) {
  CommandLine line;
  line.options.cache_dir = "/var/lib/weft-chain";
  line.options.plugin_path = split(variable("CNI_PATH"), ':');
  line.options.cni_args = variable("CNI_ARGS");
  if (const std::string args = variable("CAP_ARGS"); !args.empty()) {
    line.options.capability_args = Json::parse(args, nullptr, false);
    line.usable = line.options.capability_args.is_object();
  }
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& word = arguments[i];
    const bool takes_value = word == "--cache" || word == "--valid";
    if (takes_value && i + 1 == arguments.size()) {
      line.usable = false;
    } else if (word == "--cache") {
      line.options.cache_dir = arguments[++i];
    } else if (word == "--valid") {
      if (!line.options.valid) line.options.valid.emplace();
      line.options.valid->push_back(arguments[++i]);
    } else if (word == "--valid-none") {
      line.options.valid.emplace();
    } else if (word.starts_with("--")) {
      line.usable = false;
    } else {
      line.words.push_back(word);
    }
  }
  const bool short_verb = !line.words.empty() && (line.words[0] == "gc" || line.words[0] == "status");
  line.usable = line.usable && (line.words.size() == 5 || (short_verb && line.words.size() == 2));
  return line;
}

Result<ChainOutcome> run(const ChainRunner& runner, const std::vector<std::string>& words) {
  const std::string& verb = words[0];
  if (verb == "gc") return runner.gc();
  if (verb == "status") return runner.status();
  const Attachment attachment{words[2], words[3], words[4]};
  if (verb == "add") return runner.add(attachment);
  if (verb == "check") return runner.check(attachment);
  if (verb == "del") return runner.del(attachment);
  return weft::fail(weft::ErrorCode::kInvalid, "unknown verb '" + verb + "': expected add, check, del, gc or status");
}

int fail(const weft::Error& error) {
  std::fprintf(stderr, "weft-chain: %s\n", error.message().c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  const CommandLine line = read_command_line(std::vector<std::string>(argv + 1, argv + argc));
  if (!line.usable) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  auto runner = ChainRunner::load(line.words[1], line.options);
  if (!runner) return fail(runner.error());
  auto outcome = run(*runner, line.words);
  if (!outcome) return fail(outcome.error());
  if (!outcome->document.empty()) std::printf("%s\n", outcome->document.c_str());
  return outcome->ok ? 0 : 1;
}
