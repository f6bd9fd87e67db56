"""The errors of a store, and what to do next."""

from __future__ import annotations


class StoreError(Exception):
    """A store could not do a request."""


class Absent(StoreError):
    """There is no log to read; nothing was created in its place."""

    def __init__(self, path: object) -> None:
        super().__init__(f"there is no log at {path}")


class Duplicate(StoreError):
    """A record with this id is already there; nothing was written."""

    def __init__(self, eid: str) -> None:
        super().__init__(f"a record with id {eid!r} is already in the log; nothing was written")
        self.eid = eid


class Corrupt(StoreError):
    """The log is damaged; `offset` is the first damaged record."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(
            f"the log is damaged at offset {offset}: {reason}; run `bandit-service inspect "
            "--repair` to save what can be read, or restore a backup"
        )
        self.offset = offset
        self.reason = reason


class Trimmed(StoreError):
    """Requested records have been trimmed; `first` is the oldest one kept."""

    def __init__(self, after: int, first: int) -> None:
        super().__init__(
            f"records after offset {after} were requested, but the log begins at offset {first}; "
            "older records were deleted"
        )
        self.after = after
        self.first = first


class Unsupported(StoreError):
    """The log's backend does not support this; nothing was changed."""

    def __init__(self, log: object, what: str) -> None:
        super().__init__(f"the event log ({type(log).__name__}) cannot {what}")


class WrongFormat(StoreError):
    """The log was written by another version; it is undamaged and unchanged."""

    def __init__(self, path: object, found: object, known: int) -> None:
        super().__init__(
            f"{path} has format {found}, this version reads {known}; use the version that wrote it"
        )


class Locked(StoreError):
    """Another process has the log open."""

    def __init__(self, path: object) -> None:
        super().__init__(
            f"{path} is open in another process; stop that process, or use another file"
        )


class Full(StoreError):
    """The disk is full or not writable; nothing was written, and a later try may succeed."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}; nothing was written; make space, or make the file writable")


class Closed(StoreError):
    """The log is closed, or broken by a failed sync: open it again."""

    def __init__(self, why: str = "the log is closed; open it again") -> None:
        super().__init__(why)
