"""The recorded queries of the page's demo, read in a process of its own.

`python -m bandit_service.offline.demo N` writes `Rows` as MessagePack: what it takes to read a
recording has no place in a process that serves.
"""

from __future__ import annotations

import math
import sys

import msgspec

from bandit_service.data.recordings import PARETOBANDIT, open_recording
from bandit_service.offline.demo_rows import Row, Rows
from bandit_service.offline.simulate import order_of


def rows(most: int) -> Rows:
    """So many recorded queries, with what is known of each arm's answer."""
    recorded = open_recording(PARETOBANDIT)
    arms = [str(arm.id).rpartition("/")[2] for arm in recorded.arms]
    found = []
    for at in order_of(recorded, 0).tolist()[:most]:
        told = zip(arms, recorded.quality[at].tolist(), recorded.cost[at].tolist(), strict=True)
        known = {arm: (quality, cost) for arm, quality, cost in told if not math.isnan(quality)}
        found.append(Row(text=recorded.texts[at], outcomes=known))
    return Rows(arms=arms, rows=found)


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.msgpack.encode(rows(int(sys.argv[1]))))
