// SPDX-License-Identifier: Apache-2.0
#include "test/conformance/install_fixture.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace weft::test {

namespace fs = std::filesystem;

std::string installer_path() {
  const char* other = std::getenv("WEFT_CNI");
  return other != nullptr ? other : WEFT_CNI_BINARY;
}

Untouched::Untouched(const std::string& path) {
  struct stat state = {};
  if (::stat(path.c_str(), &state) != 0) throw TestError("stat " + path);
  inode = state.st_ino;
  seconds = state.st_mtim.tv_sec;
  nanoseconds = state.st_mtim.tv_nsec;
  text = read_file(path);
}

InstallTest::InstallTest() {
  fs::create_directory(bin());
  fs::create_directory(conf());
}

void InstallTest::put(const std::string& name, const std::string& text) const {
  const std::string temporary = conf(name) + ".owner-tmp";
  put_in_place(name + ".owner-tmp", text);
  fs::rename(temporary, conf(name));
}

void InstallTest::put_in_place(const std::string& name, const std::string& text) const {
  std::ofstream file(conf(name));
  file << text << std::flush;
  if (!file) throw TestError("write " + conf(name));
}

Json InstallTest::json(const std::string& name) const { return Json::parse(text(name), nullptr, false); }

std::vector<std::string> InstallTest::types(const std::string& name) const {
  std::vector<std::string> found;
  const Json list = fs::exists(conf(name)) ? json(name) : Json();
  if (!list.is_object() || !list.contains("plugins")) return found;
  for (const auto& plugin : list["plugins"]) found.push_back(plugin.value("type", ""));
  return found;
}

bool InstallTest::has_entry(const std::string& name) const {
  const auto found = types(name);
  return !found.empty() && found.back() == "weft-cni" && std::ranges::count(found, "weft-cni") == 1;
}

std::vector<std::string> InstallTest::names() const {
  std::vector<std::string> found;
  for (const auto& entry : fs::directory_iterator(conf())) {
    if (const auto name = entry.path().filename().string(); name != ".weft-cni.lock") found.push_back(name);
  }
  std::ranges::sort(found);
  return found;
}

bool InstallTest::ready() const { return fs::exists(ready_file()); }

std::vector<std::string> InstallTest::command(const std::string& verb, const std::vector<std::string>& more) const {
  std::vector<std::string> arguments{installer_path(), verb, "--bin-dir", bin(), "--conf-dir", conf()};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

Finished InstallTest::install(const std::vector<std::string>& more) const { return run(command("install", more)); }

Finished InstallTest::uninstall(const std::vector<std::string>& more) const { return run(command("uninstall", more)); }

Finished InstallTest::on_read_only_folder(const std::string& verb) const {
  std::vector<std::string> arguments;
  if (is_root()) arguments = {"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"};
  const std::string copy = dir_.path() + "/weft-cni";
  fs::copy_file(installer_path(), copy);
  fs::permissions(dir_.path(), fs::perms(0755));
  fs::permissions(bin(), fs::perms(0777));
  fs::permissions(conf(), fs::perms(0555));
  for (const std::string& word : command(verb, {})) arguments.push_back(word == installer_path() ? copy : word);
  auto finished = run(arguments);
  fs::permissions(conf(), fs::perms(0755));
  return finished;
}

Process InstallTest::watch(const std::vector<std::string>& more) const {
  auto arguments = command("install", {"--watch", "--ready-file", ready_file()});
  arguments.insert(arguments.end(), more.begin(), more.end());
  return Process::start(arguments);
}

Process InstallTest::watch_in_place(const std::vector<std::string>& more) const {
  auto watcher = watch(more);
  if (!watcher.wait_for_output("ready: weft-cni is in place", kSoon)) {
    throw TestError("the entry did not get into place: " + watcher.err());
  }
  return watcher;
}

}  // namespace weft::test
