"""A model that loads in no time, for processes that start often and embed no text that matters."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bandit_service.embedding.bert_graph import OPSET
from tests.service.running import DIM

_TEXTS = 64
_KEPT = 200
"""Tokens of the vocabulary: the special ones and the letters."""


def small_model(models: Path, directory: Path) -> dict[str, str]:
    """The settings of a service with it: one of 64 embeddings for each text, by the sum of its
    tokens. models: where the default model is, which has the tokenizer.
    """
    directory.mkdir()
    [default] = models.glob("*-onnx-*")
    for name in ("config.json", "sentence_bert_config.json"):
        shutil.copy(default / name, directory)
    tokenizer = json.loads((default / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    special = {each["content"] for each in tokenizer["added_tokens"]}
    kept = special | set(list(vocabulary)[:_KEPT])
    tokenizer["model"]["vocab"] = {k: v for k, v in vocabulary.items() if k in kept}
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    table = np.random.default_rng(0).normal(size=(_TEXTS, DIM)).astype(np.float32)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    initial = {"table": table, "axes": np.array([1]), "texts": np.array(_TEXTS)}
    graph = helper.make_graph(
        [
            helper.make_node("ReduceSum", ["input_ids", "axes"], ["sum"], keepdims=0),
            helper.make_node("Mod", ["sum", "texts"], ["row"]),
            helper.make_node("Gather", ["table", "row"], ["embedding"]),
        ],
        "small",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "t"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", DIM])],
        [numpy_helper.from_array(value, name) for name, value in initial.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.save(made, str(directory / "model.onnx"))
    return {"BANDIT_EMBEDDING_MODEL": str(directory)}
