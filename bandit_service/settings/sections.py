"""The sections of the configuration file: every key with its default and what is allowed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bandit_service.core.sessions import CREDITS
from bandit_service.core.vector_bytes import CODINGS
from bandit_service.settings.rule import Rule, setting
from bandit_service.settings.texts import BOTH, OFF, QUESTIONS, RULES
from store import DEFAULT, ENGINES


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
class Embedding:
    """How a query becomes a vector."""

    backend: str = setting(
        "onnx", "runtime of the embedding model", choices=("onnx", "torch", "static")
    )
    model: str = setting("all-MiniLM-L6-v2", "name of the model, or path of its directory")
    threads: int = setting(1, "threads for one embedding call", low=1, high=256)
    batch_size: int = setting(
        16, "maximum number of texts in one call of the model", low=1, high=1024
    )
    wait_s: float = setting(
        0.0, "how long to wait for more texts before running a batch", low=0, high=1
    )
    cache_size: int = setting(10_000, "number of cached embeddings, by text hash", low=0)
    queue_limit: int = setting(1024, "maximum number of waiting texts; beyond it 429", low=1)
    timeout_s: float = setting(
        5.0, "after this time a query is decided without its embedding", low=0.01
    )


@dataclass(frozen=True, slots=True)
class HistorySettings:
    """The remembered queries."""

    capacity: int = setting(
        20_000, "number of queries remembered; beyond it the oldest is dropped", low=1
    )
    neighbours: int = setting(20, "past queries recalled for each query", low=0, high=1000)
    exact_below: int = setting(30_000, "search exactly while fewer queries are remembered", low=0)


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """The policy that decides, and the parameters that `policies.load` gets."""

    name: str = setting("nested", "the serving policy; `bandit-service policies` lists all")
    parameters: dict[str, Any] = field(
        default_factory=dict, metadata={"rule": Rule("parameters of the policy, a table")}
    )


@dataclass(frozen=True, slots=True)
class ExplorationSettings:
    """Chance, and the probability that every eligible arm keeps."""

    seed: int = setting(0, "seed of every draw", low=0)
    share: float = setting(
        0.02,
        "share of the traffic that explores, spread evenly over all eligible arms",
        low=0,
        high=1,
    )
    floor: float | None = setting(
        None,
        "minimum probability of each eligible arm, instead of exploration.share",
        low=0,
        high=0.5,
    )
    floor_share: float = setting(
        0.1,
        "maximum share that exploration.floor takes for all arms together",
        low=0,
        high=1,
    )


@dataclass(frozen=True, slots=True)
class RewardSettings:
    """reward = quality - cost_usd / willingness_to_pay - latency_weight * latency_s."""

    willingness_to_pay: float = setting(
        0.10,
        "USD that one unit of quality is worth; a query may set its own",
        low=1e-9,
        high=1e6,
    )
    latency_weight: float = setting(
        0.0, "quality that one second of latency costs", low=0, high=100
    )
    ttl_s: float = setting(86_400.0, "how long a decision can be rewarded", low=1)
    session_credit: str = setting(
        "equal",
        "how a reward for a session is credited to its decisions: to all alike, to the last one, "
        "or less to earlier ones (docs/rewards.md)",
        choices=CREDITS,
    )
    session_discount: float = setting(
        0.9,
        "for discounted: the weight of a decision, as a share of the next one's",
        low=0.01,
        high=1,
    )
    on_expiry: str = setting(
        "drop",
        "what an unrewarded decision teaches after ttl_s: nothing, or reward.default",
        choices=("drop", "default"),
    )
    default: float = setting(
        0.0,
        "reward for decisions that were never rewarded, if on_expiry is default",
        low=-1,
        high=1,
    )
    max_pending: int = setting(
        50_000,
        "decisions waiting for a reward, about 5 kB each; beyond it the oldest expires",
        low=1,
    )


@dataclass(frozen=True, slots=True)
class ImplicitSettings:
    """What a client of the gateway does with an answer, taken for a metric that is 0 at best."""

    retry: float = setting(
        0.0,
        "weight of the signal: the same request again after an incomplete answer; 0 turns it off",
        low=0,
        high=100,
    )
    regenerate: float = setting(
        0.0,
        "weight of the signal: the same request again after a complete answer; 0 turns it off",
        low=0,
        high=100,
    )
    edit: float = setting(
        0.0,
        "weight of the signal: the last question replaced by another one; 0 turns it off",
        low=0,
        high=100,
    )
    window_s: float = setting(
        300.0, "how long after a request the next one can be such a signal", low=1, high=86_400
    )


@dataclass(frozen=True, slots=True)
class FeedbackSettings:
    """Signed tokens by which a user may vote on one answer, without an API key."""

    ttl_s: float = setting(
        86_400.0,
        "how long a feedback token is valid; 0 turns tokens off, and their paths answer 404",
        low=0,
        high=31_536_000,
    )
    secret_env: str = setting(
        "",
        "environment variable with the secrets that sign tokens, of at least 32 characters each, "
        "separated by spaces: the first one signs, the others are still valid; empty: the "
        "service creates the file feedback.secret in data_dir",
    )
    rate_per_s: float = setting(
        50.0, "maximum votes per second of all tokens together; beyond it 429", low=0.1, high=1e5
    )


@dataclass(frozen=True, slots=True)
class TextsSettings:
    """Whether questions and answers are kept, in a file of their own (docs/texts.md)."""

    keep: str = setting(
        OFF,
        "which texts are kept, encrypted: none, questions, or both questions and answers; off "
        "deletes all kept texts at startup",
        choices=(OFF, QUESTIONS, BOTH),
    )
    key_env: str = setting(
        "",
        "environment variable with the keys that encrypt texts, each 32 bytes in base64, "
        "separated by spaces: the first one encrypts, all decrypt",
    )
    key_file: str = setting(
        "", "file with these keys, relative to the configuration file, instead of key_env"
    )
    ttl_s: float = setting(
        604_800.0, "how long after its decision a text is kept", low=60, high=31_536_000
    )
    max_rows: int = setting(
        100_000, "keep the texts of this many newest decisions", low=1, high=10_000_000
    )
    max_chars: int = setting(
        8_000, "maximum length of a kept question or answer, in characters", low=1, high=100_000
    )
    redact: tuple[str, ...] = setting(
        tuple(RULES),
        f"what is removed from a text before it is kept: any of {', '.join(RULES)}",
    )
    patterns: tuple[str, ...] = setting(
        (), "regular expressions for anything else to remove, at most 32"
    )
    redact_s: float = setting(
        1.0,
        "maximum CPU seconds to redact one question with its answer; if it takes longer, neither "
        "is kept",
        low=0.01,
        high=60,
    )
    topic_people: int = setting(
        5,
        "how many units must have used a word in questions of a topic before it is shown; four "
        "questions without a unit count as one",
        low=2,
        high=10_000,
    )


@dataclass(frozen=True, slots=True)
class LogSettings:
    """Where events are kept."""

    engine: str = setting(
        DEFAULT,
        "where the log is: in a file of one process, or in PostgreSQL or NATS JetStream, which "
        "several processes share (docs/scale.md)",
        choices=(*ENGINES, "postgres", "jetstream"),
    )
    path: str = setting(
        "events.sqlite3",
        "file of the event log, or of this process' copy of it, relative to data_dir",
    )
    sync_interval_s: float = setting(
        0.5,
        "a power cut loses at most the decisions of this long; acknowledged rewards are never lost",
        low=0.001,
        high=60,
    )
    embeddings: str = setting(
        CODINGS[0],
        "how a decision's embedding is kept; the others than float32 take a half or a quarter of "
        "its bytes, round it before the decision, and leave out the scores (docs/scale.md)",
        choices=CODINGS,
    )
    verify: str = setting(
        "background",
        "which checksums to verify: before serving, all of the log or what comes after the "
        "snapshot (tail); or that, and all the others while serving (background)",
        choices=("all", "background", "tail"),
    )
    max_backlog: int = setting(
        10_000,
        "decisions and costs kept in memory while the disk is full; beyond it the oldest is lost",
        low=0,
    )
    dsn_env: str = setting(
        "",
        "environment variable with the address of the shared log, postgresql:// or nats://",
    )
    dsn_file: str = setting("", "file with that address, relative to the configuration file")
    name: str = setting(
        "main", "name of the log in the database; all replicas of one service share it"
    )
    insecure_single: bool = setting(
        False,
        "whether a JetStream log may have one copy, which is lost with its server; otherwise three",
    )
    spool: str = setting(
        "spool.sqlite3",
        "file of the answered decisions that are not yet in the database, relative to data_dir",
    )
    max_spool: int = setting(
        100_000,
        "maximum number of events that wait for the database; beyond it outcomes are refused and "
        "the oldest decision is lost",
        low=1,
    )
    max_batch: int = setting(
        256, "events in one append to the database; JetStream takes 1000", low=1, high=10_000
    )
    poll_s: float = setting(
        0.005, "how often to read the events of other replicas from the database", low=0.001, high=1
    )
    timeout_s: float = setting(
        3.0, "timeout of a call to the database; it is then retried", low=0.1, high=60
    )
    park_s: float = setting(
        2.0,
        "how long an outcome waits for its decision from another replica; then 503",
        low=0,
        high=60,
    )
    max_parked: int = setting(
        10_000, "maximum number of outcomes that wait for a decision; beyond it 503", low=0
    )
    after_wait_s: float = setting(
        1.0,
        "how long a request with x-bandit-after waits until this replica has applied that offset; "
        "then 503",
        low=0,
        high=60,
    )
    share_snapshots: bool = setting(
        True,
        "whether one replica also stores its snapshots in the database, so that a new replica "
        "starts from them",
    )
    digest_every: int = setting(
        100_000,
        "replicas compare the digests of their states after this many events; 0: never",
        low=0,
    )
    lost_after_s: float = setting(
        600.0,
        "how long decisions of a killed replica may still arrive: an unknown id gets 503 instead "
        "of 404 meanwhile, and its part of a budget stays reserved",
        low=1,
    )
    replica_ttl_s: float = setting(
        5.0,
        "a replica without a sign of life for this long cannot append until it joins again",
        low=1,
    )
    lease_ttl_s: float = setting(
        3.0,
        "after this time without a sign of life of the keeper, another replica takes over its "
        "tasks",
        low=2,
    )
    max_skew_s: float = setting(
        0.5,
        "maximum difference between the clocks of this machine and the database",
        low=0.01,
        high=2.0,
    )

    @property
    def shared(self) -> bool:
        """Whether several processes share the log; otherwise this process has it for itself."""
        return self.engine not in ENGINES


@dataclass(frozen=True, slots=True)
class SnapshotSettings:
    """Folded state next to the log, from which a restart continues."""

    directory: str = setting("snapshots", "directory of the snapshots, relative to data_dir")
    every_events: int = setting(20_000, "make a snapshot after this many events", low=100)
    every_s: float = setting(
        900.0, "make a snapshot after this many seconds, if there were new events", low=1
    )
    keep: int = setting(3, "number of snapshots to keep", low=1, high=100)
    stalled_s: float = setting(
        60.0,
        "kill a child process that makes no progress (a step is some hundred events) for this long",
        low=1,
    )


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    """How much of the log is kept behind the oldest snapshot; 0 keeps everything."""

    max_age_s: float = setting(0.0, "delete events older than this; 0 keeps them", low=0)
    max_bytes: int = setting(0, "delete the oldest events beyond this size; 0: no limit", low=0)


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """How requests of OpenAI's wire format are carried out; `[[upstreams]]` are the providers."""

    attempts: int = setting(3, "maximum number of arms tried for one request", low=1, high=20)
    max_calls: int = setting(
        20,
        "maximum number of provider calls for one request, over all arms and deployments",
        low=1,
        high=1000,
    )
    request_s: float = setting(
        600.0,
        "time limit for all provider calls of one request together; a call that still runs then is "
        "cut off",
        low=0.1,
        high=86_400,
    )
    failure_quality: float = setting(
        0.0, "quality that an arm gets for a failed answer", low=0, high=1
    )
    latency_signal: str = setting(
        "total",
        "what latency_s measures: the whole answer, its first token, or the whole divided by "
        "its tokens",
        choices=("total", "first_token", "per_token"),
    )
    sticky: bool = setting(
        True, "include the cost of a switch, so that a conversation keeps its arm while that pays"
    )
    sticky_s: float = setting(
        3600.0, "a conversation without a request for this long starts over", low=1, high=86_400
    )
    max_body_bytes: int = setting(
        33_554_432, "largest request body on the gateway's paths, images included", low=1024
    )
    max_body_parts: int = setting(
        100_000,
        "maximum number of lists and objects in such a body; ten other values count as one",
        low=100,
    )
    max_answer_bytes: int = setting(
        33_554_432, "largest answer of a provider, and largest event of a stream", low=1024
    )
    max_header_bytes: int = setting(
        65_536, "longest line in the head of a provider's answer", low=1024, high=1_048_576
    )
    keep_alive_s: float = setting(
        15.0,
        "send the client of a stream a comment after this long without data; 0: none",
        low=0,
        high=3600,
    )
    verdict_s: float = setting(
        1.0,
        "maximum CPU seconds of a judge's pattern or schema for one answer",
        low=0.01,
        high=60,
    )
    breaker_failures: int = setting(3, "failures in a row after which an arm is masked", low=1)
    breaker_cool_s: float = setting(
        5.0, "how long an arm is masked at first; doubles with each failed probe", low=0.01
    )


