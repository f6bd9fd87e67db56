"""BERT's tokens by our own code are those of the package `tokenizers`."""

from __future__ import annotations

import copy
import importlib.util
import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from bandit_service.embedding import ModelUnavailable, models
from bandit_service.embedding.wordpiece import NotBert, WordPiece

DIRECTORY = models.directory_of("all-MiniLM-L6-v2")
DESCRIBED: dict[str, Any] = json.loads((DIRECTORY / "tokenizer.json").read_text("utf-8"))
OURS = WordPiece(DESCRIBED, 64)
THEIRS = Tokenizer.from_file(str(DIRECTORY / "tokenizer.json"))
THEIRS.enable_truncation(64)
THEIRS.no_padding()
_YOUNG = {"Mn", "Po", "Cf", "Ps", "Pe", "Pd", "So", "Mc"}
"""What a character is that `tokenizers` does not know yet: its tables are those of Unicode 8."""


@given(st.text(st.characters(max_codepoint=0x24F, exclude_categories=["Cs"]), max_size=200))
def test_latin_texts_have_the_same_tokens(text: str) -> None:
    assert OURS.encode(text) == THEIRS.encode(text).ids


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "Héllo, WORLD!", "don't [SEP] stop [MASK]now", "İstanbul ΣΑΣ",
        "日本語 text 한국어",
        "a" * 101, "a" * 100, "tab\tnew\nline\r\x00\x85\x1f\ufffd",
        "fl\ufb01 ﬀ Ⅻ ①", "👩‍👩‍👧 ok", "naïve\u0301",
        "word " * 400, "x = y**2; // ~`^$", "[sep] [CLS][CLS]", "\u3000wide\u2028line",
    ],
)  # fmt: skip
def test_odd_texts_have_the_same_tokens(text: str) -> None:
    assert OURS.encode(text) == THEIRS.encode(text).ids


def test_nothing_of_a_text_is_kept() -> None:
    """Neither its words, which would outlive an erasure, nor every character that there is."""
    ours = WordPiece(DESCRIBED, 64)
    before = copy.deepcopy(vars(ours))
    ours.encode("my password is hunter2-xyzzy")
    for code in range(0x10000, 0x10000 + 20_000):
        ours.encode(chr(code))
    after = vars(ours)
    characters, first = after.pop("_characters"), before.pop("_characters")
    assert after == before
    assert all(isinstance(code, int) for code in characters)
    assert len(first) < len(characters) <= 10_000


def test_every_character_of_the_first_plane_is_taken_alike_or_is_younger_than_unicode_8() -> None:
    codes = [code for code in range(0x10000) if not 0xD800 <= code < 0xE000]
    texts = [f"a{chr(code)}b {chr(code)}" for code in codes]
    theirs = THEIRS.encode_batch(texts)
    other = [
        code
        for code, text, them in zip(codes, texts, theirs, strict=True)
        if OURS.encode(text) != them.ids
    ]
    assert len(other) < 300
    assert {unicodedata.category(chr(code)) for code in other} <= _YOUNG
    assert min(other) > 0x600


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("model", {"type": "BPE"}, "model is BPE, not WordPiece"),
        ("normalizer", None, "normalizer is None, not BertNormalizer"),
        ("pre_tokenizer", {"type": "Metaspace"}, "pre_tokenizer is Metaspace"),
        ("post_processor", {"type": "ByteLevel"}, "post_processor is ByteLevel"),
        ("added_tokens", [{"id": 1, "content": "x", "lstrip": True}], "'x' is looked for"),
    ],
)
def test_another_kind_is_no_berts(part: str, value: object, said: str) -> None:
    with pytest.raises(NotBert, match=said):
        WordPiece(DESCRIBED | {part: value}, 64)


def test_another_kind_takes_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(DESCRIBED | {"normalizer": None}))
    theirs = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    theirs.no_padding()
    text = "lower UPPER"
    assert models.tokenizer_of(tmp_path).encode(text) == theirs.encode(text).ids
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModelUnavailable, match="needs the package tokenizers; run: pip install"):
        models.tokenizer_of(tmp_path)


def test_a_broken_tokenizer_is_refused(tmp_path: Path) -> None:
    for broken in ({**DESCRIBED, "model": {"type": "WordPiece"}}, {**DESCRIBED, "normalizer": "x"}):
        (tmp_path / "tokenizer.json").write_text(json.dumps(broken))
        with pytest.raises(ModelUnavailable, match="is no tokenizer"):
            models.tokenizer_of(tmp_path)
