"""An online-learning router for large language models."""

import os
from importlib import metadata

# Before numpy is imported: the matrices are small, and OpenBLAS's further threads wait by spinning,
# which takes half a core from whoever decides. Who wants them sets the number.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # noqa: TID251 - set for it, not read

import policies
import store

try:
    __version__ = metadata.version("bandit-service")
except metadata.PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0.2.0.dev0"

# onnxruntime tells its makers how it is used, and keeps a number of the machine in the user's
# cache, unless this is there when it is loaded. Who wants that sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # noqa: TID251 - set for it, not read

for _package in (policies, store):
    if getattr(_package, "__distribution__", None) != "bandit-service":
        raise ImportError(
            f"{_package.__file__} shadows the package {_package.__name__!r} of bandit-service: "
            "another distribution uses that name; install bandit-service into a separate "
            "environment"
        )
