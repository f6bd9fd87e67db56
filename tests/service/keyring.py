"""API keys for tests: secrets, and the environment that configures them."""

from __future__ import annotations

import json
from typing import Any

from bandit_service.settings import keys


class Keyring:
    """Keys by id: `ring["app"]` is the secret; `environ` goes to the service."""

    def __init__(self, **tables: dict[str, Any]) -> None:
        made = {id: keys.new_key() for id in tables}
        self._secrets = {id: secret for id, (secret, _) in made.items()}
        self.tables = [
            {
                "id": id,
                "hash": made[id][1],
                "scopes": ["decide", "reward", "read"],
                "self_contained": True,
                **table,
            }
            for id, table in tables.items()
        ]

    def __getitem__(self, id: str) -> str:
        return self._secrets[id]

    @property
    def environ(self) -> dict[str, str]:
        return {"BANDIT_KEYS": json.dumps(self.tables)}