@dataclass(frozen=True, slots=True)
class DuelSettings:
    """A second arm answers too, and the two answers are compared; the user gets the first."""

    share: float = setting(
        0.0, "share of the routed answers that a second arm answers too", low=0, high=1
    )
    judge: str = setting(
        "", "id of the judge that compares the answers; empty leaves it to the user"
    )
    keep_s: float = setting(
        600.0, "how long GET /v1/duels can return both answers", low=0, high=86_400
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


@dataclass(frozen=True, slots=True)
class DriftSettings:
    """What watches for arms and queries that change, and what follows from an alarm."""

    enabled: bool = setting(True, "detect drift")
    adwin_delta: float = setting(
        0.002, "ADWIN's delta; lower values give fewer and later alarms", low=1e-9, high=0.5
    )
    page_hinkley_threshold: float = setting(
        20.0,
        "Page-Hinkley's threshold; higher values give fewer and later alarms",
        low=1.0,
        high=1e6,
    )
    page_hinkley_delta: float = setting(
        0.05, "Page-Hinkley ignores changes of the mean smaller than this", low=0, high=1
    )
    keep: float | None = setting(
        None,
        "share of what a policy learned of an arm that stays after the arm's alarm, for "
        "policies without their own alarm; 1 forgets nothing, null means 0.1",
        low=0.01,
        high=1,
    )
    explore: float = setting(
        0.0,
        "minimum probability of an arm after its alarm, and of all arms after an alarm of the"
        " queries; 0 adds nothing",
        low=0,
        high=0.5,
    )
    explore_decisions: int = setting(
        1000, "number of decisions for which drift.explore holds", low=1, high=1_000_000
    )


@dataclass(frozen=True, slots=True)
class ExperimentSettings:
    """What stands over all experiments, and how often they are looked at."""

    stopped: bool = setting(False, "kill switch: no unit is in any experiment")
    holdout_share: float = setting(
        0.0, "share of the units that always get holdout_arm", low=0.0, high=0.5
    )
    holdout_arm: str = setting("", "the arm of held-out units")
    unit: str = setting("user", "unit that is held out", choices=("user", "tenant"))
    salt: str = setting("holdout", "salt of the hold-out; another salt holds out other units")
    steer_s: float = setting(
        5.0, "seconds between two checks of guardrails, ramps and weights", low=0.1, high=3600.0
    )
    whatif_s: float = setting(
        300.0, "maximum seconds of one off-policy evaluation", low=1.0, high=86400.0
    )
