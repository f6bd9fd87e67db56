"""The sections of the configuration file: every key with its default and what is allowed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bandit_service.settings.rule import Rule, setting


@dataclass(frozen=True, slots=True)
class Server:
    """Where the service listens, and how much one request may hold."""

    host: str = setting("127.0.0.1", "address to listen on")
    port: int = setting(8080, "port to listen on; 0 takes a free one", low=0, high=65535)
    max_body_bytes: int = setting(
        4_194_304, "largest request body, but for the gateway's paths", low=1024
    )
    max_frame_bytes: int = setting(
        1_048_576,
        "largest stream message that is answered; four times as much ends the stream",
        low=1024,
    )
    max_query_chars: int = setting(
        200_000, "longest query, all messages together; the gateway has no such bound", low=1
    )
    max_items: int = setting(1000, "longest list of rewards or comparisons in one call", low=1)
    max_arms: int = setting(1000, "maximum number of arms, retired ones included", low=1)
    max_in_flight: int = setting(1024, "decides and outcomes under way before 429", low=1)
    target_s: float = setting(
        0.05,
        "time in which decides are to be answered; as many are let in as can be, the others get "
        "429, outcomes only where they take ten times as long",
        low=0.001,
    )
    stream_credits: int = setting(256, "requests in flight on one stream", low=1, high=65535)
    insecure: bool = setting(
        False, "listen beyond this machine without keys and TLS: something in front has both"
    )
    allowed_hosts: tuple[str, ...] = setting(
        (),
        "names that the service is reached by, beside localhost, loopback addresses and "
        "server.host: names, addresses, or networks such as 10.0.0.0/8",
    )
    allowed_origins: tuple[str, ...] = setting(
        (),
        "origins whose pages may ask, beside the service's own, such as https://router.example; "
        "needed where a proxy changes Host",
    )
    tls_cert: str = setting("", "certificate file (PEM, with its chain); makes it https")
    tls_key: str = setting("", "private key file of tls_cert")
    tls_client_ca: str = setting("", "file of the CAs whose client certificates are asked for")
    idle_s: float = setting(
        75.0, "a connection that sends no whole request head for this long is closed", low=0.1
    )
    body_s: float = setting(30.0, "time allowed for the request body; then 408", low=0.1)
    drain_s: float = setting(
        0.0,
        "when stopping, how long readiness fails and new work gets 503 before the port is closed",
        low=0,
    )
    shutdown_s: float = setting(
        10.0,
        "when stopping, the time after drain_s until the process has ended; what is under way is "
        "cut, and told so, after 75 to 85 % of it",
        low=0,
    )


@dataclass(frozen=True, slots=True)
class Embedding:
    """How a query becomes a vector."""

    backend: str = setting("onnx", "what runs the model", choices=("onnx", "torch", "static"))
    model: str = setting("all-MiniLM-L6-v2", "name of the model, or path of its directory")
    threads: int = setting(1, "threads of one embedding call", low=1, high=256)
    batch_size: int = setting(16, "most texts in one call of the model", low=1, high=1024)
    wait_s: float = setting(
        0.0, "how long to wait for more texts before running a batch", low=0, high=1
    )
    cache_size: int = setting(10_000, "embeddings kept by text hash", low=0)
    queue_limit: int = setting(1024, "texts waiting before 429", low=1)
    timeout_s: float = setting(5.0, "after this a query is decided without its embedding", low=0.01)


@dataclass(frozen=True, slots=True)
class HistorySettings:
    """The remembered queries."""

    capacity: int = setting(
        20_000, "queries remembered; beyond it the one remembered first leaves", low=1
    )
    neighbours: int = setting(20, "past queries recalled for each query", low=0, high=1000)
    exact_below: int = setting(2000, "fewer remembered queries are searched exactly", low=0)


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """The policy that decides, and the parameters that `policies.load` gets."""

    name: str = setting("nested", "a policy; `bandit-service policies` lists them")
    parameters: dict[str, Any] = field(
        default_factory=dict, metadata={"rule": Rule("the policy's own parameters, a table")}
    )


@dataclass(frozen=True, slots=True)
class ExplorationSettings:
    """Chance, and the probability that every eligible arm keeps."""

    seed: int = setting(0, "seed of every draw", low=0)
    share: float = setting(
        0.02, "share of the traffic that explores, all eligible arms alike", low=0, high=1
    )
    floor: float | None = setting(
        None,
        "least probability of an eligible arm, in place of exploration.share",
        low=0,
        high=0.5,
    )
    floor_share: float = setting(
        0.1,
        "most that exploration.floor takes of all arms together, however many there are",
        low=0,
        high=1,
    )


@dataclass(frozen=True, slots=True)
class RewardSettings:
    """reward = quality - cost_usd / willingness_to_pay - latency_weight * latency_s."""

    willingness_to_pay: float = setting(
        0.10,
        "USD that one unit of quality is worth, unless the query says otherwise",
        low=1e-9,
        high=1e6,
    )
    latency_weight: float = setting(0.0, "quality that one second costs", low=0, high=100)
    ttl_s: float = setting(86_400.0, "how long a decision may be rewarded", low=1)
    on_expiry: str = setting(
        "drop",
        "what a decision teaches that nobody rewarded in ttl_s: nothing, or reward.default",
        choices=("drop", "default"),
    )
    default: float = setting(
        0.0, "the reward of silence, where on_expiry is default", low=-1, high=1
    )
    max_pending: int = setting(
        50_000, "decisions kept for their reward, about 5 kB each; then the oldest expires", low=1
    )


@dataclass(frozen=True, slots=True)
class LogSettings:
    """Where events are kept."""

    path: str = setting("events.sqlite3", "file of the event log, relative to data_dir")
    sync_interval_s: float = setting(
        0.5,
        "a power cut loses at most the decisions of this long; rewards never wait for it",
        low=0.001,
        high=60,
    )
    verify: str = setting(
        "all",
        "which checksums to verify at startup: all of the log, or what comes after the snapshot",
        choices=("all", "tail"),
    )
    max_backlog: int = setting(
        10_000, "decisions kept in memory while the disk is full; then the oldest is lost", low=0
    )


@dataclass(frozen=True, slots=True)
class SnapshotSettings:
    """Folded state beside the log, from which a restart goes on."""

    directory: str = setting("snapshots", "directory of the snapshots, relative to data_dir")
    every_events: int = setting(20_000, "events after which the next is made", low=100)
    every_s: float = setting(
        900.0, "seconds after which the next is made, if anything happened", low=1
    )
    keep: int = setting(3, "how many are kept", low=1, high=100)
    stalled_s: float = setting(
        60.0,
        "a child process that takes no step for so long, some hundred events, is killed",
        low=1,
    )


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    """How much of the log is kept behind the oldest snapshot; 0 keeps everything."""

    max_age_s: float = setting(0.0, "events older than this are deleted; 0 keeps them", low=0)
    max_bytes: int = setting(0, "beyond this the oldest events are deleted; 0: no bound", low=0)


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """How requests of OpenAI's wire format are carried out; `[[upstreams]]` are the providers."""

    attempts: int = setting(3, "arms tried for one request", low=1, high=20)
    failure_quality: float = setting(
        0.0, "quality that an arm is taught for an answer that failed", low=0, high=1
    )
    latency_signal: str = setting(
        "total",
        "what is taught as latency_s: the whole answer, its first token, or the whole divided by "
        "its tokens",
        choices=("total", "first_token", "per_token"),
    )
    sticky: bool = setting(False, "a conversation stays with its arm, for the provider's cache")
    sticky_margin: float = setting(
        0.05, "how much higher another arm must score for a conversation to switch", low=0
    )
    sticky_s: float = setting(300.0, "how long a conversation is remembered", low=1)
    max_body_bytes: int = setting(
        33_554_432, "largest request body of the gateway's paths, images included", low=1024
    )
    max_answer_bytes: int = setting(
        33_554_432, "largest answer of a provider, and largest event of its stream", low=1024
    )
    max_header_bytes: int = setting(
        65_536, "longest line in the head of a provider's answer", low=1024, high=1_048_576
    )
    keep_alive_s: float = setting(
        15.0,
        "a streamed answer of which nothing came for this long sends its client a comment; 0: none",
        low=0,
        high=3600,
    )
    verdict_s: float = setting(
        1.0,
        "CPU seconds that a judge's pattern or schema may take for one answer",
        low=0.01,
        high=60,
    )
    breaker_failures: int = setting(3, "failures in a row that mask an arm", low=1)
    breaker_cool_s: float = setting(
        5.0, "how long an arm is masked first; doubles with each failed probe", low=0.01
    )


