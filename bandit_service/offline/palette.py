"""The colours of plots: distinct for readers with colour blindness, and in print."""

from __future__ import annotations

INK, MUTED = "#1a1a1a", "#6b6b6b"
COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
    "#7f3c8d",
    "#8c564b",
    "#444444",
    "#b5bd00",
    "#17becf",
    "#f2b701",
)
