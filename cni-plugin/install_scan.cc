// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/install_scan.h"

#include "cni-plugin/json.h"

namespace weft::cni::install {
namespace {

/// Steps through a text that is known to be valid JSON.
class Scanner {
 public:
  Scanner(std::string_view text, std::size_t at) : text_(text), at_(at) {}

  /// Into the object or array that begins here.
  void enter() {
    blanks();
    ++at_;
  }
  /// True when another member or element follows, and stands before it then.
  bool more() {
    blanks();
    if (at_ < text_.size() && text_[at_] == ',') {
      ++at_;
      blanks();
    }
    return at_ < text_.size() && text_[at_] != '}' && text_[at_] != ']';
  }
  void colon() { enter(); }
  /// Over one value.
  Span value() {
    blanks();
    const std::size_t begin = at_;
    int depth = 0;
    do {
      const char c = text_[at_];
      if (c == '"') {
        string();
      } else if (c == '{' || c == '[') {
        ++depth;
        ++at_;
      } else if (c == '}' || c == ']') {
        --depth;
        ++at_;
      } else if (depth > 0) {
        ++at_;
      } else {
        at_ = std::min(text_.find_first_of(",]} \t\r\n", at_), text_.size());
      }
    } while (depth > 0 && at_ < text_.size());
    return {begin, at_};
  }

 private:
  void blanks() { at_ = std::min(text_.find_first_not_of(" \t\r\n", at_), text_.size()); }
  void string() {
    for (++at_; at_ < text_.size() && text_[at_] != '"'; ++at_) {
      if (text_[at_] == '\\') ++at_;
    }
    ++at_;
  }

  std::string_view text_;
  std::size_t at_;
};

}  // namespace

std::vector<Span> plugins_of(std::string_view text) {
  std::vector<Span> found;
  Scanner object(text, 0);
  object.enter();
  while (object.more()) {
    const auto key = parse_json(object.value().of(text));
    object.colon();
    const Span value = object.value();
    if (!key || *key != "plugins" || text[value.begin] != '[') continue;
    Scanner array(text, value.begin);
    array.enter();
    while (array.more()) found.push_back(array.value());
  }
  return found;
}

}  // namespace weft::cni::install
