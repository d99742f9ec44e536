// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <nlohmann/json.hpp>

#include "agent/admin/http_server.h"
#include "agent/events.h"

namespace weft::admin {

using EventFunction = std::function<Result<agent::EventAnswer>(const agent::EventQuery&)>;

/// {"next", "lost", "events"}; an event has time (RFC 3339, µs), pod ("namespace/name", "" where it is not known),
/// program, verdict, reason, source and destination (with ports where it is TCP), protocol and tcpFlags.
[[nodiscard]] nlohmann::json to_json(const agent::EventAnswer& answer);

/// GET /events?after=SEQUENCE&wait_ms=N: 200, 400 for a bad query, 429 where no more can follow, 503 from an
/// agent that stops, 500.
[[nodiscard]] HttpResponse events_response(const HttpRequest& request, const EventFunction& events);

}  // namespace weft::admin
