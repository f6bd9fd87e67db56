"""An online-learning router for large language models."""

import policies
import store

__version__ = "0.1.0"

for _package in (policies, store):
    if getattr(_package, "__distribution__", None) != "bandit-service":
        raise ImportError(
            f"{_package.__file__} shadows the package {_package.__name__!r} of bandit-service: "
            "another distribution uses that name; give bandit-service an environment of its own"
        )
