"""What the command line does where the terminal, the pipe or the spelling is not as it hopes."""

from __future__ import annotations

import argparse
import os
import re
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

from bandit_service.parsing.suggestions import did_you_mean


def kept(run: Callable[[], int]) -> int:
    """The result of `run`, on any terminal; 0 without a message if the reader of the pipe has left.

    A character that the terminal lacks becomes a question mark. A closed stream accepts what is
    written to it, and drops it.
    """
    _lend()
    try:
        try:
            return run()
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
    except BrokenPipeError:
        if not reader_left():
            raise
        return 0


def reader_left() -> bool:
    """Whether nobody reads stdout or stderr any more, so that a broken pipe is no mistake."""
    return any(_left(stream) for stream in (sys.stdout, sys.stderr))


def _lend() -> None:
    """Streams that take every sign."""
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if stream is None:
            nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - till the end
            setattr(sys, name, nowhere)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _left(stream: TextIO) -> bool:
    """Whether the reader of this stream has left; the remaining output is then dropped."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):  # it is no file, or closed
        return False
    asked = select.poll()
    asked.register(number, 0)
    if not any(events & select.POLLERR for _, events in asked.poll(0)):
        return False
    drain = os.open(os.devnull, os.O_WRONLY)
    os.dup2(drain, number)  # or Python tells of it when it ends
    os.close(drain)
    return True


class Parser(argparse.ArgumentParser):
    """A parser that says which word was meant."""

    def error(self, message: str) -> NoReturn:
        """Exit with 2, and suggest the closest word."""
        choice = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)$", message)
        if choice is not None:
            known = [each.strip("' ") for each in choice[2].split(",")]
            message += did_you_mean(choice[1], known)
        elif message.startswith("unrecognized arguments: "):
            word = message.partition(": ")[2].split()[0].partition("=")[0]
            message += did_you_mean(word, self._options()) if word.startswith("-") else ""
        super().error(message)

    def _options(self) -> list[str]:
        """The options of the command that was given, or of all."""
        chosen = list(_chosen(self, sys.argv[1:]))
        return [name for parser in chosen for name in parser._option_string_actions]


def _chosen(parser: argparse.ArgumentParser, words: Sequence[str]) -> Iterator[Any]:
    """The parser, and those of the commands among the words."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for i, word in enumerate(words):
                if word in action.choices:
                    yield from _chosen(action.choices[word], words[i + 1 :])
                    return
