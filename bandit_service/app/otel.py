"""Spans by OpenTelemetry, sent by OTLP over HTTP. Imported only if tracing is configured."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import cast

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import bandit_service
from bandit_service import clock
from bandit_service.telemetry.tracing import Value

_log = logging.getLogger("bandit.tracing")
_propagator = TraceContextTextMapPropagator()


class OtelTracer:
    """Sends spans in batches from a thread of its own; beyond its queue they are dropped.

    endpoint: URL of the collector, with its path. share: of the requests whose caller says nothing
    of it; where a `traceparent` says whether it is sampled, that is followed. Headers of the
    exporter, such as a token, and attributes of the resource come from OpenTelemetry's own
    variables (OTEL_EXPORTER_OTLP_HEADERS, OTEL_RESOURCE_ATTRIBUTES).
    """

    def __init__(self, endpoint: str, share: float, service_name: str) -> None:
        resource = Resource.create(
            {"service.name": service_name, "service.version": bandit_service.__version__}
        )
        self._provider = TracerProvider(
            resource=resource,
            sampler=ParentBased(TraceIdRatioBased(share)),
            shutdown_on_exit=False,
        )
        # its own lines may repeat what the collector answers; ours say what matters
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        sending = cast(SpanExporter, _Sending(OTLPSpanExporter(endpoint=endpoint)))
        self._provider.add_span_processor(BatchSpanProcessor(sending))
        self._tracer = self._provider.get_tracer("bandit_service", bandit_service.__version__)

    def request(
        self, name: str, headers: Mapping[str, str], attributes: Mapping[str, Value]
    ) -> OtelSpan:
        """See `tracing.Tracer`."""
        now = time.perf_counter()
        offset_s = clock.now() - now
        span = self._tracer.start_span(
            name,
            context=_propagator.extract(headers),
            kind=trace.SpanKind.SERVER,
            attributes=attributes,
            start_time=_ns(now + offset_s),
        )
        return OtelSpan(self._tracer, span, offset_s)

    def close(self) -> None:
        """See `tracing.Tracer`."""
        self._provider.shutdown()


class _Sending:
    """An exporter that says so when spans are lost."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            _log.warning("spans are lost: the collector does not take them")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        flushed: bool = self._exporter.force_flush(timeout_millis)
        return flushed


class OtelSpan:
    """See `tracing.Span`. offset_s: what `perf_counter` lacks to UTC, read once for each request,
    so that its parts lie within it.
    """

    def __init__(self, tracer: trace.Tracer, span: trace.Span, offset_s: float) -> None:
        self._tracer, self._span, self._offset_s = tracer, span, offset_s
        self._context = trace.set_span_in_context(span)

    def set(self, attributes: Mapping[str, Value]) -> None:
        """See `tracing.Span`."""
        self._span.set_attributes(attributes)

    def failed(self, kind: str) -> None:
        """See `tracing.Span`."""
        self._span.set_attribute("error.type", kind)
        self._span.set_status(trace.StatusCode.ERROR)

    def stage(self, name: str, begun: float, ended: float) -> None:
        """See `tracing.Span`."""
        part = self._tracer.start_span(
            name, context=self._context, start_time=_ns(begun + self._offset_s)
        )
        part.end(_ns(ended + self._offset_s))

    def call(self, name: str, attributes: Mapping[str, Value]) -> OtelSpan:
        """See `tracing.Span`."""
        part = self._tracer.start_span(
            name,
            context=self._context,
            kind=trace.SpanKind.CLIENT,
            attributes=attributes,
            start_time=self._now(),
        )
        return OtelSpan(self._tracer, part, self._offset_s)

    def headers(self) -> dict[str, str]:
        """See `tracing.Span`."""
        carrier: dict[str, str] = {}
        _propagator.inject(carrier, context=self._context)
        return carrier

    def end(self) -> None:
        """See `tracing.Span`."""
        self._span.end(self._now())

    def _now(self) -> int:
        return _ns(time.perf_counter() + self._offset_s)


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
