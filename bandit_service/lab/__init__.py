"""Offline evaluation of routers on recorded traffic: protocols, metrics and baselines.

The definitions are in docs/evaluation.md. Needs the `evaluate` extra; nothing that serves
imports it.
"""
