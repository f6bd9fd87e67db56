"""Build the embedding model for the onnx or static backend."""

from __future__ import annotations

import argparse
from pathlib import Path

from bandit_service import clock, settings
from bandit_service.cli import options
from bandit_service.cli.options import Usage
from bandit_service.embedding import export, export_into


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `export-model`."""
    options.config(parser)
    parser.add_argument(
        "--backend", choices=("onnx", "static"), help="overrides [embedding] backend"
    )
    parser.add_argument(
        "--to",
        type=Path,
        help="make the files of the onnx backend in this directory, for a package",
    )


def run(args: argparse.Namespace) -> int:
    """Make its files, once."""
    chosen = settings.read(args.config)
    if args.to is not None:
        if args.backend == "static":
            raise Usage("--to: makes the files of the onnx backend; leave --backend out")
        export_into(chosen.embedding.model, args.to)
        print(f"onnx model in {args.to}")
        return 0
    backend = args.backend or chosen.embedding.backend
    begun = clock.now()
    path = export(backend, chosen.embedding.model, Path(chosen.data_dir) / "models")
    print(f"{backend} model in {path} ({clock.now() - begun:.1f} s)")
    return 0
