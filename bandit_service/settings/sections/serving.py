"""[server], [security], [monitoring] and [tracing]: where the service listens and what it tells."""

from __future__ import annotations

from dataclasses import dataclass

from bandit_service.settings.rule import setting


@dataclass(frozen=True, slots=True)
class Server:
    """Where the service listens, and how much one request may hold."""

    host: str = setting("127.0.0.1", "address to listen on")
    port: int = setting(8080, "port to listen on; 0 takes a free one", low=0, high=65535)
    max_body_bytes: int = setting(
        4_194_304, "largest request body, except on the gateway's paths", low=1024
    )
    max_frame_bytes: int = setting(
        1_048_576,
        "largest stream message; a larger one is refused, one four times as large ends the stream",
        low=1024,
    )
    max_query_chars: int = setting(
        200_000, "longest query, all messages together; does not apply to the gateway", low=1
    )
    max_items: int = setting(1000, "longest list of rewards or comparisons in one call", low=1)
    max_arms: int = setting(1000, "maximum number of arms, retired ones included", low=1)
    max_in_flight: int = setting(
        1024,
        "maximum number of concurrent decisions, rewards and comparisons; beyond it 429",
        low=1,
    )
    target_s: float = setting(
        0.05,
        "latency target for decisions; requests beyond what meets it get 429 (rewards and "
        "comparisons: ten times the target)",
        low=0.001,
    )
    stream_credits: int = setting(256, "requests in flight on one stream", low=1, high=65535)
    insecure: bool = setting(
        False, "allow a public address without keys and TLS, because something in front has both"
    )
    allowed_hosts: tuple[str, ...] = setting(
        (),
        "names of the service in the Host header, in addition to localhost, loopback "
        "addresses and server.host: names, addresses, or networks such as 10.0.0.0/8",
    )
    allowed_origins: tuple[str, ...] = setting(
        (),
        "origins whose pages may send requests, in addition to the service's own, such as "
        "https://router.example; needed if a proxy changes Host",
    )
    tls_cert: str = setting("", "certificate file (PEM, with its chain); turns on https")
    tls_key: str = setting("", "private key file of tls_cert")
    tls_client_ca: str = setting(
        "", "CA file; if set, clients must have a certificate from one of these CAs"
    )
    idle_s: float = setting(
        75.0, "close a connection that sends no complete request head for this long", low=0.1
    )
    body_s: float = setting(30.0, "time allowed for the request body; then 408", low=0.1)
    drain_s: float = setting(
        0.0,
        "when stopping: how long readiness fails and new work gets 503 before the port closes",
        low=0,
    )
    shutdown_s: float = setting(
        10.0,
        "when stopping: time after drain_s until the process ends; running requests are cut "
        "off with an error after 75 to 85 % of it",
        low=0,
    )


@dataclass(frozen=True, slots=True)
class SecuritySettings:
    """What keys do not say themselves; `[[keys]]` tables are the keys."""

    keys_file: str = setting("", "TOML file with more [[keys]], relative to this file")
    open_metrics: bool = setting(
        True, "serve /metrics without a key; if false it needs the scope read"
    )
    share_window: int = setting(
        1000, "number of newest outcomes over which reward_share is measured", low=100
    )


@dataclass(frozen=True, slots=True)
class MonitoringSettings:
    """What the metrics are told."""

    baseline_arm: str = setting(
        "", "arm that savings are compared with; empty: the most expensive one by list price"
    )
    max_listeners: int = setting(
        32,
        "maximum number of pages that follow GET /v1/live at a time; 0 turns it off",
        low=0,
        high=10_000,
    )
    history_s: float = setting(
        60.0, "maximum seconds of one GET /v1/history", low=1.0, high=86400.0
    )


@dataclass(frozen=True, slots=True)
class TracingSettings:
    """OpenTelemetry spans of requests; they need the extra `otel`."""

    endpoint: str = setting(
        "",
        "OTLP over HTTP endpoint for spans, such as http://127.0.0.1:4318/v1/traces; empty: "
        "no tracing",
    )
    share: float = setting(
        1.0, "share of the requests that are traced, if no traceparent decides", low=0, high=1
    )
    service_name: str = setting("bandit-service", "service.name of the spans")
