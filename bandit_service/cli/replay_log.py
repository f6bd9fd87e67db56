"""`bandit-service replay --log`: the past of a stopped service, folded again, also for others."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from bandit_service.app import assembly
from bandit_service.cli import options
from bandit_service.core import snapshot
from bandit_service.runtime import recovery
from bandit_service.settings import PolicySettings
from store import Offset


def run(args: argparse.Namespace, chosen_policies: Mapping[str, Mapping[str, Any]]) -> int:
    """Apply the whole log for each policy; 0, or 1 if the stored state differs.

    For the serving policy, the result is compared with the newest snapshot and the rest of the log,
    bit for bit. For another, a snapshot is written, so that a service configured with it decides by
    it from its start.
    """
    chosen = options.settings_of(args)
    log = assembly.open_log(chosen, to_read=True)
    snapshots = assembly.open_snapshots(chosen)
    rows: list[dict[str, Any]] = []
    try:
        short = recovery.recover(log, chosen, snapshots)
        wanted = [PolicySettings(name, dict(given)) for name, given in chosen_policies.items()] or [
            short.policy
        ]
        for policy in wanted:
            begun = time.perf_counter()
            with tqdm(
                total=int(log.last), desc=policy.name, unit=" events", disable=None, leave=False
            ) as bar:
                whole = recovery.replayed(log, chosen, policy, _shown(bar))
            row: dict[str, Any] = {
                "policy": policy.name,
                "parameters": dict(policy.parameters),
                "events": int(log.last),
                "erased": whole.erased,
                "seconds": round(time.perf_counter() - begun, 2),
                "state_sha256": whole.world.digest(),
            }
            if policy == short.policy:
                row["snapshot"] = short.after
                row["same"] = whole.world.digest() == short.world.digest()
            elif not whole.erased:
                key = recovery.snapshot_key(policy, chosen)
                snapshots.save(Offset(int(log.last)), key, snapshot.dump(whole.world))
                row["snapshot"] = int(log.last)
            rows.append(row)
    finally:
        log.close()
    if args.json:
        print(json.dumps(rows))
    else:
        for row in rows:
            sys.stdout.write("".join(f"{name:14} {value}\n" for name, value in row.items()) + "\n")
    return 0 if all(row.get("same", True) or row["erased"] for row in rows) else 1


def _shown(bar: tqdm[Any]) -> recovery.Progress:
    def show(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return show
