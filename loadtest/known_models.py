"""Write `bandit_service/data/known_models.toml`, the models that `arms list --known` knows.

`python -m loadtest.known_models FILE VERSION DATE` reads the list of models of the package litellm
(MIT), `model_prices_and_context_window_backup.json` of that version, read on that date. Of each
model below it takes prices, context and capabilities as they stand there, with the page that they
are from. A model without such a page, a price or a context is left out, and named.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

TABLE = Path("bandit_service/data/known_models.toml")
CONFIG = "https://pypi.org/project/litellm/"
PROVIDERS = (
    ("openai", "OPENAI_API_KEY", "https://api.openai.com/v1", "openai", CONFIG),
    ("anthropic", "ANTHROPIC_API_KEY", "https://api.anthropic.com", "anthropic", CONFIG),
    ("gemini", "GEMINI_API_KEY", "https://generativelanguage.googleapis.com/v1beta/openai",
     "openai", "https://ai.google.dev/gemini-api/docs/openai"),
    ("mistral", "MISTRAL_API_KEY", "https://api.mistral.ai/v1", "openai", CONFIG),
    ("deepseek", "DEEPSEEK_API_KEY", "https://api.deepseek.com/v1", "openai", CONFIG),
    ("xai", "XAI_API_KEY", "https://api.x.ai/v1", "openai", CONFIG),
)  # fmt: skip
"""Each with the variable that has its key, its address, its dialect, and where these are from."""
MODELS = {
    "openai": (
        "gpt-6-astra", "gpt-6.1-sol*", "gpt-6-luna*", "gpt-5.5", "gpt-5.4-mini*", "gpt-5.4-nano",
        "gpt-5.1", "gpt-5", "gpt-5-mini", "gpt-5-nano", "gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano",
        "gpt-4o", "gpt-4o-mini", "o3", "o4-mini", "text-embedding-3-small",
        "text-embedding-3-large", "text-embedding-ada-002",
    ),
    "anthropic": (
        "claude-haiku-4-5", "claude-haiku-5-5*", "claude-sonnet-4-6", "claude-sonnet-5-5*",
        "claude-opus-4-8", "claude-opus-5-5*",
    ),
    "gemini": (
        "gemini-2.5-flash-lite", "gemini-2.5-flash", "gemini-2.5-pro", "gemini-3.1-flash-lite*",
        "gemini-3.8-flash*", "gemini-4-argon*", "gemini-embedding-001", "gemini-embedding-2",
    ),
    "mistral": (
        "mistral-small-2603*", "mistral-medium-2604", "mistral-large-2512", "mistral-large-4*",
        "mistral-embed-2312",
    ),
    "deepseek": ("deepseek-v4-flash*", "deepseek-v4-pro*"),
    "xai": ("grok-4.20", "grok-4.5", "grok-4.7*"),
}  # fmt: skip
"""With * those of a first configuration."""
_PRICES = {
    "usd_per_mtok_in": "input_cost_per_token",
    "usd_per_mtok_out": "output_cost_per_token",
    "usd_per_mtok_cached_in": "cache_read_input_token_cost",
    "usd_per_mtok_cache_write": "cache_creation_input_token_cost",
    "usd_per_mtok_cache_write_1h": "cache_creation_input_token_cost_above_1hr",
}
_CAPABILITIES = {
    "tools": "supports_function_calling",
    "json": "supports_response_schema",
    "vision": "supports_vision",
}
_DEARER = "input_cost_per_token_above_"


def row(provider: str, name: str, known: dict[str, Any]) -> dict[str, Any] | None:
    """A model as the table has it; None where a fact is missing."""
    id = name.removesuffix("*")
    facts = known.get(id) or known.get(f"{provider}/{id}") or {}
    there = ("input_cost_per_token", "max_input_tokens")
    if not str(facts.get("source")).startswith("https://") or any(not facts.get(x) for x in there):
        return None
    found: dict[str, Any] = {"model": id, "provider": provider}
    for ours, theirs in _PRICES.items():
        if facts.get(theirs) is not None:
            found[ours] = float(f"{facts[theirs] * 1e6:.6g}")
    found.setdefault("usd_per_mtok_out", 0.0)
    if facts.get("mode") == "embedding":
        found["kind"] = "embedding"
        if facts.get("output_vector_size"):
            found["dimensions"] = facts["output_vector_size"]
    found["context_window"] = facts["max_input_tokens"]
    if facts.get("max_output_tokens") and "kind" not in found:
        found["max_output_tokens"] = facts["max_output_tokens"]
    if "kind" not in found:
        able = [ours for ours, theirs in _CAPABILITIES.items() if facts.get(theirs)]
        found["capabilities"] = able
    dearer = [
        int(key.removeprefix(_DEARER).removesuffix("k_tokens")) * 1000
        for key in facts
        if key.startswith(_DEARER) and key.endswith("k_tokens")
    ]
    if dearer:
        found["dearer_above"] = min(dearer)
    spoken = provider != "anthropic" or facts.get("supports_output_config")
    if facts.get("supports_reasoning") and spoken:
        found["reasoning"] = True
    if facts.get("supports_adaptive_thinking") and not facts.get("supports_legacy_thinking"):
        found["no_thinking_budget"] = True
    if name.endswith("*"):
        found["first"] = True
    return found | {"source": facts["source"]}


def main(file: str, version: str, date: str) -> None:
    """Write the table; names what was left out."""
    known = json.loads(Path(file).read_text(encoding="utf-8"))
    lines = [
        "# List prices (USD for a million tokens), context windows and capabilities of models.",
        f"# As litellm {version} (MIT, https://pypi.org/project/litellm/{version}/) has them, read",
        f"# on {date}; `source` of each is the page that it names. Prices change: compare with the",
        "# provider's page. Written by `python -m loadtest.known_models`.",
        "",
        f"version = {json.dumps(f'litellm {version}')}",
        f"date = {json.dumps(date)}",
    ]
    for id, key_env, base_url, kind, source in PROVIDERS:
        fields = {"id": id, "key_env": key_env, "base_url": base_url, "kind": kind}
        lines += ["", "[[providers]]", *_lines(fields | {"source": source})]
    for provider, names in MODELS.items():
        for name in names:
            found = row(provider, name, known)
            if found is None:
                print(f"left out: {provider}/{name}")
                continue
            lines += ["", "[[models]]", *_lines(found)]
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _lines(fields: dict[str, Any]) -> list[str]:
    return [f"{name} = {json.dumps(value)}" for name, value in fields.items()]


if __name__ == "__main__":
    main(*sys.argv[1:])
