// SPDX-License-Identifier: Apache-2.0
/// What an HBONE client may send after its handshake.
#include "test/fuzz/fuzz.h"
#include "test/fuzz/h2_peer.h"

void weft::fuzz::one_input(std::string_view input) { H2Owner(hbone::H2Session::Side::kServer).run(input); }
