"""Other libraries compared with our policies: the same stream and reward, by their public APIs.

    python -m loadtest.peers --data paretobandit --seeds 20

docs/peers.md says what is compared and how to read it.
"""
