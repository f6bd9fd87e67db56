"""What runs the model: ONNX Runtime (default), torch, or a static table of token embeddings."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from bandit_service.embedding import models
from bandit_service.embedding.models import EXPORTER, ModelUnavailable
from bandit_service.parsing.extras import install

_log = logging.getLogger("bandit.embedding")
_CHARS = 32
_STATIC_TOKENS = 512

Matrix = NDArray[np.float32]


class Backend(Protocol):
    """A loaded model. `encode` blocks, and is called from one thread at a time."""

    name: str
    dim: int

    def encode(self, texts: Sequence[str]) -> Matrix:
        """(n, dim) float32, each of unit norm; a text's embedding does not depend on the others."""
        ...


def open_backend(backend: str, model: str, cache_dir: Path, threads: int = 1) -> Backend:
    """Load `model` for `backend`, making its files in `cache_dir` first if they are not there."""
    if backend == "torch":
        return TorchBackend(model, threads)
    path = export(backend, model, cache_dir)
    return OnnxBackend(path, threads) if backend == "onnx" else StaticBackend(path)


def export(backend: str, model: str, cache_dir: Path) -> Path:
    """The directory with what `backend` needs of `model`; made once, all of it or nothing."""
    if backend == "torch":
        return models.directory_of(model)
    if backend == "onnx" and (packaged := models.ready(model)) is not None:
        return packaged
    directory = models.directory_of(model, backend=backend)
    if backend == "onnx" and (directory / "model.onnx").exists():
        return directory
    name = directory.parent.name if directory.name == "model" else directory.name
    made = cache_dir / f"{name}-{backend}-{models.fingerprint(directory, EXPORTER)}"
    if not made.exists():
        _log.info("exporting the embedding model once", extra={"model": model})
        with _all_or_nothing(made) as partial:
            (_export_onnx if backend == "onnx" else _distil)(directory, partial)
    return made


def export_into(model: str, into: Path) -> None:
    """The files of the onnx backend, made of the weights, for a package that carries them.

    The directory must be empty or not there. ModelUnavailable as for `export`.
    """
    if into.exists() and any(into.iterdir()):
        raise ModelUnavailable(
            f"--to: {into} is not empty; name a directory that is, or is not there"
        )
    weights = models.directory_of(model)
    if into.exists():
        into.rmdir()
    with _all_or_nothing(into) as partial:
        _export_onnx(weights, partial)
        models.describe(partial, model, weights)


