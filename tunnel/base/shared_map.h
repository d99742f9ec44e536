// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace weft {

/// Hashes strings and views of them alike.
struct StringHash {
  std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
};

/// The right to change in place what one edit has made: no other edit has its number. One for all maps of a new object.
class Edit {
 public:
  Edit() : number_(next_.fetch_add(1, std::memory_order_relaxed)) {}
  Edit(const Edit&) = delete;
  Edit& operator=(const Edit&) = delete;
  [[nodiscard]] std::uint64_t number() const { return number_; }

 private:
  static inline std::atomic<std::uint64_t> next_{1};
  std::uint64_t number_;
};

/// A hash map whose copies share all that is the same in them: a copy costs a pointer, a change in a copy the few
/// entries that lie beside the changed one, whatever the size of the map. Two levels of 64 branches, then short lists.
/// Whoever is changing a copy must be the only one that has it; everything else may be read from any thread. Keys are
/// found by whatever Hash takes and compares equal to them.
template <class Key, class Value, class Hash = std::hash<Key>>
class SharedMap {
 public:
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] bool empty() const { return size_ == 0; }

  /// Null where there is none; valid as long as a map that has it in this state.
  template <class K>
  [[nodiscard]] const Value* find(const K& key) const {
    const std::size_t hash = hash_of(key);
    if (!root_) return nullptr;
    const auto& branch = root_->children[index(hash, 0)];
    if (!branch) return nullptr;
    const auto& bucket = branch->children[index(hash, 1)];
    if (!bucket) return nullptr;
    for (const Entry& entry : bucket->entries) {
      if (entry.hash == hash && entry.key == key) return &entry.value;
    }
    return nullptr;
  }
  template <class K>
  [[nodiscard]] bool contains(const K& key) const {
    return find(key) != nullptr;
  }

  /// The value to change, made where there is none. Valid until the next change of the map.
  template <class K>
  Value& at(const K& key, const Edit& edit) {
    const std::size_t hash = hash_of(key);
    auto& entries = own(own(own(root_, edit).children[index(hash, 0)], edit).children[index(hash, 1)], edit).entries;
    for (Entry& entry : entries) {
      if (entry.hash == hash && entry.key == key) return entry.value;
    }
    ++size_;
    return entries.emplace_back(Entry{hash, Key(key), Value()}).value;
  }

  /// Nothing where there is none.
  template <class K>
  void erase(const K& key, const Edit& edit) {
    if (!contains(key)) return;
    const std::size_t hash = hash_of(key);
    auto& bucket = own(own(root_, edit).children[index(hash, 0)], edit).children[index(hash, 1)];
    std::erase_if(own(bucket, edit).entries, [&](const Entry& e) { return e.hash == hash && e.key == key; });
    if (bucket->entries.empty()) bucket.reset();
    --size_;
  }

  /// Of each entry, in no order that means anything; ends early where `see` (key, value) returns false.
  template <class See>
  void each(const See& see) const {
    if (!root_) return;
    for (const auto& branch : root_->children) {
      if (!branch) continue;
      for (const auto& bucket : branch->children) {
        if (!bucket) continue;
        for (const Entry& entry : bucket->entries) {
          if (!see(entry.key, entry.value)) return;
        }
      }
    }
  }

 private:
  static constexpr std::size_t kFan = 64;
  struct Entry {
    std::size_t hash;
    Key key;
    Value value;
  };
  /// `edit`: the one that made it, which alone may change it.
  struct Bucket {
    std::uint64_t edit = 0;
    std::vector<Entry> entries;
  };
  template <class Child>
  struct Level {
    std::uint64_t edit = 0;
    std::array<std::shared_ptr<Child>, kFan> children;
  };

  /// Bits of the hash are mixed, because that of a number may be the number.
  template <class K>
  static std::size_t hash_of(const K& key) {
    constexpr std::uint64_t kOdd = 0x9e3779b97f4a7c15;
    const std::uint64_t mixed = std::uint64_t{Hash{}(key)} * kOdd;
    return static_cast<std::size_t>(mixed ^ (mixed >> 32U));
  }
  static std::size_t index(std::size_t hash, unsigned level) { return (hash >> (6U * level)) % kFan; }

  /// The node, copied where an earlier edit made it.
  template <class Node>
  static Node& own(std::shared_ptr<Node>& node, const Edit& edit) {
    if (!node) {
      node = std::make_shared<Node>();
    } else if (node->edit != edit.number()) {
      node = std::make_shared<Node>(*node);
    }
    node->edit = edit.number();
    return *node;
  }

  std::shared_ptr<Level<Level<Bucket>>> root_;
  std::size_t size_ = 0;
};

}  // namespace weft
