// SPDX-License-Identifier: Apache-2.0
#include "agent/control/yaml_tree.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <istream>
#include <new>
#include <stdexcept>
#include <streambuf>
#include <unordered_map>

namespace weft::control {
namespace {

/// Thrown through yaml-cpp's parser to stop it, and caught in parse_yaml.
class Stop : public std::runtime_error {
 public:
  Stop(const YAML::Mark& mark, const std::string& what) : std::runtime_error(what), line(mark.line + 1) {}
  int line;
};

/// Reads straight from the text: a stringstream would copy it.
class ViewBuffer : public std::streambuf {
 public:
  explicit ViewBuffer(std::string_view text) {
    char* begin = const_cast<char*>(text.data());  // setg wants it so; nothing writes
    setg(begin, begin, begin + text.size());
  }
};

/// Builds the tree from the parser's events. yaml-cpp's own node builder has no bounds and expands nothing lazily.
class Builder : public YAML::EventHandler {
 public:
  explicit Builder(const YamlLimits& limits) : limits_(limits) {}

  [[nodiscard]] YamlNodePtr root() const { return root_; }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (root_) throw Stop(mark, "a second document: expected one");
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    place(make(mark, YamlNode::Kind::kNull, anchor));
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    const auto node = make(mark, YamlNode::Kind::kScalar, anchor);
    node->scalar = value;
    node->plain = tag == "?";
    place(is_variant(tag) ? as_variant(mark, tag, anchor, node) : node);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    for (const auto& open : open_) {
      if (found != anchors_.end() && open.node == found->second) throw Stop(mark, "an alias to what encloses it");
    }
    if (found == anchors_.end()) throw Stop(mark, "an alias to nothing");
    count(mark);
    check_depth(mark, found->second->height);
    place(found->second);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    const auto node = make(mark, YamlNode::Kind::kSequence, anchor);
    open(mark, node, is_variant(tag) ? as_variant(mark, tag, anchor, node) : nullptr);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, make(mark, YamlNode::Kind::kMap, anchor));
  }
  void OnMapEnd() override { close(); }

 private:
  using Node = std::shared_ptr<YamlNode>;
  struct Open {
    Node node;
    YamlNodePtr key;  ///< of a map: the key whose value comes next
    Node variant;     ///< what is placed in the node's stead, if anything
  };

  void count(const YAML::Mark& mark) {
    if (++nodes_ > limits_.nodes) throw Stop(mark, "more than " + std::to_string(limits_.nodes) + " values");
  }
  /// Of a node about to be placed, with what is in it.
  void check_depth(const YAML::Mark& mark, std::size_t height) const {
    if (open_.size() + height > limits_.depth) throw Stop(mark, "nested deeper than " + std::to_string(limits_.depth));
  }
  Node make(const YAML::Mark& mark, YamlNode::Kind kind, YAML::anchor_t anchor) {
    count(mark);
    auto node = std::make_shared<YamlNode>();
    node->kind = kind;
    node->line = mark.line + 1;
    if (anchor != YAML::NullAnchor) anchors_[anchor] = node;
    return node;
  }
  /// A tag of the document's own, `!Exact`: how serde writes the variant of an enum.
  static bool is_variant(const std::string& tag) { return tag.size() > 1 && tag.front() == '!'; }
  /// The same as the map `{Exact: …}` around a node, which may still grow.
  Node as_variant(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, const Node& node) {
    if (anchor != YAML::NullAnchor) throw Stop(mark, "an anchor on a value with the tag " + tag + ": expected none");
    const auto key = make(mark, YamlNode::Kind::kScalar, YAML::NullAnchor);
    key->scalar = tag.substr(1);
    const auto map = make(mark, YamlNode::Kind::kMap, YAML::NullAnchor);
    map->entries.push_back({key, node});
    map->height = node->height + 1;
    check_depth(mark, map->height);
    return map;
  }
  void open(const YAML::Mark& mark, const Node& node, const Node& variant = nullptr) {
    check_depth(mark, 1);
    open_.push_back({node, nullptr, variant});
  }
  void close() {
    const auto [node, key, variant] = open_.back();
    open_.pop_back();
    if (!variant) {
      place(node);
      return;
    }
    variant->height = node->height + 1;
    YAML::Mark mark;
    mark.line = node->line - 1;
    check_depth(mark, variant->height);
    place(variant);
  }
  void place(const Node& node) {
    if (open_.empty()) {
      root_ = node;
      return;
    }
    Open& parent = open_.back();
    parent.node->height = std::max(parent.node->height, node->height + 1);
    if (parent.node->kind == YamlNode::Kind::kSequence) {
      parent.node->items.push_back(node);
    } else if (!parent.key) {
      parent.key = node;
    } else {
      parent.node->entries.push_back({std::move(parent.key), node});
      parent.key = nullptr;
    }
  }

  const YamlLimits limits_;
  YamlNodePtr root_;
  std::vector<Open> open_;
  std::unordered_map<YAML::anchor_t, Node> anchors_;
  std::size_t nodes_ = 0;
};

}  // namespace

Result<YamlNodePtr> parse_yaml(const std::string& path, std::string_view text, const YamlLimits& limits) {
  const auto bad = [&](int line, const std::string& why) {
    // yaml-cpp's texts, and ours, may have a tag or an anchor in them.
    return fail(ErrorCode::kInvalid, path + ":" + std::to_string(line) + ": " + excerpt(why, 300));
  };
  // yaml-cpp takes an end-of-file byte for the end of the text and would silently ignore the rest.
  if (const auto nul = text.find_first_of(std::string_view("\0\x04", 2)); nul != std::string_view::npos) {
    const auto before = text.substr(0, nul);
    return bad(static_cast<int>(std::count(before.begin(), before.end(), '\n')) + 1,
               "a control character: expected text");
  }
  ViewBuffer buffer(text);
  std::istream stream(&buffer);
  Builder builder(limits);
  try {
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const Stop& stop) {
    return bad(stop.line, stop.what());
  } catch (const YAML::Exception& e) {
    return bad(e.mark.line + 1, "not YAML: " + e.msg);
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kInvalid, path + ": too large for the memory there is");
  } catch (const std::exception& e) {
    return fail(ErrorCode::kInvalid, path + ": not YAML: " + e.what());
  }
  return builder.root();
}

}  // namespace weft::control
