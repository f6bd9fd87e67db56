"""What the site has beyond the files of `docs`: pages made from the code, and links out of `docs`.

mkdocs calls these functions by their names.
"""

from __future__ import annotations

import argparse
import importlib
import json
import posixpath
import re
from typing import Any

from mkdocs.structure.files import File

import bandit_service
from bandit_service.cli.main import names
from bandit_service.http import openapi

_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
_FENCE = re.compile(r"^(```\w+) .*$", re.MULTILINE)  # with a word for our tests behind it
_METHODS = ("get", "post", "put", "patch", "delete")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made from the code."""
    for path, text in (("reference/cli.md", commands()), ("reference/api.md", paths())):
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:  # noqa: ARG001
    """Fences as the site reads them; a link to what is not in `docs` becomes its path."""
    here = posixpath.dirname(page.file.src_uri)

    def changed(match: re.Match[str]) -> str:
        image, text, target, _ = match.groups()
        if re.match(r"[a-z]+:", target):
            return match.group(0)
        path = posixpath.normpath(posixpath.join(here, target))
        if not path.startswith(".."):
            return match.group(0)
        return "" if image else f"{text} (`{path.removeprefix('../')}`)"

    return _LINK.sub(changed, _FENCE.sub(r"\1", markdown))


def commands() -> str:
    """Every command with its help, as the command line prints it."""
    parts = ["# Command line", "`bandit-service COMMAND --help` prints the same."]
    for name, path in names().items():
        module: Any = importlib.import_module(path)
        description = " ".join((module.__doc__ or "").split())
        parser = argparse.ArgumentParser(prog=f"bandit-service {name}", description=description)
        module.add_arguments(parser)
        parts += [f"## {name}", f"```text\n{parser.format_help().rstrip()}\n```"]
    return "\n\n".join(parts) + "\n"


def paths() -> str:
    """Every path of the API with its summary, answers, and an example where there is one."""
    document = openapi.document(bandit_service.__version__)
    parts = [
        "# API by path",
        "Made from the OpenAPI document, which a running service has at `/openapi.json`.",
    ]
    for path, item in document["paths"].items():
        for method in _METHODS:
            if method in item:
                parts += _operation(f"{method.upper()} {path}", item[method])
    return "\n\n".join(parts) + "\n"


def _operation(title: str, operation: dict[str, Any]) -> list[str]:
    parts = [f"## `{title}`"]
    parts += [operation[key] for key in ("summary", "description") if operation.get(key)]
    parameters = operation.get("parameters", [])
    if parameters:
        rows = [
            f"| `{each['name']}` | {each['in']} | {each.get('description', '')} |"
            for each in parameters
        ]
        parts.append("\n".join(["| parameter | in | |", "| --- | --- | --- |", *rows]))
    answers = [
        f"- **{code}** {answer.get('description', '')}"
        for code, answer in operation.get("responses", {}).items()
    ]
    parts.append("\n".join(answers))
    example = _example(operation.get("requestBody", {}))
    if example is not None:
        parts.append(f"```json\n{json.dumps(example, indent=2)}\n```")
    return parts


def _example(body: dict[str, Any]) -> Any:
    for media in body.get("content", {}).values():
        if "example" in media:
            return media["example"]
    return None
