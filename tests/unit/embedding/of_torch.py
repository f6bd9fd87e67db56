"""What is computed with torch or a whole model, in a process of its own (`tests.apart`)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bandit_service.embedding import Backend, bert_graph, export, models, open_backend
from tests.apart import Run


class Torch:
    """The backend, which runs there."""

    name = "torch"

    def __init__(self, run: Run, model: str) -> None:
        self._run, self._model = run, model
        self.dim = run(_dim, model)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See Backend."""
        return self._run(_encoded, self._model, list(texts))


@cache
def _opened(model: str) -> Backend:
    return open_backend("torch", model, Path("none"))


def _dim(model: str) -> int:
    return _opened(model).dim


def _encoded(model: str, texts: Sequence[str]) -> NDArray[np.float32]:
    return _opened(model).encode(texts)


def by_the_float_graph(model: str, texts: Sequence[str]) -> NDArray[np.float32]:
    """What our graph makes of texts before it is quantised."""
    import onnxruntime

    directory = models.directory_of(model)
    graph = bert_graph.build(directory, quantised=False).SerializeToString()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    tokenizer, vectors = models.tokenizer_of(directory), []
    for text in texts:
        ids = np.array([tokenizer.encode(text)], np.int64)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        vectors.append(session.run(None, feed)[0][0])
    return np.array(vectors)


def token_ids(model: str, texts: Sequence[str]) -> list[list[int]]:
    """What the tokenizer of transformers makes of each text."""
    import transformers

    theirs = transformers.AutoTokenizer.from_pretrained(str(models.directory_of(model)))
    return [theirs(text, truncation=True, max_length=256)["input_ids"] for text in texts]


def distilled(source: str, made: Path) -> Path:
    """The table that model2vec distils of a model without its layers, so that it is quick."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(source, num_hidden_layers=0)
    transformers.AutoModel.from_pretrained(source, config=config).save_pretrained(source)
    return export("static", source, made)


def looked_up(directory: str, texts: Sequence[str]) -> NDArray[Any]:
    """What model2vec makes of texts by such a table."""
    import model2vec

    found: NDArray[Any] = model2vec.StaticModel.from_pretrained(directory).encode(texts)
    return found
