"""Embedding backends beside sentence-transformers in float32: speed, and whose neighbours agree.

    python -m loadtest.bench.embed [--data FILE] [--limit N] [--json]

agreement@20: of the 20 nearest neighbours of a text among all texts by the baseline's embeddings,
the mean share that the backend's embeddings keep.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bandit_service.data.recordings import BadRecording, open_recording
from bandit_service.embedding import Backend, EmbeddingStage, ModelUnavailable, open_backend
from loadtest.bench.tables import show
from loadtest.bench.world import percentiles
from policies import Vector

NEIGHBOURS = 20


def neighbours_of(embeddings: Vector) -> list[set[int]]:
    """The 20 nearest of each text among the others."""
    similarity = embeddings @ embeddings.T
    np.fill_diagonal(similarity, -2.0)
    nearest = np.argpartition(-similarity, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    return [set(row.tolist()) for row in nearest]


def embed(backend: Backend, texts: Sequence[str]) -> Vector:
    """All texts, with a progress bar."""
    bar = tqdm(range(0, len(texts), 32), desc=f"{backend.name} embeds", disable=None, leave=False)
    return np.concatenate([backend.encode(texts[i : i + 32]) for i in bar])


async def stage_overhead_us(backend: Backend, texts: Sequence[str]) -> float:
    """What the stage adds to a bare call at concurrency 1, median of the differences."""
    stage = EmbeddingStage(backend, cache_size=0)
    added = []
    for text in texts:
        begun = time.perf_counter()
        backend.encode([text])
        bare = time.perf_counter()
        await stage.embed_one(text)
        added.append((time.perf_counter() - bare) - (bare - begun))
    await stage.close()
    return float(np.median(added)) * 1e6


def measure(backend: Backend, texts: Sequence[str], short: Sequence[str]) -> dict[str, Any]:
    """The speed of one backend."""
    for text in short[:10]:
        backend.encode([text])
    singly = []
    for text in short:
        begun = time.perf_counter()
        backend.encode([text])
        singly.append(time.perf_counter() - begun)
    begun = time.perf_counter()
    batches = range(0, min(len(texts), 320), 32)
    for i in batches:
        backend.encode(texts[i : i + 32])
    seconds = time.perf_counter() - begun
    return {
        "backend": backend.name,
        "d": backend.dim,
        **{f"{k} ms": v for k, v in percentiles(singly, 1e3).items()},
        "texts/s in batches of 32": 32 * len(batches) / seconds,
        "stage adds us": asyncio.run(stage_overhead_us(backend, short[:100])),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every backend that can be opened and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", default="paretobandit", help="recorded traffic, for its texts")
    parser.add_argument("--limit", type=int, default=3000, help="texts compared")
    parser.add_argument("--threads", type=int, default=1, help="threads of one call")
    parser.add_argument("--json", action="store_true", help="for machines")
    args = parser.parse_args(argv)
    try:
        texts = list(dict.fromkeys(open_recording(args.data).texts))[: args.limit]
    except BadRecording as error:
        print(f"bench_embed: {error}", file=sys.stderr)
        return 2
    short = [text for text in texts if 12 <= len(text.split()) <= 28][:300]
    if len(texts) <= NEIGHBOURS or len(short) < 20:
        print(
            "bench_embed: too few texts, 20 of them with 12 to 28 words are needed", file=sys.stderr
        )
        return 2
    rows: list[dict[str, Any]] = []
    baseline: list[set[int]] | None = None
    for name in ("torch", "onnx", "static"):
        try:
            backend = open_backend(name, "all-MiniLM-L6-v2", Path("var/models"), args.threads)
        except ModelUnavailable as error:
            print(f"{name}: left out: {error}", file=sys.stderr)
            continue
        nearest = neighbours_of(embed(backend, texts))
        baseline = baseline or nearest
        same = [len(a & b) / NEIGHBOURS for a, b in zip(baseline, nearest, strict=True)]
        row = measure(backend, texts, short) | {"agreement@20": float(np.mean(same))}
        row["x baseline p50"] = row["p50 ms"] / (rows[0]["p50 ms"] if rows else row["p50 ms"])
        rows.append(row)
    title = (
        f"{len(texts)} texts of {args.data}, single calls on {len(short)} of 12 to 28 words; "
        f"baseline: {rows[0]['backend']}"
    )
    print(
        json.dumps({"title": title, "rows": rows}) if args.json else f"### {title}\n\n{show(rows)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
