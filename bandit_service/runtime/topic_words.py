"""Topics of questions: clusters of their embeddings, and the words that tell them apart.

`python -m bandit_service.runtime.topic_words` is the child (`runtime.bounded_child`): the service
sends `Asked`, the child answers `Found`. The same questions give the same topics: nothing is drawn.

A word is shown only if enough people used it in questions of the topic, so that nobody's question
can be read from words that are theirs alone. A unit is a person. Of questions without a unit nobody
knows how many people asked them, so `ANONYMOUS` of them count as one.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from bandit_service.runtime.bounded_child import serve
from bandit_service.runtime.redaction import OTHER
from bandit_service.settings.texts import RULES

FEWEST = 40
"""Questions without which there are no topics."""
MOST = 10
"""Topics: as many as there are colours that can be told apart."""
ANONYMOUS = 4
WORDS = 5
MAX_CHARS = 2_000
"""Of a question more is not looked at."""
_EACH = 30
"""Questions that a topic has in the mean, as long as there are fewer than `MOST` of them."""
_LIFT = 1.5
"""How many times as frequent as in all questions a word must be in the topic."""
_STARTS, _ROUNDS = 4, 25
_GOLDEN = 0.6180339887498949
_WORD = re.compile(r"(?<![^\W\d_])[^\W\d_]{3,24}(?![^\W\d_])")
_COMMON = frozenset({
    "about", "and", "any", "are", "but", "can", "did", "does", "for", "from", "had", "has",
    "have", "how", "into", "its", "not", "our", "that", "the", "their", "them", "then", "there",
    "these", "they", "this", "was", "were", "what", "when", "where", "which", "who", "why",
    "will", "with", "would", "you", "your",
})  # fmt: skip
"""Words of English that tell nothing. Those of other languages are found by their frequency."""
_TAKEN_OUT = re.compile(rf"\[(?:{'|'.join((*RULES, OTHER))})\]")
_ROLE = re.compile(r"^(?:system|developer|user|assistant|tool): ", re.MULTILINE)

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.intp]


class Asked(msgspec.Struct, frozen=True):
    """Questions, redacted. vectors: (n, d) float32, each of norm 1. owners: whose each is, "" where
    nobody knows. people: how many must have used a word. centres: (k, d), to begin with; empty
    for a beginning from nothing.
    """

    vectors: bytes
    texts: tuple[str, ...]
    owners: tuple[str, ...]
    people: int
    centres: bytes = b""


class Topic(msgspec.Struct, frozen=True):
    """One cluster. words: the most telling ones first. units: how many it has questions of."""

    words: tuple[str, ...]
    questions: int
    units: int


class Found(msgspec.Struct, frozen=True):
    """The topics, and (k, d) float32, where they are."""

    topics: tuple[Topic, ...]
    centres: bytes


def found(asked: Asked) -> Found:
    """The topics of some questions."""
    n = len(asked.texts)
    vectors = np.frombuffer(asked.vectors, "<f4").reshape(n, -1)
    d = vectors.shape[1]
    given = np.frombuffer(asked.centres, "<f4").reshape(-1, d)
    k = max(2, min(MOST, n // _EACH))
    centres, of = clusters(vectors, k, given if len(given) == k else None)
    words = words_of([words_in(text) for text in asked.texts], of, asked.owners, k, asked.people)
    topics = tuple(
        Topic(
            words=words[topic],
            questions=int((of == topic).sum()),
            units=len({asked.owners[i] for i in np.flatnonzero(of == topic)} - {""}),
        )
        for topic in range(k)
    )
    return Found(topics, centres.tobytes())


def clusters(vectors: Floats, k: int, begin: Floats | None = None) -> tuple[Floats, Rows]:
    """(k, d) centres of norm 1, and (n,) the nearest of each vector. Spherical k-means.

    The best of some beginnings, each by k-means++ with the fractions of multiples of the golden
    ratio as its numbers; with `begin` that alone, so that the topics keep their numbers.

    >>> centres, of = clusters(np.array([[1, 0], [0, 1], [1, 0.0]], np.float32), 2)
    >>> bool(of[0] == of[2] != of[1])
    True
    """
    begun = [begin] if begin is not None else [_spread(vectors, k, i) for i in range(_STARTS)]
    tried = [_settled(vectors, each) for each in begun]
    centres, of, _ = max(tried, key=lambda one: one[2])
    if begin is None:  # the largest first
        order = np.argsort(-np.bincount(of, minlength=k), kind="stable")
        centres, of = centres[order], np.argsort(order)[of]
    return centres, of


def _spread(vectors: Floats, k: int, start: int) -> Floats:
    """(k, d) vectors far from each other: each chosen in proportion to its squared distance."""
    chosen = [int(len(vectors) * _fraction(start + 1))]
    far = 1.0 - vectors @ vectors[chosen[0]]
    for i in range(1, k):
        heights = np.cumsum(np.maximum(far, 0.0), dtype=np.float64)
        at = np.searchsorted(heights, heights[-1] * _fraction(start + 1 + i * _STARTS), "right")
        chosen.append(min(int(at), len(vectors) - 1))
        far = np.minimum(far, 1.0 - vectors @ vectors[chosen[-1]])
    return vectors[chosen]


def _settled(vectors: Floats, centres: Floats) -> tuple[Floats, Rows, float]:
    """The centres once they move no more, the nearest of each vector, and the sum of cosines."""
    of = np.argmax(vectors @ centres.T, axis=1)
    for _ in range(_ROUNDS):
        sums = np.zeros_like(centres)
        np.add.at(sums, of, vectors)
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(norms > 0.0, sums / np.maximum(norms, 1e-12), centres)
        before, of = of, np.argmax(vectors @ centres.T, axis=1)
        if (of == before).all():
            break
    return centres, of, float((vectors * centres[of]).sum(dtype=np.float64))


def _fraction(i: int) -> float:
    return (i * _GOLDEN) % 1.0


def words_in(text: str) -> set[str]:
    """Its words, without what a rule put in the place of something, and without numbers.

    >>> sorted(words_in("user: Mail [email] the INVOICE 4711 of May, may I?"))
    ['invoice', 'mail', 'may']
    """
    plain = _TAKEN_OUT.sub(" ", _ROLE.sub("", text[:MAX_CHARS]))
    return set(_WORD.findall(plain.lower())) - _COMMON


def words_of(
    said: Sequence[set[str]], of: Rows, owners: Sequence[str], k: int, people: int
) -> list[tuple[str, ...]]:
    """The most telling words of each topic, by class-based TF-IDF: (tf / n) · log(1 + A / f).

    tf: questions of the topic with the word, of n; f: of all; A: words that a topic has in the
    mean. Source: Grootendorst (2022), arXiv 2203.05794; a question counts a word once.
    """
    inside: list[Counter[str]] = [Counter() for _ in range(k)]
    for words, topic in zip(said, of, strict=True):
        inside[topic].update(words)
    overall: Counter[str] = sum(inside, Counter())
    mean, sizes = overall.total() / k, np.bincount(of, minlength=k)
    told = []
    for topic, counts in enumerate(inside):
        n = int(sizes[topic])
        score = {
            word: tf / n * math.log1p(mean / overall[word])
            for word, tf in counts.items()
            if tf >= people and tf / n >= _LIFT * overall[word] / len(said)
        }
        asked_by = _people(said, np.flatnonzero(of == topic), owners, score)
        ranked = sorted(score, key=lambda word: (-score[word], word))
        told.append(tuple(word for word in ranked if asked_by[word] >= people)[:WORDS])
    return told


def _people(
    said: Sequence[set[str]], rows: Rows, owners: Sequence[str], wanted: dict[str, float]
) -> dict[str, int]:
    """How many people used each of these words in these questions."""
    units: dict[str, set[str]] = {word: set() for word in wanted}
    nobodys: Counter[str] = Counter()
    for row in rows:
        for word in said[row] & wanted.keys():
            if owner := owners[row]:
                units[word].add(owner)
            else:
                nobodys[word] += 1
    return {word: len(units[word]) + nobodys[word] // ANONYMOUS for word in wanted}


def _answer(body: bytes) -> bytes:
    return msgspec.msgpack.encode(found(msgspec.msgpack.decode(body, type=Asked)))


if __name__ == "__main__":
    serve(_answer)
