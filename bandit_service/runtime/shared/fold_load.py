"""The share of a core that applying events takes: above a half, another replica gains little."""

from __future__ import annotations

_WINDOW_S = 10.0


class Busy:
    """CPU seconds of applying per second, over the last whole window. now: by time.monotonic."""

    def __init__(self, now: float) -> None:
        self._begun = now
        self._cpu_s = self._ratio = 0.0

    def took(self, cpu_s: float) -> None:
        """Add the CPU seconds of applying."""
        self._cpu_s += cpu_s

    def ratio(self, now: float) -> float:
        """0 until the first window is over."""
        if now - self._begun >= _WINDOW_S:
            self._ratio = self._cpu_s / (now - self._begun)
            self._begun, self._cpu_s = now, 0.0
        return self._ratio
