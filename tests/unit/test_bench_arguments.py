"""The bench takes only a past that its sections have."""

from __future__ import annotations

import pytest

from loadtest.bench.__main__ import SECTIONS, WITH_PAST, main


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--past", "0"], "--past: must be from 20 to 1e+07, got 0"),
        (["--past", "many"], "--past: invalid number value: 'many'"),
        (["--past", "1000", "--only", "decide"], "--past: decide has a past of its own"),
        (
            ["--past", "1000", "--only", "http", "--only", "log"],
            "--past: log has a past of its own",
        ),
    ],
)
def test_a_past_that_means_nothing_is_refused(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_what_takes_a_past_is_a_section() -> None:
    assert set(WITH_PAST) <= set(SECTIONS)
