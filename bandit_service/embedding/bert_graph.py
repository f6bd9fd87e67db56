"""A BERT encoder as an ONNX graph, built from its weights without torch.

Devlin et al. 2018 (arXiv 1810.04805) with Sentence-BERT's pooling (arXiv 1908.10084): token,
position and type embeddings, L layers of attention and feed-forward, mean or CLS pooling, unit
norm. Plain operators, which ONNX Runtime fuses where it can, and its own for int8 products.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors import SafetensorError
from safetensors.numpy import load_file

from bandit_service.embedding.models import ModelUnavailable, read_json, read_list

OPSET = 17
BLOCK = 128
_Weights = dict[str, NDArray[Any]]


def build(directory: Path, quantised: bool = True) -> Any:
    """The ONNX model of a BERT in `directory`: input_ids, attention_mask (n, t) → (n, d).

    quantised: weights as int8 in blocks of 128 with a scale each, activations likewise at run
    time (`MatMulNBits`, accuracy level 4). Scales per block, not per tensor, so that the few
    very large activations of a BERT cost no precision elsewhere.

    ModelUnavailable for another architecture, or when the files are not there.
    """
    config = read_json(directory / "config.json")
    if (
        "BertModel" not in config.get("architectures", [])
        or config.get("hidden_act") != "gelu"
        or config.get("position_embedding_type", "absolute") != "absolute"
    ):
        raise ModelUnavailable(
            f"embedding.model: the onnx backend exports BertModel with gelu and absolute "
            f"positions, {directory} is {config.get('architectures')}; use embedding.backend = "
            '"torch"'
        )
    _check_modules(directory)
    weights = _weights(directory / "model.safetensors")
    return _Graph(weights, config, quantised).model(_mean_pooling(directory))


def _check_modules(directory: Path) -> None:
    """Refuse what follows the pooling in some models, since leaving it out goes unnoticed."""
    path = directory / "modules.json"
    if not path.exists():
        return
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in read_list(path)]
    other = sorted(set(kinds) - {"Transformer", "Pooling", "Normalize"})
    if other:
        raise ModelUnavailable(
            f"embedding.model: the onnx backend knows no module {', '.join(other)} ({path}); use "
            'embedding.backend = "torch"'
        )


def _weights(path: Path) -> _Weights:
    if not path.exists():
        raise ModelUnavailable(f"embedding.model: {path} is missing")
    try:
        loaded = load_file(path)
    except (SafetensorError, TypeError, KeyError) as error:  # damaged, or of a type like bfloat16
        raise ModelUnavailable(f"embedding.model: {path} cannot be read: {error}") from None
    return {
        k.removeprefix("bert."): v.astype(np.float32) if v.dtype == np.float16 else v
        for k, v in loaded.items()
    }


def _mean_pooling(directory: Path) -> bool:
    path = directory / "1_Pooling" / "config.json"
    if not path.exists():
        return True
    pooling = read_json(path)
    # newer files name the mode, older ones have a flag for each; several are concatenated
    named = pooling.get("pooling_mode")
    modes = (
        {named}
        if isinstance(named, str)
        else {
            mode.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
            for mode, used in pooling.items()
            if mode.startswith("pooling_mode_") and used
        }
    )
    if modes == {"mean"}:
        return True
    if modes == {"cls"}:
        return False
    raise ModelUnavailable(
        f'embedding.model: {path} is neither mean nor CLS pooling; use embedding.backend = "torch"'
    )


class _Graph:
    """Nodes and constants as they are added; every method returns the name of its output."""

    def __init__(self, weights: _Weights, config: dict[str, Any], quantised: bool) -> None:
        self.weights = weights
        self.quantised = quantised
        self.heads = int(config["num_attention_heads"])
        self.layers = int(config["num_hidden_layers"])
        self.hidden = int(config["hidden_size"])
        self.epsilon = float(config["layer_norm_eps"])
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def model(self, mean_pooling: bool) -> Any:
        h, size = self.hidden, self.hidden // self.heads
        x = self._embeddings()
        # (n, t) mask → (n, 1, 1, t): 0 where there is a token, very negative where there is none
        mask = self._op("Cast", ["attention_mask"], to=TensorProto.FLOAT)
        wide = self._op("Unsqueeze", [mask, self._ints([1, 2])])
        nothing = self._op("Sub", [self._float(1.0), wide])
        bias = self._op("Mul", [nothing, self._float(-1e9)])
        for layer in range(self.layers):
            x = self._layer(x, bias, f"encoder.layer.{layer}", size)
        if mean_pooling:
            column = self._op("Unsqueeze", [mask, self._ints([2])])
            total = self._op(
                "ReduceSum", [self._op("Mul", [x, column]), self._ints([1])], keepdims=0
            )
            count = self._op("ReduceSum", [column, self._ints([1])], keepdims=0)
            pooled = self._op("Div", [total, count])
        else:
            pooled = self._op("Gather", [x, self._const(np.array(0, np.int64))], axis=1)
        norm = self._op("ReduceL2", [pooled], axes=[1], keepdims=1)
        self.nodes.append(helper.make_node("Div", [pooled, norm], ["embedding"]))
        tokens = [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "t"])
            for name in ("input_ids", "attention_mask")
        ]
        out = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", h])
        graph = helper.make_graph(self.nodes, "bert", tokens, [out], self.constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        onnx.checker.check_model(model)
        return model

    def _embeddings(self) -> str:
        w = self.weights
        # the type of every token is 0, so its embedding joins the positions' table
        positions = (
            w["embeddings.position_embeddings.weight"]
            + w["embeddings.token_type_embeddings.weight"][0]
        )
        tokens = self._op(
            "Gather", [self._const(w["embeddings.word_embeddings.weight"]), "input_ids"]
        )
        length = self._op("Gather", [self._op("Shape", ["input_ids"]), self._const(np.array(1))])
        ends = [self._ints([0]), self._op("Unsqueeze", [length, self._ints([0])]), self._ints([0])]
        place = self._op("Slice", [self._const(positions), *ends])
        return self._norm(self._op("Add", [tokens, place]), "embeddings.LayerNorm")

    def _layer(self, x: str, bias: str, at: str, size: int) -> str:
        w = self.weights
        names = [f"{at}.attention.self.{part}" for part in ("query", "key", "value")]
        # one product for queries, keys and values; 1/√size goes into the queries
        scale = np.float32(1.0 / np.sqrt(size))
        weight = np.concatenate(
            [w[f"{n}.weight"] * (scale if i == 0 else 1) for i, n in enumerate(names)]
        )
        shift = np.concatenate(
            [w[f"{n}.bias"] * (scale if i == 0 else 1) for i, n in enumerate(names)]
        )
        qkv = self._linear(x, weight, shift)
        parts = [f"{at}.q", f"{at}.k", f"{at}.v"]
        self.nodes.append(helper.make_node("Split", [qkv], parts, axis=2))
        shape = self._ints([0, 0, self.heads, size])
        q, k, v = (self._op("Reshape", [part, shape]) for part in parts)
        q, v = (self._op("Transpose", [part], perm=[0, 2, 1, 3]) for part in (q, v))
        k = self._op("Transpose", [k], perm=[0, 2, 3, 1])
        scores = self._op("Add", [self._op("MatMul", [q, k]), bias])
        mixed = self._op("MatMul", [self._op("Softmax", [scores], axis=-1), v])
        joined = self._op(
            "Reshape",
            [self._op("Transpose", [mixed], perm=[0, 2, 1, 3]), self._ints([0, 0, self.hidden])],
        )
        attended = self._dense(joined, f"{at}.attention.output.dense")
        x = self._norm(self._op("Add", [attended, x]), f"{at}.attention.output.LayerNorm")
        inner = self._gelu(self._dense(x, f"{at}.intermediate.dense"))
        return self._norm(
            self._op("Add", [self._dense(inner, f"{at}.output.dense"), x]), f"{at}.output.LayerNorm"
        )

    def _gelu(self, x: str) -> str:
        """x · ½ · (1 + erf(x/√2))."""
        erf = self._op("Erf", [self._op("Div", [x, self._float(float(np.sqrt(2.0)))])])
        return self._op(
            "Mul",
            [self._op("Mul", [x, self._op("Add", [erf, self._float(1.0)])]), self._float(0.5)],
        )

    def _dense(self, x: str, at: str) -> str:
        return self._linear(x, self.weights[f"{at}.weight"], self.weights[f"{at}.bias"])

    def _linear(self, x: str, weight: NDArray[Any], shift: NDArray[Any]) -> str:
        if self.quantised and weight.shape[1] % BLOCK == 0:
            product = self._blockwise(x, weight)
        else:
            product = self._op("MatMul", [x, self._const(np.ascontiguousarray(weight.T))])
        return self._op("Add", [product, self._const(shift)])

    def _blockwise(self, x: str, weight: NDArray[Any]) -> str:
        """x · weightᵀ with weight (n, k) as 8-bit numbers around 128, a scale for each block."""
        n, k = weight.shape
        blocks = weight.reshape(n, k // BLOCK, BLOCK).astype(np.float32)
        scale = np.maximum(np.abs(blocks).max(axis=2), 1e-12) / 127.0
        numbers = (np.rint(blocks / scale[..., None]) + 128.0).astype(np.uint8)
        inputs = [x, self._const(numbers), self._const(scale.reshape(-1).astype(np.float32))]
        return self._op(
            "MatMulNBits",
            inputs,
            domain="com.microsoft",
            K=k,
            N=n,
            bits=8,
            block_size=BLOCK,
            accuracy_level=4,
        )

    def _norm(self, x: str, at: str) -> str:
        parts = [self._const(self.weights[f"{at}.{name}"]) for name in ("weight", "bias")]
        return self._op("LayerNormalization", [x, *parts], axis=-1, epsilon=self.epsilon)

    def _op(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def _const(self, value: NDArray[Any]) -> str:
        name = f"const_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _ints(self, values: list[int]) -> str:
        return self._const(np.array(values, np.int64))

    def _float(self, value: float) -> str:
        return self._const(np.array(value, np.float32))
