// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "tunnel/base/clock.h"
#include "tunnel/base/error.h"

/// Replacing the root of a mesh without a refused handshake, in three steps, each of which every node must have before
/// the next: the new root is trusted beside the old one; the new one signs; the old one is trusted no more. Each step
/// changes the directory by replacing one file, so a step that was cut off has either happened or not. Any thread;
/// these calls block on the disk.
namespace weft::agent {

struct Rotation {
  enum class Step {
    kNone,       ///< one root trusted, or several and none of them on its way in or out
    kPrepared,   ///< next-key.pem is the key of a trusted root
    kActivated,  ///< previous-key.pem is
  };
  Step step = Step::kNone;
  std::string signing;            ///< the root that signs, for people
  std::string other;              ///< the one that comes or goes; empty in kNone
  std::size_t trusted = 0;        ///< roots
  std::optional<WallTime> since;  ///< when the last step was made
};

/// How far a rotation is. Errors: those of read_ca().
Result<Rotation> rotation_state(const std::string& dir);

/// Agents that watch the directory have a step within that time.
constexpr std::chrono::seconds kStepSettles{10};

/// Each gives a text that says what was done and what comes next. Errors: kInvalid where it is not this step's turn, or
/// where the step before is younger than kStepSettles and `now` is not set: a script that makes the steps one after the
/// other would cut nodes off that have not seen the former yet. Those of read_ca(); errno where a file cannot be
/// written.
/// Makes a new root and has it trusted.
Result<std::string> rotate_prepare(const std::string& dir, const Clock& clock = Clock::real());
/// The new root signs.
Result<std::string> rotate_activate(const std::string& dir, bool now, const Clock& clock = Clock::real());
/// The old root is not trusted any more, and its key is gone; so is its revocation list.
Result<std::string> rotate_finish(const std::string& dir, bool now, const Clock& clock = Clock::real());
/// One step back: from activated the old root signs again, from prepared the new one goes.
Result<std::string> rotate_back(const std::string& dir, bool now, const Clock& clock = Clock::real());

}  // namespace weft::agent