class OnnxBackend:
    """The model in ONNX Runtime, its weights and activations as int8 in blocks.

    Texts are run one by one: padding costs more than a batch saves, and so an embedding cannot
    depend on its company.
    """

    name = "onnx"

    def __init__(self, directory: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # waiting threads sleep instead of spinning, since the event loop needs the core
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = directory / "model.onnx"
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # noqa: BLE001 - its exceptions have no common base
            raise ModelUnavailable(
                f"embedding.model: ONNX Runtime cannot load {path} ({error}); remove it, and it is "
                "made again from the weights"
            ) from None
        inputs = sorted(value.name for value in self._session.get_inputs())
        shapes = {value.name: value.shape for value in self._session.get_outputs()}
        shape: list[Any] = shapes.get("embedding") or [None]
        if inputs != ["attention_mask", "input_ids"] or not isinstance(shape[-1], int):
            raise ModelUnavailable(
                f"embedding.model: {path} must take input_ids and attention_mask and give "
                f"`embedding` (n, d) of unit norm; it takes {', '.join(inputs)}; remove it, and "
                "one that does is made from the weights"
            )
        self._tokenizer = models.tokenizer_of(directory)
        self.dim = int(shape[-1])

    def encode(self, texts: Sequence[str]) -> Matrix:
        """See Backend. About linear in the tokens of all texts."""
        out, most = np.empty((len(texts), self.dim), np.float32), self._tokenizer.most
        for i, text in enumerate(texts):
            ids = np.array([self._tokenizer.encode(beginning(text, most))], np.int64)
            feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
            out[i] = self._session.run(["embedding"], feed)[0][0]
        return out


class TorchBackend:
    """The model in sentence-transformers, in float32."""

    name = "torch"

    def __init__(self, model: str, threads: int) -> None:
        _need('"torch"', "torch", "torch", "sentence_transformers")
        import torch
        from sentence_transformers import SentenceTransformer

        try:
            path = str(models.directory_of(model))
        except ModelUnavailable:
            path = model  # perhaps in the local cache, under its name
        torch.set_num_threads(threads)
        try:
            self._model = SentenceTransformer(path, device="cpu", local_files_only=True)
        except (OSError, ValueError) as error:
            raise ModelUnavailable(
                f"embedding.model: {model!r} is neither packaged, nor a directory, nor in the "
                f"local Hugging Face cache ({type(error).__name__}); give the path of its directory"
            ) from None
        self.dim = int(self._model.get_embedding_dimension() or 0)

    def encode(self, texts: Sequence[str]) -> Matrix:
        """See Backend."""
        most = int(self._model.max_seq_length or _STATIC_TOKENS)
        out: Matrix = self._model.encode(
            [beginning(text, most) for text in texts],
            batch_size=32,
            normalize_embeddings=True,
            show_progress_bar=False,
        )
        return out


class StaticBackend:
    """The mean of distilled token embeddings (model2vec): no network to run, only a look-up."""

    name = "static"

    def __init__(self, directory: Path) -> None:
        _need('"static"', "static", "safetensors", "tokenizers")
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        self.directory = directory
        tensors = load_file(directory / "model.safetensors")
        self._table = tensors["embeddings"].astype(np.float32)
        if "weights" in tensors:
            self._table = self._table * tensors["weights"].astype(np.float32)[:, None]
        self._tokens = tensors.get("mapping")
        self._tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._unknown = self._tokenizer.token_to_id("[UNK]")
        self.dim = self._table.shape[1]

    def encode(self, texts: Sequence[str]) -> Matrix:
        """See Backend. Zero, which is near nothing, for a text without a known token."""
        out = np.zeros((len(texts), self.dim), np.float32)
        begun = [beginning(text, _STATIC_TOKENS) for text in texts]
        batch = self._tokenizer.encode_batch(begun, add_special_tokens=False)
        for i, encoded in enumerate(batch):
            ids = np.array(
                [id for id in encoded.ids[:_STATIC_TOKENS] if id != self._unknown], np.int64
            )
            if len(ids):
                rows = ids if self._tokens is None else self._tokens[ids]
                mean = self._table[rows].mean(axis=0)
                out[i] = mean / max(float(np.linalg.norm(mean)), 1e-12)
        return out


def beginning(text: str, tokens: int) -> str:
    """What of a text can be among its first tokens: a tokenizer would read all of it, and takes
    half a second for 200,000 characters.

    A token has some four characters in prose, and up to eight times as many are looked at.

    >>> beginning("a" * 100, 2) == "a" * 64
    True
    """
    most = _CHARS * tokens
    return text if len(text) <= most else text.lstrip()[:most]


def _need(what: str, extra: str, *packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            first = "install a CPU build of torch, else pip brings CUDA on Linux, and then "
            raise ModelUnavailable(
                f"embedding.backend: {what} needs the package {package}; "
                f"{first * (extra == 'torch')}run: {install(extra)}"
            )


def _export_onnx(directory: Path, into: Path) -> None:
    _need("making the files of the model", "export", "onnx", "safetensors")
    import onnx  # for the one time that the files are made; serving does without

    from bandit_service.embedding import bert_graph

    onnx.save(bert_graph.build(directory), into / "model.onnx")
    for name in ("tokenizer.json", "sentence_bert_config.json", "config.json"):
        if (directory / name).exists():
            shutil.copyfile(directory / name, into / name)


def _distil(directory: Path, into: Path) -> None:
    _need('distilling "static"', "torch", "torch", "model2vec")
    from model2vec.distill import distill

    distilled: Any = distill(str(directory), pca_dims=384)
    distilled.save_pretrained(str(into))


@contextlib.contextmanager
def _all_or_nothing(path: Path) -> Iterator[Path]:
    """A directory that appears under its name only when it is complete."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    except OSError as error:
        raise ModelUnavailable(
            f"embedding.model: its files are made once in {path.parent}, which cannot be written "
            f"({error}); make data_dir writable"
        ) from None
    try:
        yield partial
        partial.chmod(0o755)
        try:
            partial.replace(path)
        except OSError:
            if not path.exists():  # else another process was faster: theirs is as good
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
