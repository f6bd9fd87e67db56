"""A request of OpenAI's Responses API as a chat completion. Pure; docs/responses.md is the table.

A part that a chat completion cannot express is recorded as lost: then only a provider of the
Responses API may answer. A request that refers to a stored response is refused, since this service
stores none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bandit_service.core.errors import Refused
from bandit_service.gateway.providers._base import Heard, Json, objects, refused, typed
from bandit_service.gateway.providers._namespaces import joined, may_be_called
from bandit_service.gateway.providers._schemas import is_strict

OURS = "_bandit_"
"""A mark in the id of every item that this service has made from another dialect's answer."""

_STEERS = frozenset(
    {
        "model", "input", "instructions", "tools", "tool_choice", "parallel_tool_calls",
        "max_output_tokens", "temperature", "top_p", "text", "reasoning", "stream",
        "stream_options", "store", "metadata", "user", "safety_identifier", "prompt_cache_key",
        "prompt_cache_retention", "prompt_cache_options", "client_metadata", "service_tier",
        "max_tool_calls", "include", "truncation", "top_logprobs", "background",
    }
)  # fmt: skip
"""Fields that are translated or read, or that only steer."""
_KEPT = ("previous_response_id", "conversation", "background")
_AS_IT_IS = ("temperature", "top_p", "parallel_tool_calls", "user")


def heard(own: Json) -> Heard:
    """The same request as a chat completion. Raises Refused if it is not a request of this API."""
    for name in _KEPT:
        if own.get(name):
            raise refused(name, "this service keeps no response; send the items that it had")
    request = _Request()
    if instructions := own.get("instructions"):
        text = typed(instructions, str, "instructions", "a text")
        request.messages.append({"role": "system", "content": text})
    request.items(own.get("input"))
    if request.lost is not None and all(each["role"] == "system" for each in request.messages):
        # Nothing else is left of it; an arm that gets the request as it came can still answer.
        request.messages.append({"role": "user", "content": ""})
    body: Json = {"model": own.get("model"), "messages": request.messages}
    body |= {name: own[name] for name in _AS_IT_IS if own.get(name) is not None}
    for name in ("temperature", "top_p"):
        if name in body and (
            isinstance(body[name], bool) or not isinstance(body[name], int | float)
        ):
            raise refused(name, "must be a number")
    if (limit := own.get("max_output_tokens")) is not None:
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise refused("max_output_tokens", "must be a whole number of at least 1")
        body["max_completion_tokens"] = limit
    if (stream := own.get("stream")) is not None:
        body["stream"] = typed(stream, bool, "stream", "true or false")
    if reasoning := own.get("reasoning"):
        effort = typed(reasoning, dict, "reasoning", "an object").get("effort")
        body |= {"reasoning_effort": effort} if effort else {}
    request.declare(own, body)
    request.form(own.get("text"), body)
    request.rest(own)
    unit = own.get("user") or own.get("safety_identifier")
    return Heard(body, request.lost, unit if isinstance(unit, str) else "")


def without_ours(own: Json) -> Json:
    """The request for its own provider, which does not know the items that this service made."""
    items = own.get("input")
    if not isinstance(items, list) or not any(map(_is_ours, items)):
        return own
    kept = (_unnamed(item) if _is_ours(item) else item for item in items)
    return own | {"input": [item for item in kept if item]}


def _unnamed(item: Json) -> Json | None:
    """An item that this service made, in a form that any provider accepts; None for reasoning."""
    if item.get("type") == "reasoning":
        return None
    if isinstance(content := item.get("content"), list):
        texts = [part.get("text") or part.get("refusal") for part in content if _is_object(part)]
        said = "".join(text for text in texts if isinstance(text, str))
        return {"role": item.get("role"), "content": said}
    return {name: value for name, value in item.items() if name != "id"}


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_ours(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("id"), str) and OURS in item["id"]


