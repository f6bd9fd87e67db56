"""A transformer encoder with a linear head, fine-tuned whole; needs the extra `torch`."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bandit_service.embedding.models import directory_of
from bandit_service.lab.routers._extra import MissingExtra
from policies import Floats
from policies._checks import above, within


@dataclass(frozen=True, slots=True)
class Training:
    """AdamW with a learning rate that falls linearly to 0, no warm-up, gradients clipped.

    model: name of a packaged model or path of a local Hugging Face directory; never downloaded.
    learning_rate, weight_decay: of AdamW. clip: > 0, largest norm of all gradients together.
    batch: examples of one step. epochs: passes over the examples. steps: at most so many steps,
    None for no such end. max_tokens: of one example; the end of a longer text is kept. threads: of
    torch, in training and prediction; results are equal for equal numbers of them.
    The defaults are FORC's, but for the encoder and max_tokens (512 there).
    """

    model: str = "all-MiniLM-L6-v2"
    learning_rate: float = 3e-5
    weight_decay: float = 0.01
    clip: float = 0.1
    batch: int = 16
    epochs: int = 10
    steps: int | None = None
    max_tokens: int = 256
    threads: int = 1

    def __post_init__(self) -> None:
        above("learning_rate", self.learning_rate, 0.0)
        within("weight_decay", self.weight_decay, 0.0)
        above("clip", self.clip, 0.0)
        within("batch", self.batch, 1)
        within("epochs", self.epochs, 1)
        if self.steps is not None:
            within("steps", self.steps, 1)
        within("max_tokens", self.max_tokens, 16)
        within("threads", self.threads, 1)


@dataclass(frozen=True, slots=True)
class FineTuned:
    """A trained encoder with its head. losses: of every step, in the order of training."""

    _network: _Network
    losses: tuple[float, ...]

    def logits(self, names: Sequence[str] | None, texts: Sequence[str]) -> Floats:
        """(n, heads) for each text, after its prefix if there are `names`."""
        return self._network.logits(self._network.tokens(names, texts))


def train_encoder(
    names: Sequence[str] | None,
    texts: Sequence[str],
    targets: NDArray[Any],
    heads: int,
    training: Training,
    seed: int,
) -> FineTuned:
    """Fine-tune encoder and head on (n,) targets; the last epoch's weights are kept.

    One head: binary cross-entropy on targets in [0, 1]. More: cross-entropy on classes. Head,
    order of examples and dropout are drawn by `seed`; torch's own generator stays as it was.
    MissingExtra without torch, ModelUnavailable without the encoder's files.
    """
    torch = _extra("torch")
    with torch.random.fork_rng(devices=[]), _threads(torch, training.threads):
        torch.manual_seed(seed)
        network = _Network(torch, training, heads)
        tokens = network.tokens(names, texts)
        losses = network.train(tokens, targets, training, np.random.default_rng(seed))
    return FineTuned(network, tuple(losses))


class _Network:
    def __init__(self, torch: Any, training: Training, heads: int) -> None:
        transformers = _extra("transformers")
        directory = str(directory_of(training.model))
        self._torch, self._threads = torch, training.threads
        with _quiet(transformers):
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(
                directory, local_files_only=True
            )
            self._encoder = transformers.AutoModel.from_pretrained(
                directory, local_files_only=True, dtype=torch.float32
            )
        width = int(self._encoder.config.hidden_size)
        self._head = torch.nn.Sequential(torch.nn.Dropout(0.1), torch.nn.Linear(width, heads))
        most = int(getattr(self._encoder.config, "max_position_embeddings", 512))
        self._max_tokens, self._batch = min(training.max_tokens, most), max(32, training.batch)

    def tokens(self, names: Sequence[str] | None, texts: Sequence[str]) -> list[list[int]]:
        """Ids of "name: text" with the special tokens; a text that is too long loses its start."""
        known = sorted(set(names or ()))
        prefixes = dict(zip(known, self._ids([f"{name}:" for name in known]), strict=True))
        begin, end = (
            [] if id is None else [int(id)]
            for id in (self._tokenizer.cls_token_id, self._tokenizer.sep_token_id)
        )
        found = []
        for i, ids in enumerate(self._ids(texts)):
            first = [*begin, *(prefixes[names[i]] if names else ())][: self._max_tokens // 2]
            room = self._max_tokens - len(first) - len(end)
            found.append([*first, *ids[-room:], *end])
        return found

    def train(
        self,
        tokens: Sequence[list[int]],
        targets: NDArray[Any],
        training: Training,
        rng: np.random.Generator,
    ) -> list[float]:
        torch = self._torch
        n = len(tokens)
        per_epoch = math.ceil(n / training.batch)
        total = min(training.epochs * per_epoch, training.steps or training.epochs * per_epoch)
        weights = [*self._encoder.parameters(), *self._head.parameters()]
        optimizer = torch.optim.AdamW(
            weights, lr=training.learning_rate, weight_decay=training.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 - step / total)
        order = np.concatenate([rng.permutation(n) for _ in range(training.epochs)])
        self._mode(training=True)
        losses: list[float] = []
        with tqdm(total=total, desc="fine-tuning", unit=" steps", disable=None) as bar:
            for epoch, at in ((e, b) for e in range(training.epochs) for b in range(per_epoch)):
                if len(losses) == total:
                    break
                start = epoch * n + at * training.batch
                rows = order[start : min(start + training.batch, (epoch + 1) * n)]
                loss = self._loss(self._forward([tokens[i] for i in rows]), targets[rows])
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(weights, training.clip)
                optimizer.step()
                schedule.step()
                losses.append(float(loss.detach()))
                bar.set_postfix_str(f"loss {np.mean(losses[-per_epoch:]):.4f}", refresh=False)
                bar.update()
        self._mode(training=False)
        return losses

    def logits(self, tokens: Sequence[list[int]]) -> Floats:
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))  # like lengths pad little
        with self._torch.inference_mode(), _threads(self._torch, self._threads):
            parts = [
                self._forward([tokens[i] for i in order[start : start + self._batch]]).numpy()
                for start in tqdm(
                    range(0, len(order), self._batch),
                    desc="predicting",
                    unit=" batches",
                    disable=None,
                    leave=False,
                )
            ]
        found = np.empty((len(tokens), self._head[1].out_features))
        if parts:
            found[order] = np.concatenate(parts)
        return found

    def _forward(self, tokens: Sequence[list[int]]) -> Any:
        """(batch, heads) logits from the mean of the hidden states of the tokens."""
        torch = self._torch
        width = max(len(ids) for ids in tokens)
        padding = int(self._tokenizer.pad_token_id or 0)
        ids = torch.tensor([[*each, *[padding] * (width - len(each))] for each in tokens])
        there = torch.tensor([[1] * len(each) + [0] * (width - len(each)) for each in tokens])
        hidden = self._encoder(input_ids=ids, attention_mask=there).last_hidden_state
        mask = there.unsqueeze(-1).to(hidden.dtype)
        return self._head((hidden * mask).sum(dim=1) / mask.sum(dim=1))

    def _loss(self, logits: Any, targets: NDArray[Any]) -> Any:
        functional = self._torch.nn.functional
        if logits.shape[1] == 1:
            wanted = self._torch.tensor(targets, dtype=logits.dtype)
            return functional.binary_cross_entropy_with_logits(logits[:, 0], wanted)
        return functional.cross_entropy(logits, self._torch.tensor(targets))

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        ids: list[list[int]] = self._tokenizer(
            list(texts), add_special_tokens=False, truncation=False, verbose=False
        )["input_ids"]
        return ids

    def _mode(self, *, training: bool) -> None:
        self._encoder.train(training)
        self._head.train(training)


@contextmanager
def _threads(torch: Any, count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No bar and no report of the weights that an encoder alone does not need."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _extra(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"{module} is not installed; pip install 'bandit-service[torch]'"
        ) from error
