"""The JSON that the service answers with, as structs: what is encoded is what is documented.

A field that is `UNSET` is left out. The core computes the results of an experiment, so their
structs are there: `core/experiments/answers.py`.
"""