class _Request:
    """Translates the items of one request. lost: the first thing that cannot be."""

    def __init__(self) -> None:
        self.lost: Refused | None = None
        self.messages: list[Json] = []
        self._pictures: list[Json] = []  # images and files of tools, until their last result
        self._thoughts: list[str] = []  # until the answer that follows them

    def lose(self, field: str, why: str) -> None:
        """Record a part that a chat completion cannot express."""
        self.lost = self.lost or refused(field, why)

    def items(self, items: Any) -> None:
        """All of the input."""
        if isinstance(items, str):
            self.messages.append({"role": "user", "content": items})
            return
        if not isinstance(items, list) or not items:
            raise refused("input", "must be a text, or a list with at least one item")
        for i, item in enumerate(items):
            at = f"input[{i}]"
            self._item(typed(item, dict, at, "an object"), at)
        self._show()

    def _item(self, item: Json, at: str) -> None:
        kind = item.get("type")
        if kind != "function_call_output":
            self._show()
        match kind:
            case None | "message":
                self._message(item, at)
            case "function_call":
                self._call(item, at)
            case "function_call_output":
                self._result(item, at)
            case "reasoning":
                self._thought(item, at)
            case _:
                self.lose(f"{at}.type", f"a chat completion has no {kind!r}")

    def _message(self, item: Json, at: str) -> None:
        role = item.get("role")
        if role not in ("user", "assistant", "system", "developer"):
            allowed = "user, assistant, system or developer"
            raise refused(f"{at}.role", f"must be {allowed}, got {role!r}")
        content = item.get("content")
        if isinstance(content, list):
            content = _plainest([*self._parts(content, f"{at}.content", role == "assistant")])
        elif not isinstance(content, str):
            raise refused(f"{at}.content", "must be a text or a list of parts")
        if role == "assistant":
            self._answer()["content"] = content
        else:
            role = "system" if role == "developer" else role
            self.messages.append({"role": role, "content": content})

    def _answer(self) -> Json:
        """A new answer of the model, with its reasoning."""
        message: Json = {"role": "assistant", "content": None}
        if self._thoughts:
            message["reasoning_content"] = "".join(self._thoughts)
            self._thoughts = []
        self.messages.append(message)
        return message

    def _call(self, item: Json, at: str) -> None:
        for name in ("call_id", "name", "arguments"):
            typed(item.get(name), str, f"{at}.{name}", "a text")
        last = self.messages[-1] if self.messages else {}
        message = last if last.get("role") == "assistant" and not self._thoughts else self._answer()
        name = joined(item.get("namespace"), item["name"])
        function = {"name": name, "arguments": item["arguments"]}
        call = {"id": item["call_id"], "type": "function", "function": function}
        message.setdefault("tool_calls", []).append(call)

    def _result(self, item: Json, at: str) -> None:
        id = typed(item.get("call_id"), str, f"{at}.call_id", "the id of a call")
        output = item.get("output")
        if isinstance(output, list):
            parts = [*self._parts(output, f"{at}.output")]
            output = "\n".join(part["text"] for part in parts if part["type"] == "text")
            pictures = [part for part in parts if part["type"] != "text"]
            if pictures:
                output = output or "It is in the next message of the user."
                said = {"type": "text", "text": f"What the call {id} gave:"}
                self._pictures += [said, *pictures]
        elif not isinstance(output, str):
            raise refused(f"{at}.output", "must be a text or a list of parts")
        self.messages.append({"role": "tool", "tool_call_id": id, "content": output})

    def _show(self) -> None:
        if self._pictures:
            self.messages.append({"role": "user", "content": self._pictures})
            self._pictures = []

    def _thought(self, item: Json, at: str) -> None:
        """Reasoning in plain text goes with the answer;

        reasoning that only its provider can read is lost.
        """
        content = item.get("content")
        texts = [part.get("text") for part in content or () if isinstance(part, Mapping)]
        if item.get("encrypted_content") or not texts:
            self.lose(at, "only its own provider can read the reasoning")
        self._thoughts += [text for text in texts if isinstance(text, str)]

    def _parts(self, parts: list[Any], at: str, answer: bool = False) -> Iterator[Json]:
        for i, part in enumerate(parts):
            where = f"{at}[{i}]"
            match typed(part, dict, where, "an object"):
                case {"type": "input_text" | "output_text" | "text", "text": str(text)}:
                    yield {"type": "text", "text": text}
                case {"type": "input_image", "image_url": str(url)}:
                    image = {"url": url}
                    if part.get("detail") in ("low", "high"):
                        image["detail"] = part["detail"]
                    yield {"type": "image_url", "image_url": image}
                case {"type": "input_file", "file_data": str(data)}:
                    file = {"filename": part.get("filename") or "file", "file_data": data}
                    yield {"type": "file", "file": file}
                case {"type": "input_audio", "input_audio": dict()}:
                    yield {"type": "input_audio", "input_audio": part["input_audio"]}
                case {"type": "refusal", "refusal": str(text)} if answer:
                    yield {"type": "refusal", "refusal": text}
                case {"type": "input_text" | "output_text" | "text"}:
                    raise refused(f"{where}.text", "must be a text")
                case _:
                    self.lose(
                        f"{where}.type", f"a chat completion has no such {part.get('type')!r}"
                    )

    def declare(self, own: Json, body: Json) -> None:
        """The tools, and which of them are to be called."""
        tools = own.get("tools")
        if tools is not None and (
            functions := [*self._functions(objects(tools, "tools"), "tools")]
        ):
            self._unlike(functions)
            body["tools"] = functions
        match own.get("tool_choice"):
            case None:
                return
            case "auto" | "none" | "required" as word:
                if body.get("tools"):
                    body["tool_choice"] = word
            case {"type": "function", "name": str(name)} as choice:
                function = {"name": joined(choice.get("namespace"), name)}
                body["tool_choice"] = {"type": "function", "function": function}
            case str() as word:
                raise refused("tool_choice", f"must be auto, none or required, got {word!r}")
            case dict():
                self.lose("tool_choice", "a chat completion has no such choice")
            case _:
                raise refused("tool_choice", "must be a word or an object")

    def _unlike(self, functions: list[Json]) -> None:
        """Record functions that cannot be told apart without their namespaces."""
        names = [each["function"]["name"] for each in functions]
        for i, name in enumerate(names):
            if name in names[:i]:
                self.lose("tools", f"two functions would be called {name!r} at another API")

    def _functions(self, tools: list[Json], at: str, space: str = "") -> Iterator[Json]:
        """The functions among these tools. space: the namespace that they are in."""
        for i, tool in enumerate(tools):
            where = f"{at}[{i}]"
            if tool.get("type") == "namespace" and not space:
                inside = objects(tool.get("tools"), f"{where}.tools")
                own = typed(tool.get("name"), str, f"{where}.name", "a text")
                yield from self._functions(inside, f"{where}.tools", own)
                continue
            if tool.get("type") != "function":
                self.lose(f"{where}.type", f"only the Responses API has {tool.get('type')!r}")
                continue
            schema = tool.get("parameters")
            schema = {} if schema is None else schema
            parameters = typed(schema, dict, f"{where}.parameters", "a JSON schema")
            name = joined(space, typed(tool.get("name"), str, f"{where}.name", "a text"))
            if space and not may_be_called(name):
                self.lose(f"{where}.name", f"no other API has functions of a name like {name!r}")
                continue
            function: Json = {"name": name, "parameters": parameters}
            if tool.get("description"):
                function["description"] = tool["description"]
            strict = tool.get("strict")
            if is_strict(parameters) if strict is None else strict:  # the API's default
                function["strict"] = True
            yield {"type": "function", "function": function}

    def form(self, text: Any, body: Json) -> None:
        """The form of the answer."""
        if text is None:
            return
        if verbosity := typed(text, dict, "text", "an object").get("verbosity"):
            body["verbosity"] = verbosity
        match text.get("format"):
            case None | {"type": "text"}:
                return
            case {"type": "json_object"}:
                body["response_format"] = {"type": "json_object"}
            case {"type": "json_schema", "name": str(), "schema": dict()} as form:
                asked = {name: each for name, each in form.items() if name != "type"}
                body["response_format"] = {"type": "json_schema", "json_schema": asked}
            case _:
                allowed = "text, json_object, or json_schema with a name and a schema"
                raise refused("text.format", f"must be of type {allowed}")

    def rest(self, own: Json) -> None:
        """The remaining fields, which a chat completion does not have."""
        include = own.get("include") or []
        if not isinstance(include, list):
            raise refused("include", "must be a list of texts")
        if own.get("top_logprobs") or "message.output_text.logprobs" in include:
            self.lose("top_logprobs", "other providers do not return this")
        if own.get("truncation") == "auto":
            self.lose("truncation", "other providers do not truncate the input")
        for name in own.keys() - _STEERS:
            if own[name]:
                self.lose(name, "only the Responses API has it")


def _plainest(parts: list[Json]) -> str | list[Json]:
    """Text parts alone become one text, which every server reads."""
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts
