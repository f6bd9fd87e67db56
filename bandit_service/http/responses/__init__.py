"""The JSON that the service answers with, as structs: what is encoded is what is documented.

A field that is `UNSET` is left out. The results of an experiment are computed by the core, and
stand there: `core/experiments/answers.py`.
"""
