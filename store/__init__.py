"""Keeps bytes in order and vectors in reach; knows no bandit."""

from store._engines import ENGINES, open_log, open_to_read
from store._mark import read as synced
from store._protocols import (
    START,
    Erasable,
    EventLog,
    HistoryIndex,
    Neighbours,
    Offset,
    Record,
    Snapshots,
    Trimmable,
    can_erase,
    can_trim,
    first_of,
)
from store.errors import (
    Closed,
    Corrupt,
    Duplicate,
    Full,
    Locked,
    StoreError,
    Trimmed,
    Unsupported,
    WrongFormat,
)

__distribution__ = "bandit-service"

__all__ = [
    "ENGINES",
    "START",
    "Closed",
    "Corrupt",
    "Duplicate",
    "Erasable",
    "EventLog",
    "Full",
    "HistoryIndex",
    "Locked",
    "Neighbours",
    "Offset",
    "Record",
    "Snapshots",
    "StoreError",
    "Trimmable",
    "Trimmed",
    "Unsupported",
    "WrongFormat",
    "can_erase",
    "can_trim",
    "first_of",
    "open_log",
    "open_to_read",
    "synced",
]
