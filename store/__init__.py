"""Keeps bytes in order and vectors in reach; knows no bandit."""

from store._engines import ENGINES, open_log
from store._mark import read as synced
from store._protocols import (
    START,
    EventLog,
    HistoryIndex,
    Neighbours,
    Offset,
    Record,
    Snapshots,
)
from store.errors import Closed, Corrupt, Duplicate, Full, Locked, StoreError, Trimmed, WrongFormat

__distribution__ = "bandit-service"

__all__ = [
    "ENGINES",
    "START",
    "Closed",
    "Corrupt",
    "Duplicate",
    "EventLog",
    "Full",
    "HistoryIndex",
    "Locked",
    "Neighbours",
    "Offset",
    "Record",
    "Snapshots",
    "StoreError",
    "Trimmed",
    "WrongFormat",
    "open_log",
    "synced",
]
