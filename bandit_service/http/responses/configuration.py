"""The configuration in force, its revisions, and the keys."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from bandit_service.core.fields import doc

Table = dict[str, Any]


class RevisionRow(msgspec.Struct, kw_only=True, frozen=True):
    """One change of the configuration."""

    revision: Annotated[int, doc("Its number; 0 is the file alone.", 7)]
    ts: Annotated[float, doc("When, UTC seconds.", 1764345600.0)]
    by: Annotated[
        str, doc("Id of the API key; `config`: the file; `anonymous`: no key was asked for.", "ops")
    ]
    why: Annotated[str, doc("The reason.", "the provider is slow")]
    source: Annotated[str, doc("What made it.", "api", enum=["api", "rollback", "file"])]
    changed: Annotated[list[str], doc("The sections that changed.", ["upstreams"])]


class OtherValue(msgspec.Struct, kw_only=True, frozen=True):
    """A setting that is not as by default, and is not changed here."""

    name: Annotated[str, doc("Its key.", "server.port")]
    value: Annotated[Any, doc("Its value.", 9090)]
    origin: Annotated[
        str, doc("Where it is from: a file, a variable of the environment, or an option.", "--port")
    ]
    taken_by: Annotated[
        str,
        doc("What takes another value of the file over.", "restart", enum=["restart", "reload"]),
    ]


class Others(msgspec.Struct, kw_only=True, frozen=True):
    """What the file says and no section has."""

    values: Annotated[list[OtherValue], doc("Settings that are not as by default.")]
    tables: Annotated[
        dict[str, dict[str, str]],
        doc(
            "By table and id a hash of each arm and each experiment, as the file last said it.",
            {"arms": {"gpt-5-mini": "0c1f8a5b7e21d904"}, "experiments": {}},
        ),
    ]


class Configuration(msgspec.Struct, kw_only=True, frozen=True):
    """What is in force. An entry has the fields of its table in the file, without defaults."""

    revision: Annotated[int, doc("The number of the newest change; 0: the file alone.", 7)]
    upstreams: Annotated[
        list[Table],
        doc(
            "As `[[upstreams]]`; what may be a secret is `(hidden)`.",
            [{"id": "openai", "base_url": "https://api.openai.com/v1", "key_env": "OPENAI_KEY"}],
        ),
    ]
    budgets: Annotated[
        list[Table], doc("As `[[budgets]]`.", [{"scope": "service", "per": "day", "usd": 20.0}])
    ]
    judges: Annotated[list[Table], doc("As `[[judges]]`.", [{"id": "exact", "kind": "exact"}])]
    routes: Annotated[
        list[Table], doc("As `[[routes]]`, each with its policy.", [{"id": "bot", "policy": "knn"}])
    ]
    metrics: Annotated[
        list[Table], doc("As `[[metrics]]`.", [{"name": "resolved", "kind": "boolean"}])
    ]
    policies: Annotated[
        list[Table],
        doc("Those that learn beside the serving one, as `[[policies]]`.", [{"name": "eagle"}]),
    ]
    settings: Annotated[
        list[Table],
        doc(
            "Single settings that can be changed at run time and are not as by default.",
            [{"name": "reward.ttl_s", "value": 172800}],
        ),
    ]
    others: Annotated[Others, doc("What takes a restart, or the file read again.")]
    history: Annotated[
        list[RevisionRow], doc("The newest changes, newest first; one can go back to each.")
    ]


class KeyRow(msgspec.Struct, kw_only=True, frozen=True):
    """One API key, without its hash."""

    id: Annotated[str, doc("Its id.", "app")]
    scopes: Annotated[list[str], doc("What it may do.", ["decide", "reward"])]
    tenant: Annotated[str, doc("The only tenant that it acts for; empty: any.", "acme")]
    expires: Annotated[str, doc("When it ends; empty: never.", "2027-01-01")]
    old_expires: Annotated[
        str, doc("When the key before the last rotation expires; empty: it is no longer valid.", "")
    ]
    rate_per_s: Annotated[float, doc("Requests per second; 0: no limit.", 50.0)]
    source: Annotated[str, doc("`file`, or `api` if the file does not have this key.", "api")]


class Keys(msgspec.Struct, kw_only=True, frozen=True):
    """Every key, also those that have expired."""

    revision: Annotated[int, doc("The number of the newest change of the configuration.", 7)]
    keys: Annotated[list[KeyRow], doc("One row for each, in the order of their making.")]


class NewKey(msgspec.Struct, kw_only=True, frozen=True):
    """A new key."""

    id: Annotated[str, doc("Its id.", "app")]
    key: Annotated[str, doc("The key itself, shown only once.", "bs_Jx3…")]
    revision: Annotated[int, doc("The number of this change.", 8)]
    old_expires: Annotated[str, doc("When the old key expires; empty: it is no longer valid.", "")]
