"""A replica's own record: its name, and a place where its copy equals the log."""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from store import Offset, StoreError


@dataclass(frozen=True, slots=True)
class Place:
    """An offset where an append ended, and the chain of the log up to there, in hex."""

    offset: int = 0
    chain: str = ""


class Checkpoint:
    """A small file beside the copy. A lost one costs a comparison of the whole copy.

    erased: up to this offset the orders of erasures are carried out in the copy. ordered: up to
    this offset records are erased by them, so an older snapshot is not to be kept.
    """

    def __init__(self, path: Path, log: str) -> None:
        self._path, self._log = path, log
        self.name, self.place = str(uuid.uuid4()), Place()
        self.erased = self.ordered = 0
        if path.exists():
            self._read()
        self._written = self.place
        self.write()

    def _read(self) -> None:
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            self.name, of = str(found["name"]), str(found["log"])
            self.place = Place(int(found["place"]["offset"]), str(found["place"]["chain"]))
            self.erased = int(found.get("erased", 0))
            self.ordered = int(found.get("ordered", 0))
        except (ValueError, LookupError, TypeError):
            return  # like a lost one
        if of != self._log:
            raise StoreError(
                f"{self._path} is of the log {of!r}, and log.name is {self._log!r}; "
                "use another data_dir"
            )

    def found(self, last: Offset) -> None:
        """The copy as it was found ends here: an older one was put there if orders come after it,
        which have to be carried out again.
        """
        if last < self.erased:
            self.erased = int(last)
            self.write()

    def save(self, place: Place) -> None:
        """Write it, if it has changed."""
        if place != self._written:
            self.place = place
            self.write()

    def write(self) -> None:
        """A reader finds the earlier file or this one."""
        partial = self._path.with_name(self._path.name + ".partial")
        text = json.dumps(
            {
                "name": self.name,
                "log": self._log,
                "place": asdict(self.place),
                "erased": self.erased,
                "ordered": self.ordered,
            }
        )
        partial.write_text(text, encoding="utf-8")
        partial.rename(self._path)
        self._written = self.place
