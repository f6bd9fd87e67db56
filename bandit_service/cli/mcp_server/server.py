"""The tools, and the server that offers them. None writes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import anyio.to_thread
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import Field

import bandit_service
from bandit_service import clock
from bandit_service.cli.mcp_server import words
from bandit_service.cli.mcp_server.asking import NotAnswered, Service, at
from bandit_service.cli.mcp_server.savings import gathered, pages_of
from bandit_service.parsing.suggestions import did_you_mean

_ABOUT = (
    "Reads a bandit-service, a router that learns which model answers which request. It says why a "
    "request went where it went, what routing spent and saved, and how arms, policies and "
    "experiments stand. It changes nothing and has no text of any prompt."
)
_READS = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)

Id = Annotated[str, Field(min_length=1, max_length=128)]
Count = Annotated[int, Field(ge=1, le=100)]
Hours = Annotated[float, Field(gt=0, le=24 * 366)]


def server(service: Service) -> MCPServer:
    """The server, with its tools."""
    made = _Strict(
        "bandit-service",
        instructions=_ABOUT,
        version=bandit_service.__version__,
        log_level="WARNING",  # a line for each call would have ids in it
    )
    tools = Tools(service)
    for tool in (
        tools.why,
        tools.recent_decisions,
        tools.savings,
        tools.arms,
        tools.policies,
        tools.experiments,
        tools.experiment_results,
        tools.health,
    ):
        made.add_tool(tool, annotations=_READS, structured_output=False)
    return made


class _Strict(MCPServer):
    """Refuses an argument that a tool does not have; it would be ignored, and the answer wrong."""

    async def call_tool(self, name: str, arguments: dict[str, Any], *more: Any, **rest: Any) -> Any:
        """As `MCPServer.call_tool`."""
        for tool in await self.list_tools():
            known = list(tool.input_schema.get("properties", {}))
            if tool.name == name and (unknown := sorted(set(arguments) - set(known))):
                there_are = f"expected one of {', '.join(known)}" if known else "it has none"
                raise ToolError(
                    f"{name}: no argument {unknown[0]!r}{did_you_mean(unknown[0], known)}; "
                    f"{there_are}"
                )
        return await super().call_tool(name, arguments, *more, **rest)


class Tools:
    """What can be asked; each answer is text."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def why(self, decision_id: Id) -> str:
        """Why did this request go to this model? Give the decision's id, which is the id of the
        answer, or the header x-decision-id. Says the chance and score of each arm, which arms
        limits left out, the nearest past queries, what came back, and how it would be decided now.
        """
        record = await self._asked(self._service.get, f"/v1/decisions/{at(decision_id)}")
        now = await self._perhaps(self._service.explain, decision_id)
        return words.decision(record, now)

    async def recent_decisions(self, limit: Count = 10, tag: str = "", arm: str = "") -> str:
        """The newest decisions, with their ids; only those with a tag or of an arm, if given."""
        query: dict[str, Any] = {"limit": limit}
        query |= {name: value for name, value in (("tag", tag), ("arm", arm)) if value}
        return words.decisions(
            await self._asked(partial(self._service.get, "/v1/decisions", **query))
        )

    async def savings(self, hours: Hours = 24.0) -> str:
        """What did routing spend and save in the last hours, beside sending every request to the
        baseline arm? Also the share, the cost and the reward of each arm."""

        def found() -> Any:
            return gathered(pages_of(self._service.get), clock.now() - 3600.0 * hours)

        return words.savings(await self._asked(found), hours)

    async def arms(self) -> str:
        """The models (arms): prices, measured cost and latency, whether each answers."""
        return words.arms(await self._asked(self._service.get, "/v1/arms"))

    async def policies(self) -> str:
        """Which routing policy decides, with its parameters, and which others there are."""
        return words.policies(await self._asked(self._service.get, "/v1/policies"))

    async def experiments(self) -> str:
        """All experiments: status, share, units, and the conclusion of each in a sentence."""
        return words.experiments(await self._asked(self._service.get, "/v1/experiments"))

    async def experiment_results(self, id: Id) -> str:
        """The results of one experiment: means and differences with intervals that hold at every
        look, the split, guardrails, savings, and what may be concluded."""
        return words.results(
            await self._asked(self._service.get, f"/v1/experiments/{at(id)}/results")
        )

    async def health(self) -> str:
        """Whether the service is ready, what it does not do now, drift alarms, and budgets."""
        get = self._service.get
        ready = await self._perhaps(get, "/readyz")
        drift = await self._perhaps(get, "/v1/drift")
        return words.health(ready, drift, await self._perhaps(get, "/v1/budgets"))

    async def _asked(self, ask: Callable[..., Any], *arguments: str) -> Any:
        """In a thread, so that the client is heard meanwhile; the service's own error in words."""
        try:
            return await anyio.to_thread.run_sync(ask, *arguments)
        except NotAnswered as error:
            raise ToolError(str(error)) from None
        except (LookupError, TypeError, ValueError):
            url = self._service.url
            raise ToolError(f"{url} answered what this version does not understand") from None

    async def _perhaps(self, ask: Callable[..., Any], *arguments: str) -> Any:
        """The answer, or why there is none, for an optional part of an answer."""
        try:
            return await self._asked(ask, *arguments)
        except ToolError as error:
            return str(error)
