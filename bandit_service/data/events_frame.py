"""How GET /v1/events says what it sends; its reader is `bandit_service.data.log_source`."""

import struct

FRAME = struct.Struct(">I")
LOG_FIRST, LOG_LAST, LAST = "x-log-first", "x-log-last", "x-last-offset"
