"""BERT's tokenizer, of a `tokenizer.json`: words, and their longest known pieces.

Devlin et al. 2018 (arXiv 1810.04805), section 3; WordPiece, Wu et al. 2016 (arXiv 1609.08144). The
ids are those of the package `tokenizers`, which a test compares; that package brings a client of a
model hub with its dependencies. Its tables are those of Unicode 8: 503 characters that are younger,
most of them marks of rare scripts, are another thing to it.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

_CHARACTERS = 10_000
_IDEOGRAPHS = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip


class NotBert(Exception):
    """A tokenizer.json of another kind; the message names the part."""


class WordPiece:
    """`encode` gives the ids of a text, [CLS] and [SEP] among them, at most `most` of them.

    Linear in the text, of which nothing is kept. NotBert for a tokenizer of another kind.
    """

    def __init__(self, described: dict[str, Any], most: int) -> None:
        model, cleaning = described.get("model") or {}, described.get("normalizer") or {}
        cutting, adding = (described.get(k) or {} for k in ("pre_tokenizer", "post_processor"))
        for part, found, wanted in (
            ("model", model, "WordPiece"),
            ("normalizer", cleaning, "BertNormalizer"),
            ("pre_tokenizer", cutting, "BertPreTokenizer"),
        ):
            if found.get("type") != wanted:
                raise NotBert(f"{part} is {found.get('type')}, not {wanted}")
        self.most = most
        self._vocabulary: dict[str, int] = model["vocab"]
        self._unknown = [self._vocabulary[model["unk_token"]]]
        self._prefix: str = model["continuing_subword_prefix"]
        self._longest = int(model["max_input_chars_per_word"])
        self._first, self._last = _around(adding)
        self._special = _special(described.get("added_tokens") or [])
        marks = [re.escape(mark) for mark in sorted(self._special, key=len, reverse=True)]
        self._split = re.compile(f"({'|'.join(marks)})") if marks else None
        self._characters = _Characters(cleaning)

    def encode(self, text: str) -> list[int]:
        """The ids of the beginning of a text, as many as are read."""
        room = self.most - len(self._first) - len(self._last)
        ids: list[int] = []
        for part in self._split.split(text) if self._split else (text,):
            if part in self._special:
                ids.append(self._special[part])
            else:
                for word in part.translate(self._characters).split(" "):
                    if word:
                        whole = self._vocabulary.get(word)
                        if whole is None or len(word) > self._longest:
                            ids += self._pieces(word)
                        else:
                            ids.append(whole)
                    if len(ids) >= room:
                        break
            if len(ids) >= room:
                break
        return [*self._first, *ids[:room], *self._last]

    def _pieces(self, word: str) -> list[int]:
        """The longest known beginning, then that of the rest, and so on; one unknown otherwise."""
        pieces: list[int] = []
        at, end = 0, len(word)
        if end > self._longest:
            return self._unknown
        while at < end:
            for to in range(end, at, -1):
                piece = word[at:to] if at == 0 else self._prefix + word[at:to]
                if piece in self._vocabulary:
                    pieces.append(self._vocabulary[piece])
                    at = to
                    break
            else:
                pieces = self._unknown
                break
        return pieces


class _Characters(dict[int, str]):
    """What becomes of each character: nothing, a space, a word of its own, or lower case.

    The first 10,000 that are met are kept: a language has fewer, and Unicode a million.
    """

    def __init__(self, cleaning: dict[str, Any]) -> None:
        super().__init__()
        self._clean = bool(cleaning.get("clean_text", True))
        self._ideographs = bool(cleaning.get("handle_chinese_chars", True))
        self._lower = bool(cleaning.get("lowercase", True))
        bare = cleaning.get("strip_accents")
        self._bare = self._lower if bare is None else bool(bare)

    def __missing__(self, code: int) -> str:
        made = self._made(chr(code))
        if len(self) < _CHARACTERS:
            self[code] = made
        return made

    def _made(self, character: str) -> str:
        code, made = ord(character), character
        if self._clean and _control(character):
            return ""
        if self._bare:
            made = unicodedata.normalize("NFD", made)
            made = "".join(c for c in made if unicodedata.category(c) != "Mn")
        if self._lower:
            made = "".join(c.lower() for c in made)
        made = "".join(" " if c.isspace() else f" {c} " if _mark(c) else c for c in made)
        alone = self._ideographs and any(a <= code <= b for a, b in _IDEOGRAPHS)
        return f" {made} " if alone else made


def _control(character: str) -> bool:
    if character in "\t\n\r":
        return False
    return character in "\0\ufffd" or unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs")


def _mark(character: str) -> bool:
    """Punctuation, and of ASCII every character that is no letter, digit or space."""
    if character.isascii():
        return character.isprintable() and not character.isalnum() and character != " "
    return unicodedata.category(character).startswith("P")


def _around(adding: dict[str, Any]) -> tuple[list[int], list[int]]:
    """The ids before and after a text's own."""
    kind = adding.get("type")
    if kind == "BertProcessing":
        return [int(adding["cls"][1])], [int(adding["sep"][1])]
    if kind != "TemplateProcessing":
        raise NotBert(f"post_processor is {kind}, not TemplateProcessing or BertProcessing")
    sides: tuple[list[int], list[int]] = ([], [])
    after = False
    for part in adding["single"]:
        if "Sequence" in part:
            after = True
        else:
            sides[after].extend(adding["special_tokens"][part["SpecialToken"]["id"]]["ids"])
    return sides


def _special(added: list[dict[str, Any]]) -> dict[str, int]:
    """Tokens that are looked for in the text as it is, before anything else."""
    for token in added:
        if any(token.get(key) for key in ("single_word", "lstrip", "rstrip", "normalized")):
            raise NotBert(f"added_tokens: {token.get('content')!r} is looked for in another way")
    return {token["content"]: int(token["id"]) for token in added}
