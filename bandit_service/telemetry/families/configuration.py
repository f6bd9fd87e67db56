"""Metrics of changes of the configuration at run time, and of kept questions."""

from __future__ import annotations

from bandit_service.telemetry.families.make import Maker


class ConfigurationFamily:
    """An attribute for each of them."""

    def __init__(self, make: Maker) -> None:
        self.configuration_revision = make.gauge(
            "bandit_configuration_revision",
            "Number of the newest change of the configuration at run time; 0 if there was none.",
        )
        self.file_behind = make.gauge(
            "bandit_configuration_file_behind",
            "By how much the revision of the file is below that in force; 0: the file is taken.",
        )
        self.configuration_reloads = make.counters(
            "bandit_configuration_reloads_total",
            "Times that the file was read again (SIGHUP), by result: taken or refused.",
            ("result",),
        )
        self.texts = make.counters(
            "bandit_texts_total",
            "Questions to be kept, by result: stored, dropped, timeout, failed or gone.",
            ("result",),
        )
