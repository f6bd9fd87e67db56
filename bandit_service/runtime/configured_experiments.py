"""Makes experiments and rules agree with the configuration, by events, at a start and when the file
is read again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec

from bandit_service.core.experiments.spec import Experiment, Rules
from bandit_service.runtime.experiment_monitor import weighed
from bandit_service.runtime.experiments import Experiments, Offered

_log = logging.getLogger("bandit.experiments")
_BY, _WHY = "config", "the configuration changed"


async def reconcile(experiments: Experiments, wanted: Sequence[Experiment], rules: Rules) -> None:
    """Make configured experiments agree with the configuration; those that the API made or changed
    stay.

    All of it is checked before anything is written. An experiment that is no longer configured is
    stopped; a new one is started.
    """
    changed, gone = check(experiments, wanted, rules)
    records = experiments.records
    if rules != records.configured_rules:
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


def check(
    experiments: Experiments,
    wanted: Sequence[Experiment],
    rules: Rules,
    offered: Offered | None = None,
) -> tuple[dict[str, Experiment], list[str]]:
    """The experiments that change, and the ids of those that are configured no more. Raises
    ServiceError for what cannot be. offered: the arms that there will be, by route.
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
        experiments.check(spec, beside, offered)
    if rules != records.configured_rules:
        experiments.check_rules(rules, offered)
    return changed, gone


def _moved(wanted: Experiment, configured: Experiment | None, now: Experiment | None) -> Experiment:
    """The wanted experiment, with the present share and weights if the configuration did not change
    them.

    A ramp, a champion or the API may have moved them since, and a change of another line must not
    undo that.
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
