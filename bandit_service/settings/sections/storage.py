"""[log], [snapshots], [retention] and [texts]: what is kept, where, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

from bandit_service.core.vector_bytes import CODINGS
from bandit_service.settings.rule import setting
from bandit_service.settings.texts import BOTH, OFF, QUESTIONS, RULES
from store import DEFAULT, ENGINES


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