@dataclass(frozen=True, slots=True)
class DuelSettings:
    """A second arm answers too, and the two answers are compared; the user gets the first."""

    share: float = setting(0.0, "share of the routed answers that are challenged", low=0, high=1)
    judge: str = setting("", "id of the judge that compares; empty leaves it to the user")
    keep_s: float = setting(600.0, "how long both answers can be asked for", low=0, high=86_400)


@dataclass(frozen=True, slots=True)
class SecuritySettings:
    """What keys do not say themselves; `[[keys]]` tables are the keys."""

    keys_file: str = setting("", "TOML file with more [[keys]], relative to this file")
    open_metrics: bool = setting(True, "/metrics without a key; else it needs the scope read")
    share_window: int = setting(
        1000, "newest outcomes of which a key may send its reward_share", low=100
    )


@dataclass(frozen=True, slots=True)
class MonitoringSettings:
    """What the metrics are told."""

    baseline_arm: str = setting(
        "", "arm that savings are counted against; empty takes the dearest by list price"
    )
    max_listeners: int = setting(
        32, "pages that may follow GET /v1/live at a time; 0 turns it off", low=0, high=10_000
    )


@dataclass(frozen=True, slots=True)
class TracingSettings:
    """OpenTelemetry spans of requests; they need the extra `otel`."""

    endpoint: str = setting(
        "",
        "where spans are sent by OTLP over HTTP, as http://127.0.0.1:4318/v1/traces; empty: none",
    )
    share: float = setting(
        1.0, "share of the requests that are traced, where no traceparent says", low=0, high=1
    )
    service_name: str = setting("bandit-service", "service.name of the spans")


