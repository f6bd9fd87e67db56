"""The recording `specialists`: one small language model and six programs, each good at its own.

    python -m loadtest.specialists --out bandit_service/data/specialists

asks every one of them every question again. What it takes is in the README beside the recording.
"""
