// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/completion.h"

#include <CLI/CLI.hpp>
#include <memory>
#include <ostream>
#include <sstream>
#include <vector>

#include "agent/cli/commands.h"

namespace weft::cli {
namespace {

/// An option or a positional argument.
struct Argument {
  std::vector<std::string> long_names, short_names;  ///< both empty: positional
  std::vector<std::string> values;                   ///< empty: any
  bool takes_value = false;
  std::string help;
};

/// A sub-command by the words that lead to it: "weftctl ca init".
struct Command {
  std::string path, name, help;
  std::vector<std::string> children;
  std::vector<Argument> arguments;
};

/// The values in "TEXT:{table,json}".
std::vector<std::string> values_of(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  const auto open = type.find('{');
  const auto close = type.find('}', open);
  if (open == std::string::npos || close == std::string::npos) return {};
  return CLI::detail::split(type.substr(open + 1, close - open - 1), ',');
}

/// The command before those below it.
void collect(const CLI::App& app, const std::string& prefix, std::vector<Command>& out) {
  Command command;
  command.name = app.get_name();
  command.path = prefix.empty() ? command.name : prefix + " " + command.name;
  command.help = app.get_description();
  for (const auto* option : app.get_options()) {
    command.arguments.push_back({.long_names = option->get_lnames(),
                                 .short_names = option->get_snames(),
                                 .values = values_of(*option),
                                 .takes_value = option->get_items_expected_max() > 0,
                                 .help = option->get_description()});
  }
  const auto below = app.get_subcommands([](const CLI::App*) { return true; });
  for (const auto* child : below) command.children.push_back(child->get_name());
  const std::string path = command.path;
  out.push_back(std::move(command));
  for (const auto* child : below) collect(*child, path, out);
}

/// A word in single quotes.
std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::string words(const std::vector<std::string>& list) {
  std::string out;
  for (const auto& word : list) out += (out.empty() ? "" : " ") + word;
  return out;
}

std::vector<std::string> spellings(const Argument& argument) {
  std::vector<std::string> out;
  for (const auto& name : argument.short_names) out.push_back("-" + name);
  for (const auto& name : argument.long_names) out.push_back("--" + name);
  return out;
}

/// What may stand next: sub-commands, values of positional arguments, options.
std::vector<std::string> next_words(const Command& command) {
  std::vector<std::string> out = command.children;
  for (const auto& argument : command.arguments) {
    const auto names = spellings(argument);
    out.insert(out.end(), names.begin(), names.end());
    if (names.empty()) out.insert(out.end(), argument.values.begin(), argument.values.end());
  }
  return out;
}

/// The patterns of a case over all commands below `commands`' first.
std::string command_patterns(const std::vector<Command>& commands, const char* separator) {
  std::string out;
  for (std::size_t i = 1; i < commands.size(); ++i) out += (i > 1 ? separator : "") + quoted(commands[i].path);
  return out;
}

/// The part that bash and zsh have in common: a case over the word before, and one over the sub-command.
void write_cases(std::ostream& out, const std::vector<Command>& commands, const char* offer_begin,
                 const char* offer_end) {
  out << "  case \"$at $prev\" in\n";
  for (const auto& command : commands) {
    for (const auto& argument : command.arguments) {
      if (!argument.takes_value) continue;
      std::string patterns;
      for (const auto& name : spellings(argument)) {
        patterns += (patterns.empty() ? "" : " | ") + quoted(command.path + " " + name);
      }
      if (patterns.empty()) continue;
      out << "    " << patterns << ") ";
      if (!argument.values.empty()) out << offer_begin << quoted(words(argument.values)) << offer_end << "; ";
      out << "return ;;\n";
    }
  }
  out << "  esac\n  case $at in\n";
  for (const auto& command : commands) {
    out << "    " << quoted(command.path) << ") " << offer_begin << quoted(words(next_words(command))) << offer_end
        << " ;;\n";
  }
  out << "  esac\n";
}

std::string bash_script(const std::vector<Command>& commands) {
  std::ostringstream out;
  out << "# bash completion of weftctl: source it, or save it in /etc/bash_completion.d\n"
         "_weftctl() {\n"
         "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} at=weftctl i\n"
         "  COMPREPLY=()\n"
         "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
         "    case \"$at ${COMP_WORDS[i]}\" in\n"
         "      "
      << command_patterns(commands, " | ")
      << ") at=\"$at ${COMP_WORDS[i]}\" ;;\n"
         "    esac\n"
         "  done\n";
  write_cases(out, commands, "COMPREPLY=($(compgen -W ", " -- \"$cur\"))");
  out << "}\ncomplete -o default -F _weftctl weftctl\n";
  return out.str();
}

std::string zsh_script(const std::vector<Command>& commands) {
  std::ostringstream out;
  out << "#compdef weftctl\n"
         "# zsh completion of weftctl: save it as _weftctl in a folder of $fpath, or source it after compinit\n"
         "_weftctl() {\n"
         "  local prev=${words[CURRENT-1]} at=weftctl word\n"
         "  for word in ${words[2,CURRENT-1]}; do\n"
         "    case \"$at $word\" in\n"
         "      ("
      << command_patterns(commands, "|")
      << ") at=\"$at $word\" ;;\n"
         "    esac\n"
         "  done\n";
  write_cases(out, commands, "compadd -- ${=:-", "}");
  out << "}\nif [ \"$funcstack[1]\" = _weftctl ]; then _weftctl \"$@\"; else compdef _weftctl weftctl; fi\n";
  return out.str();
}

void write_fish_argument(std::ostream& out, const std::string& at, const Argument& argument) {
  if (spellings(argument).empty() && argument.values.empty()) return;  // a word that nobody can guess
  out << at;
  for (const auto& name : argument.long_names) out << " -l " << name;
  for (const auto& name : argument.short_names) out << " -s " << name;
  if (argument.takes_value && !spellings(argument).empty()) out << " -r";
  if (!argument.values.empty()) out << " -f -a " << quoted(words(argument.values));
  out << " -d " << quoted(argument.help) << "\n";
}

std::string fish_script(const std::vector<Command>& commands) {
  std::ostringstream out;
  out << "# fish completion of weftctl: save it as ~/.config/fish/completions/weftctl.fish\n"
         "function __weftctl_at\n"
         "  set -l at weftctl\n"
         "  for word in (commandline -opc)[2..-1]\n"
         "    switch \"$at $word\"\n"
         "      case "
      << command_patterns(commands, " ")
      << "\n        set at \"$at $word\"\n"
         "    end\n"
         "  end\n"
         "  test \"$at\" = \"$argv[1]\"\n"
         "end\n";
  for (std::size_t i = 0; i < commands.size(); ++i) {
    const auto& command = commands[i];
    const std::string at = "complete -c weftctl -n " + quoted("__weftctl_at \"" + command.path + "\"");
    for (const auto& child : commands) {
      if (child.path == command.path + " " + child.name) {
        out << at << " -f -a " << child.name << " -d " << quoted(child.help) << "\n";
      }
    }
    for (const auto& argument : command.arguments) write_fish_argument(out, at, argument);
  }
  return out.str();
}

}  // namespace

std::string completion_script(const CLI::App& app, const std::string& shell) {
  std::vector<Command> commands;
  collect(app, "", commands);
  if (shell == "zsh") return zsh_script(commands);
  return shell == "fish" ? fish_script(commands) : bash_script(commands);
}

void add_completion(CLI::App& app, Session& session) {
  auto* command = app.add_subcommand("completion", "a script that completes weftctl's command line");
  const auto shell = std::make_shared<std::string>();
  command->add_option("SHELL", *shell, "the shell that it is for")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  command->footer("In bash: source <(weftctl completion bash)");
  command->callback([&app, &session, shell] {
    session.action = [&app, &session, shell] {
      session.out() << completion_script(app, *shell);
      return kOk;
    };
  });
}

}  // namespace weft::cli