@dataclass(frozen=True, slots=True)
class DriftSettings:
    """What watches for arms and queries that change, and what follows from an alarm."""

    enabled: bool = setting(True, "watch for drift, where river is installed")
    adwin_delta: float = setting(
        0.002, "ADWIN's delta; less gives fewer and later alarms", low=1e-9, high=0.5
    )
    page_hinkley_threshold: float = setting(
        20.0, "Page-Hinkley's threshold; more gives fewer and later alarms", low=1.0, high=1e6
    )
    page_hinkley_delta: float = setting(
        0.05, "a change of the mean smaller than this is none to Page-Hinkley", low=0, high=1
    )
    keep: float | None = setting(
        None,
        "share of what a policy without an alarm of its own learned of an arm that the arm's "
        "alarm leaves; 1 forgets nothing, none means 0.1",
        low=0.01,
        high=1,
    )
    explore: float = setting(
        0.0,
        "probability that an arm keeps at least after its alarm, all arms after one of the "
        "queries; 0 adds nothing",
        low=0,
        high=0.5,
    )
    explore_decisions: int = setting(
        1000, "decisions for which drift.explore holds", low=1, high=1_000_000
    )


@dataclass(frozen=True, slots=True)
class ExperimentSettings:
    """What stands over all experiments, and how often they are looked at."""

    stopped: bool = setting(False, "the kill switch: no unit is in any experiment")
    holdout_share: float = setting(
        0.0, "share of the units that always get holdout_arm", low=0.0, high=0.5
    )
    holdout_arm: str = setting("", "the arm of held-out units")
    unit: str = setting("user", "what is held out", choices=("user", "tenant"))
    salt: str = setting("holdout", "another salt holds out other units")
    steer_s: float = setting(
        5.0, "seconds between two looks at guardrails, ramps and weights", low=0.1, high=3600.0
    )
    whatif_s: float = setting(
        300.0, "seconds that one off-policy evaluation may take", low=1.0, high=86400.0
    )
