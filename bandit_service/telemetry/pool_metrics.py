"""The metrics of several logs in one exposition: each series with the label `pool`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

LABEL = "pool"
_OF_PROCESS = "process_"


class OfPools(CollectorRegistry):
    """What the registries of all pools collect. The first one is the default pool's, which has the
    metrics of the process.
    """

    def __init__(self, registries: Mapping[str, CollectorRegistry]) -> None:
        super().__init__()
        self._registries = registries

    def collect(self) -> Iterator[Metric]:
        """Every metric once, with the samples of all pools."""
        found: dict[str, Metric] = {}
        for i, (pool, registry) in enumerate(self._registries.items()):
            for metric in registry.collect():
                own = metric.name.startswith(_OF_PROCESS)
                if own and i:
                    continue
                whole = found.setdefault(
                    metric.name,
                    Metric(metric.name, metric.documentation, metric.type, metric.unit),
                )
                whole.samples += (
                    metric.samples
                    if own
                    else [
                        each._replace(labels={LABEL: pool, **each.labels})
                        for each in metric.samples
                    ]
                )
        yield from found.values()


def render(registries: Mapping[str, CollectorRegistry], accept: str = "") -> tuple[bytes, str]:
    """The exposition of all and its content type; without the label where there is one log. Call it
    off the event loop. accept: the header of who asks; exemplars are only in OpenMetrics.
    """
    encode, content_type = choose_encoder(accept)
    only = len(registries) == 1
    registry = next(iter(registries.values())) if only else OfPools(registries)
    return encode(registry), content_type
