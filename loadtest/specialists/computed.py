"""Questions whose keys are computed: arithmetic, units, dates and code."""

from __future__ import annotations

import datetime as dt
from random import Random  # noqa: TID251 - of a recording that is made once, from a seed

from loadtest.specialists import words
from loadtest.specialists.question import Made, Question


def arithmetic(random: Random) -> Made:
    """Two or three numbers and an operation."""
    asks = [
        "What is {}?",
        "Calculate {}.",
        "How much is {}?",
        "Please work out {}",
        "Compute {}",
        "I need the result of {}.",
        "Can you tell me what {} comes to?",
    ]
    while True:
        a, b, c = random.randint(12, 99), random.randint(3, 60), random.randint(2, 19)
        form, value = random.choice(
            [
                (f"{a} plus {b}", a + b),
                (f"{a} times {c}", a * c),
                (f"{a} * {b} + {c}", a * b + c),
                (f"({a} + {b}) * {c}", (a + b) * c),
                (f"{a * c} divided by {c}", a),
                (f"{10 * a} minus {b}", 10 * a - b),
                (f"{c} percent of {100 * b}", c * b),
            ]
        )
        yield Question("arithmetic", random.choice(asks).format(form), "number", (str(value),))


def units(random: Random) -> Made:
    """A conversion into another unit."""
    asks = [
        "Convert {n} {a} to {b}.",
        "How many {b} are there in {n} {a}?",
        "What is {n} {a} in {b}?",
        "How many {b} is {n} {a}?",
        "Express {n} {a} in {b}.",
        "My manual says {n} {a}. What is that in {b}?",
    ]
    while True:
        a, b, factor = random.choice(words.UNITS)
        n = random.randint(2, 90)
        text = random.choice(asks).format(n=n, a=a, b=b)
        yield Question("units", text, "number", (f"{n * factor:.6g}",))


def dates(random: Random) -> Made:
    """Days between dates, and a date some days later."""
    while True:
        start = dt.date(1950, 1, 1) + dt.timedelta(random.randint(0, 27000))
        n = random.randint(9, 400)
        end = start + dt.timedelta(n)
        if random.random() < 0.5:
            asks = [
                "How many days are there between {a} and {b}?",
                "How many days passed from {a} to {b}?",
                "Count the days between {a} and {b}.",
                "I was away from {a} to {b}. How many days is that?",
            ]
            text = random.choice(asks).format(a=start, b=end)
            yield Question("dates", text, "number", (str(n),))
        else:
            asks = [
                "What is the date {n} days after {a}?",
                "Which date is {n} days after {a}?",
                "A bill of {a} is due {n} days later. Which date is that?",
                "Add {n} days to the date {a}.",
            ]
            accepted = (
                str(end),
                f"{end:%B} {end.day}, {end.year}",
                f"{end.day} {end:%B} {end.year}",
            )
            yield Question("dates", random.choice(asks).format(a=start, n=n), "phrase", accepted)


def code(random: Random) -> Made:
    """What a short Python program prints."""
    asks = [
        "What does this Python program print?\n{}",
        "Tell me the output of this code:\n{}",
        "Which number does this script print?\n{}",
        "Run this in your head. What comes out?\n{}",
        "What is the output of the following Python?\n{}",
    ]
    while True:
        a, b, c = random.randint(3, 40), random.randint(2, 9), random.randint(2, 30)
        text = "".join(random.choices("abcdeklmnorst", k=random.randint(5, 12)))
        code, value = random.choice(
            [
                (
                    f"total = 0\nfor i in range({a}):\n    total += i * {b}\nprint(total)",
                    sum(i * b for i in range(a)),
                ),
                (f"x = {a}\nwhile x < {a * 30}:\n    x = x * {b} + {c}\nprint(x)", _grown(a, b, c)),
                (f"print(sum(n for n in range({a * 3}) if n % {b} == 0))", sum(range(0, a * 3, b))),
                (
                    "def f(n):\n    return n if n < 2 else f(n - 1) + f(n - 2)\n\n"
                    f"print(f({b + 4}))",
                    _fibonacci(b + 4),
                ),
                (
                    f"s = '{text}'\nprint(len(s) * {a} + s.count('{text[1]}'))",
                    len(text) * a + text.count(text[1]),
                ),
                (
                    f"a, b = {a}, {c}\nif a > b:\n    a, b = b, a\nprint(b % {b} + a)",
                    max(a, c) % b + min(a, c),
                ),
                (
                    f"values = [{a}, {b}, {c}]\nvalues.append(max(values) * 2)\nprint(sum(values))",
                    a + b + c + 2 * max(a, b, c),
                ),
            ]
        )
        yield Question("code", random.choice(asks).format(code), "number", (str(value),))


def _grown(a: int, b: int, c: int) -> int:
    x = a
    while x < a * 30:
        x = x * b + c
    return x


def _fibonacci(n: int) -> int:
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a
