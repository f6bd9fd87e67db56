"""Fine-tuned encoders at small size: the loss falls, and a planted split is learned."""

from __future__ import annotations

import importlib
import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bandit_service.embedding.models import directory_of
from bandit_service.lab import _encoder, finetune
from bandit_service.lab._encoder import train_encoder
from bandit_service.lab.data import Labelled
from bandit_service.lab.finetune import (
    FineTunedFORC,
    FineTunedHybridLLM,
    FineTunedRouteLLM,
    Training,
)
from bandit_service.lab.routers import MissingExtra
from tests.unit.data.recordings import recording

SMALL = Training(learning_rate=3e-3, clip=1.0, epochs=4)
THINGS = [
    "tree",
    "river",
    "number",
    "city",
    "song",
    "house",
    "letter",
    "game",
    "field",
    "word",
    "name",
    "sea",
    "hand",
    "road",
    "king",
    "day",
]


def _planted(n: int = 64, seed: int = 0) -> tuple[Labelled, NDArray[np.int64]]:
    """arm0 is cheap and right when a word is asked for, arm1 dear and right on proofs."""
    rng = np.random.default_rng(seed)
    proof = np.arange(n, dtype=np.int64) % 2
    texts = tuple(
        f"{'Prove that no' if p else 'Name one'} {' '.join(rng.choice(THINGS, 2))}" for p in proof
    )
    quality = np.stack([1.0 - proof, 0.2 + 0.8 * proof], axis=1)
    made = recording(quality.tolist(), np.tile([1e-5, 1e-3], (n, 1)).tolist())
    return Labelled(replace(made, texts=texts), np.zeros((n, 1), np.float32)), proof


def _first_choice(predictor: Any, queries: Labelled) -> tuple[float, NDArray[np.int64]]:
    setting, chosen = next(iter(predictor.choices(queries)))
    return setting, chosen


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Training:
    """An untrained encoder of two narrow layers, with the tokenizer of the real one."""
    torch, transformers = (importlib.import_module(name) for name in ("torch", "transformers"))
    directory = tmp_path_factory.mktemp("encoder")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(directory_of("all-MiniLM-L6-v2") / name, directory / name)
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        transformers.BertModel(config).save_pretrained(directory)
    return replace(SMALL, model=str(directory))


@pytest.mark.torch
def test_forc_learns_which_arm_is_right_from_its_name_and_the_query() -> None:
    # neither tells alone, so that it takes the weights of the embedding model
    training = Training(learning_rate=2e-4, clip=1.0, epochs=3, batch=32)
    train, _ = _planted()
    fresh, proof = _planted(16, seed=1)
    predictor = FineTunedFORC(training).fit(train, 0)
    assert len(predictor.losses) == 3 * 2 * 64 // 32
    assert np.mean(predictor.losses[-4:]) < np.mean(predictor.losses[:4]) - 0.1
    assert (predictor.axis, predictor.seen) == ("price", 128)
    _, chosen = _first_choice(predictor, fresh)
    assert (chosen == proof).mean() >= 0.9
    *_, (_, at_last) = predictor.choices(fresh)
    assert not at_last.any()  # money is all: the cheap arm
    quality = predictor.quality(fresh)
    assert quality.shape == (16, 2)
    assert ((quality > 0.0) & (quality < 1.0)).all()


@pytest.mark.torch
def test_hybrid_llm_learns_where_the_small_arm_is_good_enough(small: Training) -> None:
    train, _ = _planted()
    fresh, proof = _planted(16, seed=1)
    predictor = FineTunedHybridLLM("det", training=replace(small, epochs=8)).fit(train, 0)
    assert (predictor.small, predictor.large, predictor.seen) == (0, 1, 128)
    assert np.mean(predictor.losses[-4:]) < np.mean(predictor.losses[:4]) - 0.1
    settings = list(predictor.choices(fresh))
    assert settings[0][1].all()  # the threshold −∞: all to the large arm
    assert not settings[-1][1].any()
    assert max((chosen == proof).mean() for _, chosen in settings) >= 0.9


@pytest.mark.torch
def test_routellm_learns_wins_ties_and_losses(small: Training) -> None:
    train, proof = _planted()
    tied = train.quality.copy()
    tied[:8] = 0.5
    train = Labelled(replace(train.recorded, quality=tied), train.embeddings)
    fresh, proof = _planted(16, seed=1)
    predictor = FineTunedRouteLLM(training=replace(small, epochs=8)).fit(train, 0)
    assert np.mean(predictor.losses[-4:]) < np.mean(predictor.losses[:4]) - 0.1
    chance = predictor.needs_large(fresh.recorded.texts)
    assert ((chance > 0.0) & (chance < 1.0)).all()
    assert chance[proof == 1].min() > chance[proof == 0].max()


@pytest.mark.torch
def test_equal_seeds_give_equal_networks_and_leave_the_generator_of_torch_alone(
    small: Training,
) -> None:
    torch = importlib.import_module("torch")
    short = replace(small, steps=2)
    texts, targets = ["a b", "c"] * 8, np.tile([0.0, 1.0], 8)
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    one, same, other = (train_encoder(None, texts, targets, 1, short, s) for s in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert one.losses == same.losses != other.losses
    assert len(one.losses) == 2
    np.testing.assert_array_equal(one.logits(None, texts), same.logits(None, texts))
    # what stands beside a text in its batch does not matter
    longer = [*texts[:1], "a much longer text than the other ones of the batch"]
    alone = one.logits(None, texts[:1])
    np.testing.assert_allclose(one.logits(None, longer)[:1], alone, atol=1e-4)


@pytest.mark.torch
def test_a_long_text_keeps_its_end_and_its_name(small: Training) -> None:
    torch = importlib.import_module("torch")
    network = _encoder._Network(torch, replace(small, max_tokens=16), 1)
    (ids,) = network.tokens(["large"], ["tree " * 100 + "river"])
    (name,), (river,) = network._ids(["large:"]), network._ids(["river"])
    assert len(ids) == 16
    assert ids[1 : 1 + len(name)] == name
    assert ids[-2:-1] == river
    (brief,) = network.tokens(None, ["river"])
    assert brief == [ids[0], *river, ids[-1]]


def test_labels_of_wins_are_of_the_strong_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def taught(names: Any, texts: Any, targets: Any, heads: int, *_: Any) -> Any:
        given.append((names, texts, targets.tolist(), heads))
        return _encoder.FineTuned(None, ())  # type: ignore[arg-type]

    monkeypatch.setattr(finetune, "train_encoder", taught)
    quality = [[0.1, 0.9], [0.5, 0.6], [0.9, 0.1], [np.nan, 0.9], [0.2, 1.0]]
    made = recording(quality, np.tile([1e-5, 1e-3], (5, 1)).tolist())
    train = Labelled(made, np.zeros((5, 1), np.float32))
    FineTunedRouteLLM(margin=0.2).fit(train, 0)
    texts = [made.texts[i] for i in (0, 1, 2, 4)]
    win, tie, lose = finetune.WIN, finetune.TIE, finetune.LOSE
    assert given == [(None, texts, [win, tie, lose, win], 3)]
    FineTunedHybridLLM("det").fit(train, 0)
    assert given[1] == (None, texts, [0.0, 0.0, 1.0, 0.0], 1)
    FineTunedFORC().fit(train, 0)
    names, _, targets, heads = given[2]
    assert (names[:2], targets[:2], heads) == (["arm0", "arm1"], [0.1, 0.9], 1)
    assert len(targets) == 9  # the missing answer is left out


@pytest.mark.parametrize(
    ("name", "value"),
    [("learning_rate", 0.0), ("clip", 0.0), ("batch", 0), ("epochs", 0), ("steps", 0),
     ("weight_decay", -1.0), ("max_tokens", 3)],
)  # fmt: skip
def test_bad_hyper_parameters_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Training(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ratio"):
        FineTunedRouteLLM(ratio=2.0)
    with pytest.raises(ValueError, match="label"):
        FineTunedHybridLLM("none")


def test_queries_that_no_two_arms_answered_are_refused() -> None:
    made = recording([[1.0, np.nan], [np.nan, 1.0]], [[1e-5, np.nan], [np.nan, 1e-3]])
    with pytest.raises(ValueError, match="no query was answered by both arm"):
        FineTunedHybridLLM().fit(Labelled(made, np.zeros((2, 1), np.float32)), 0)


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> Any:
        raise ModuleNotFoundError

    monkeypatch.setattr(_encoder.importlib, "import_module", missing)  # type: ignore[attr-defined]
    with pytest.raises(MissingExtra, match=r"pip install 'bandit-service\[torch\]'"):
        train_encoder(None, ["a"], np.ones(1), 1, SMALL, 0)
