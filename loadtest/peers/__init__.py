"""The nearest peers head to head: the same stream, the same reward, each through its public API.

    python -m loadtest.peers --data paretobandit --seeds 20

docs/peers.md says what is compared and how to read it.
"""
