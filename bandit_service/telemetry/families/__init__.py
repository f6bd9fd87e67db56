"""The metrics by what they measure; `telemetry.metrics` has all of them."""
