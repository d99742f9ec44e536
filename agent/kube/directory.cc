// SPDX-License-Identifier: Apache-2.0
#include "agent/kube/directory.h"

#include "tunnel/base/log.h"

namespace weft::kube {
namespace {

std::string key_of(const Pod& pod) { return pod.key(); }
std::string key_of(const Namespace& of) { return of.meta.name; }

void parse(const Json& object, Result<Pod>& into) { into = parse_pod(object); }
void parse(const Json& object, Result<Namespace>& into) { into = parse_namespace(object); }

template <class Object>
std::optional<Object> read(const Json& json) {
  Result<Object> object;
  parse(json, object);
  if (object) return std::move(*object);
  log::warn("object of the Kubernetes API not understood error={}", log::quote(object.error().message()));
  return std::nullopt;
}

}  // namespace

Directory::Directory(std::vector<std::string> excluded_namespaces, std::function<void()> changed)
    : excluded_(std::move(excluded_namespaces)),
      changed_(std::move(changed)),
      pods_receiver_(*this, pods_),
      namespaces_receiver_(*this, namespaces_) {}

template <class Object>
void Directory::Receiver<Object>::listed(const Json& json) {
  if (auto object = read<Object>(json)) list_.insert_or_assign(key_of(*object), std::move(*object));
}

template <class Object>
void Directory::Receiver<Object>::list_ends() {
  {
    const std::lock_guard lock(directory_.mutex_);
    into_ = std::exchange(list_, {});
  }
  directory_.changed_();
}

template <class Object>
void Directory::Receiver<Object>::changed(const Json& json) {
  if (auto object = read<Object>(json)) directory_.put(std::move(*object));
}

template <class Object>
void Directory::Receiver<Object>::deleted(const Json& json) {
  const auto object = read<Object>(json);
  if (!object) return;
  {
    const std::lock_guard lock(directory_.mutex_);
    const auto found = into_.find(key_of(*object));
    // Its name may have been given again already.
    if (found == into_.end() || found->second.meta.uid != object->meta.uid) return;
    into_.erase(found);
  }
  directory_.changed_();
}

/// What was asked for by itself may be newer than what a watch tells next. Most changes of a pod are none here.
template <class Object>
void Directory::put_in(std::map<std::string, Object>& objects, Object object) {
  {
    const std::lock_guard lock(mutex_);
    auto [known, is_new] = objects.try_emplace(key_of(object), object);
    if (!is_new) {
      Meta& meta = known->second.meta;
      if (meta.uid == object.meta.uid && is_older(object.meta.version, meta.version)) return;
      meta.version = object.meta.version;
      if (known->second == object) return;
      known->second = std::move(object);
    }
  }
  changed_();
}

void Directory::put(Pod pod) { put_in(pods_, std::move(pod)); }
void Directory::put(Namespace of) { put_in(namespaces_, std::move(of)); }

void Directory::remove_pod(const std::string& key, const std::string& uid) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = pods_.find(key);
    if (found == pods_.end() || found->second.meta.uid != uid) return;
    pods_.erase(found);
  }
  changed_();
}

std::optional<Pod> Directory::pod(const std::string& namespace_name, const std::string& name) const {
  const std::lock_guard lock(mutex_);
  const auto found = pods_.find(namespace_name + "/" + name);
  return found == pods_.end() ? std::nullopt : std::optional(found->second);
}

std::optional<Namespace> Directory::namespace_named(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  const auto found = namespaces_.find(name);
  return found == namespaces_.end() ? std::nullopt : std::optional(found->second);
}

std::vector<Pod> Directory::pods() const {
  const std::lock_guard lock(mutex_);
  std::vector<Pod> all;
  all.reserve(pods_.size());
  for (const auto& [key, pod] : pods_) all.push_back(pod);
  return all;
}

std::optional<Ruling> Directory::ruling(const Pod& pod) const {
  const std::lock_guard lock(mutex_);
  const auto of = namespaces_.find(pod.namespace_name);
  if (of == namespaces_.end()) return std::nullopt;
  return rule(pod, of->second, excluded_);
}

}  // namespace weft::kube
