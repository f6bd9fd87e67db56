"""Experiments and rules as the configuration names them, made so by events at a start."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec

from bandit_service.core.experiments.spec import Experiment, Rules
from bandit_service.runtime.experiment_monitor import weighed
from bandit_service.runtime.experiments import Experiments

_log = logging.getLogger("bandit.experiments")
_BY, _WHY = "config", "the configuration changed"


async def reconcile(experiments: Experiments, wanted: Sequence[Experiment], rules: Rules) -> None:
    """Make what the configuration names agree with it; what the API made or changed stays.

    All of it is checked before anything is written. An experiment that is no longer named is
    stopped, one that is new begins.
    """
    records = experiments.records
    gone = [id for id in records.configured if id not in {one.id for one in wanted}]
    changed = {
        one.id: _moved(one, records.configured.get(one.id), records.specs.get(one.id))
        for one in wanted
        if records.configured.get(one.id) != one
    }
    beside = {id: spec for id, spec in experiments.live().items() if id not in gone} | changed
    for spec in changed.values():
        experiments.check(spec, beside)
    if rules != records.configured_rules:
        experiments.check_rules(rules)
        await experiments.set_rules(rules, _BY, _WHY, "config")
    for id in gone:
        if records.trials[id].status in ("running", "paused", "starting"):
            await experiments.stop(id, _BY, "it was removed from the configuration")
    for one in wanted:
        if one.id in changed:
            await experiments.put(changed[one.id], _BY, _WHY, configured=one)
        status = records.trials[one.id].status
        if status == "draft":
            await experiments.begin(one.id, _BY, "it is in the configuration")
        elif status == "stopped":
            _log.warning("configured, but finished", extra={"experiment": one.id})


def _moved(wanted: Experiment, configured: Experiment | None, now: Experiment | None) -> Experiment:
    """What is wanted, with the share and the weights of now where the configuration left them.

    A ramp, a champion or the API moved them since, and another line of the file must not undo it.
    """
    if configured is None or now is None:
        return wanted
    if wanted.share == configured.share:
        wanted = msgspec.structs.replace(wanted, share=now.share)
    weights = {one.key: one.weight for one in now.served}
    same = [(one.key, one.weight) for one in wanted.served]
    if same == [(one.key, one.weight) for one in configured.served]:
        wanted = weighed(wanted, weights)
    return wanted
