"""The chart of deploy/helm, rendered by helm itself, by Kubernetes' schemas and the service."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

import hatch_version
from bandit_service import cli, settings
from loadtest import helm
from tests.monitoring.files import DEPLOY, documents
from tests.tools import missing

ENGINES = ("sqlite", "postgres", "jetstream")
SHARED = "log.engine=postgres"
ALL = [
    *[[f"log.engine={engine}"] for engine in ENGINES],
    [SHARED, "autoscaling.enabled=true", "autoscaling.metric=foldBusyRatio"],
    [SHARED, "autoscaling.enabled=true", "updateStrategy=RollingUpdate"],
    [SHARED, "migrate=true", "image.pullSecrets[0]=registry", "priorityClassName=high"],
    [
        "serviceMonitor.enabled=true",
        "serviceMonitor.labels.release=prometheus",
        "service.type=LoadBalancer",
        "service.annotations.a=b",
        "storage.className=fast",
        "env[0].name=HTTPS_PROXY",
        "env[0].value=http://proxy:3128",
        "allowedHosts[0]=router.example",
        "podAnnotations.a=b",
        "nodeSelector.disk=ssd",
        "tolerations[0].key=a",
        "tolerations[0].operator=Exists",
        "podDisruptionBudget.enabled=false",
        "drainSeconds=20",
        "startupSeconds=1201",
        "serviceAccount.create=true",
        "serviceAccount.annotations.a=b",
        "networkPolicy.enabled=true",
        "ingress.enabled=true",
        "ingress.hosts[0]=a.example",
        "podLabels.a=b",
        "replicas=0",
    ],
]


@pytest.fixture(autouse=True)
def _needs_helm() -> None:
    if helm.program() is None:
        missing("helm: make helm")


def _rendered(*values: str, release: str = "bandit-service") -> dict[str, Any]:
    """Each object by its kind; the headless Service is `Pods`."""
    found = {}
    for each in yaml.safe_load_all(helm.rendered(*values, release=release)):
        headless = each["spec"].get("clusterIP") == "None" if "spec" in each else False
        found["Pods" if headless else each["kind"]] = each
    return found


def _pod(found: dict[str, Any], kind: str = "StatefulSet") -> dict[str, Any]:
    pod: dict[str, Any] = found[kind]["spec"]["template"]["spec"]
    return pod


def _environ(found: dict[str, Any], kind: str = "StatefulSet") -> dict[str, str]:
    (container,) = _pod(found, kind)["containers"]
    names = [each["name"] for each in container["env"]]
    assert len(names) == len(set(names))
    return {each["name"]: each["value"] for each in container["env"]}


@pytest.mark.parametrize("values", ALL, ids=" ".join)
def test_helm_and_kubernetes_agree_with_what_is_rendered(values: list[str]) -> None:
    options = [part for value in values for part in ("--set", value)]
    helm.helm("lint", "--strict", str(helm.CHART), *options)
    found = _rendered(*values)
    for kind, each in found.items():
        if kind != "ServiceMonitor":  # the operator's, of which no schema is at hand
            kubernetes_validate.validate(each, "1.30", strict=True)
    assert "Secret" not in found, "secrets are by reference alone"
    found["StatefulSet"]["spec"]["replica"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(found["StatefulSet"], "1.30", strict=True)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_service_accepts_what_is_rendered(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "bandit.toml"
    written.write_text("[log]\nengine = 'sqlite'\n\n[policy]\nname = 'eagle'\n")
    file = ["--set-file", f"configuration={written}"]
    text = helm.helm("template", "x", str(helm.CHART), "--set", f"log.engine={engine}", *file)
    found = {each["kind"]: each for each in yaml.safe_load_all(text)}
    pod = _pod(found)
    (container,) = pod["containers"]
    mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    dsn = "nats://u:p@h:4222" if engine == "jetstream" else "postgresql://u:p@h:5432/d"
    key = f'[[keys]]\nid = "app"\nhash = "{"0" * 64}"\nscopes = ["decide"]\n'
    (secrets / "keys.toml").write_text(key)
    (secrets / "dsn").write_text(dsn)
    environ = _environ(found)
    for name, value in environ.items():
        monkeypatch.setenv(name, value.replace(mounts["secrets"], str(secrets)))
    *command, path = container["args"]
    assert path == f"{mounts['configuration']}/bandit.toml"
    assert command == ["bandit-service", "serve", "--config"]
    config = tmp_path / "mounted.toml"
    config.write_text(found["ConfigMap"]["data"]["bandit.toml"])
    assert cli.main(["config", "check", "--config", str(config)]) == 0
    assert "policy eagle" in capsys.readouterr().out
    chosen = settings.read(config)
    assert (chosen.log.engine, [each.id for each in chosen.keys]) == (engine, ["app"])
    assert chosen.dsn == ("" if engine == "sqlite" else dsn)
    # without a key it serves nobody
    (secrets / "keys.toml").write_text("")
    assert cli.main(["config", "check", "--config", str(config)]) == cli.USAGE_ERROR
    image = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"BANDIT_DATA_DIR=(\S+)", image) == [mounts["data"]]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (["replicas=3"], "replicas is 3 and log.engine is sqlite, whose log has one writer"),
        (["autoscaling.enabled=true"], "set log.engine to postgres or jetstream"),
        (["migrate=true"], "migrate is true and log.engine is sqlite"),
        (["log.engine=mysql"], "'/log/engine': value must be one of 'sqlite', 'postgres'"),
        (["replica=3"], "additional properties 'replica' not allowed"),
        (["secret.value=x"], "'/secret': additional properties 'value' not allowed"),
        ([SHARED, "replicas=-1"], "'/replicas': minimum: got -1"),
        ([SHARED, "replicas=two"], "'/replicas': got string, want null or integer"),
        ([SHARED, "replicas=3", "autoscaling.enabled=true"], "the autoscaler sets the number"),
        (
            [SHARED, "autoscaling.minReplicas=9"],
            "autoscaling.minReplicas is 9, more than autoscaling.maxReplicas, 6",
        ),
        ([SHARED, "autoscaling.metric=load"], "'cpu', 'foldBusyRatio'"),
        (["env[0].name=BANDIT_LOG_ENGINE"], "env: BANDIT_LOG_ENGINE is set by the chart"),
        (["updateStrategy=Recreate"], "'/updateStrategy'"),
        (["storage.size=big"], "'/storage/size'"),
        (["ingress.enabled=true"], "'/ingress/hosts': minItems: got 0, want 1"),
        (["ingress.hosts[0]=*.example"], "'/ingress/hosts/0'"),
        (["image.digest=1.2"], "'/image/digest'"),
        (["env[0].name=BANDIT_SERVER_SHUTDOWN_S"], "drainSeconds or shutdownSeconds"),
    ],
    ids=lambda each: each if isinstance(each, str) else " ".join(each),
)
def test_values_that_cannot_be_are_refused_with_their_name(values: list[str], said: str) -> None:
    with pytest.raises(helm.HelmError) as refused:
        helm.rendered(*values)
    assert said in str(refused.value)


def test_one_value_switches_the_engine_of_a_release_that_is_there() -> None:
    """Kubernetes refuses a change of any other field of a StatefulSet's spec."""
    specs = [_rendered(f"log.engine={engine}")["StatefulSet"]["spec"] for engine in ENGINES]
    changed = ("replicas", "template", "updateStrategy")
    fixed = [{key: value for key, value in spec.items() if key not in changed} for spec in specs]
    assert fixed[0] == fixed[1] == fixed[2]
    assert [spec["replicas"] for spec in specs] == [1, 3, 3]
    assert [spec["updateStrategy"]["type"] for spec in specs] == [
        "RollingUpdate",
        "OnDelete",
        "OnDelete",
    ]


def test_what_selects_the_replicas_selects_all_of_them_and_nothing_else() -> None:
    found = _rendered(SHARED, "migrate=true", "serviceMonitor.enabled=true", release="one")
    replicas = found["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    job = found["Job"]["spec"]["template"]["metadata"]["labels"]
    for selector in (
        found["Service"]["spec"]["selector"],
        found["Pods"]["spec"]["selector"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        found["StatefulSet"]["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= replicas.items()
        assert not selector.items() <= job.items()
    scraped = found["ServiceMonitor"]["spec"]["selector"]["matchLabels"].items()
    assert scraped <= found["Service"]["metadata"]["labels"].items()
    assert not scraped <= found["Pods"]["metadata"]["labels"].items(), "each pod once"
    other = _rendered(SHARED, release="other")["StatefulSet"]["spec"]["template"]["metadata"]
    assert not found["Service"]["spec"]["selector"].items() <= other["labels"].items()
    assert found["StatefulSet"]["spec"]["serviceName"] == found["Pods"]["metadata"]["name"]


def test_the_migration_has_the_volume_of_the_first_replica_while_there_is_none() -> None:
    found = _rendered(SHARED, "migrate=true", "autoscaling.enabled=true")
    assert found["StatefulSet"]["spec"]["replicas"] == 0
    assert "HorizontalPodAutoscaler" not in found
    pod = _pod(found, "Job")
    (claim,) = (each for each in pod["volumes"] if "persistentVolumeClaim" in each)
    workload = found["StatefulSet"]
    (template,) = workload["spec"]["volumeClaimTemplates"]
    first = f"{template['metadata']['name']}-{workload['metadata']['name']}-0"
    assert claim["persistentVolumeClaim"]["claimName"] == first
    assert claim["name"] == template["metadata"]["name"]
    (container,) = pod["containers"]
    assert container["args"][:2] == ["bandit-service", "migrate"]
    assert _environ(found, "Job") == _environ(found)


def test_the_autoscaler_asks_for_a_metric_that_is_recorded_and_named() -> None:
    found = _rendered(
        SHARED, "autoscaling.enabled=true", "autoscaling.metric=foldBusyRatio", release="mine"
    )
    assert "replicas" not in found["StatefulSet"]["spec"], "an upgrade would set the number back"
    (metric,) = found["HorizontalPodAutoscaler"]["spec"]["metrics"]
    wanted = metric["external"]["metric"]
    assert wanted["selector"]["matchLabels"] == {"service": found["Service"]["metadata"]["name"]}
    (adapter,) = documents("prometheus/adapter.yaml")
    (rule,) = adapter["rules"]["external"]
    assert rule["name"]["as"] == wanted["name"]
    (rules,) = documents("prometheus/rules.yaml")
    recorded = {each.get("record") for group in rules["groups"] for each in group["rules"]}
    (series,) = re.findall('__name__="([^"]+)"', rule["seriesQuery"])
    assert series in recorded
    assert re.fullmatch(rule["name"]["matches"], series)
    by_cpu = _rendered(SHARED, "autoscaling.enabled=true")["HorizontalPodAutoscaler"]["spec"]
    assert by_cpu["metrics"][0]["resource"]["target"]["averageUtilization"] == 60


def test_the_pod_ends_by_itself_before_kubernetes_ends_it() -> None:
    found = _rendered("drainSeconds=5", "shutdownSeconds=120")
    environ = _environ(found)
    needs = int(environ["BANDIT_SERVER_DRAIN_S"]) + int(environ["BANDIT_SERVER_SHUTDOWN_S"])
    assert needs == 125
    assert _pod(found)["terminationGracePeriodSeconds"] > needs + 10
    default = settings.read(None, {}).server.shutdown_s
    assert float(_environ(_rendered())["BANDIT_SERVER_SHUTDOWN_S"]) == default


def test_a_digest_takes_the_place_of_the_tag() -> None:
    digest = f"sha256:{'0' * 64}"
    images = [
        _pod(_rendered("image.repository=r:5000/b", *more))["containers"][0]["image"]
        for more in ([], ["image.tag=t"], ["image.tag=t", f"image.digest={digest}"])
    ]
    assert images == [f"r:5000/b:{hatch_version.NEXT}", "r:5000/b:t", f"r:5000/b@{digest}"]


def test_the_account_and_who_may_ask_are_the_platforms() -> None:
    assert "serviceAccountName" not in _pod(_rendered())
    assert _pod(_rendered("serviceAccount.name=theirs"))["serviceAccountName"] == "theirs"
    found = _rendered(SHARED, "serviceAccount.create=true", "networkPolicy.enabled=true")
    assert _pod(found)["serviceAccountName"] == found["ServiceAccount"]["metadata"]["name"]
    policy, labels = found["NetworkPolicy"]["spec"], found["StatefulSet"]["spec"]["template"]
    assert policy["podSelector"]["matchLabels"].items() <= labels["metadata"]["labels"].items()
    ((rule),) = policy["ingress"]
    (container,) = _pod(found)["containers"]
    assert rule["ports"][0]["port"] in [each["name"] for each in container["ports"]]
    assert rule["from"] == [{"podSelector": {}}]
    peer = "networkPolicy.from[0].namespaceSelector.matchLabels.a=b"
    rule = _rendered("networkPolicy.enabled=true", peer)["NetworkPolicy"]["spec"]["ingress"][0]
    assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"a": "b"}}}]


def test_an_ingress_leads_to_the_service_by_the_names_that_it_accepts() -> None:
    assert "Ingress" not in _rendered()
    hosts = ["ingress.enabled=true", "ingress.hosts[0]=a.example", "ingress.hosts[1]=b.example"]
    found = _rendered(*hosts, "allowedHosts[0]=a.example", "service.port=80")
    spec = found["Ingress"]["spec"]
    assert "tls" not in spec
    assert "ingressClassName" not in spec
    assert [rule["host"] for rule in spec["rules"]] == ["a.example", "b.example"]
    for rule in spec["rules"]:
        (path,) = rule["http"]["paths"]
        assert (path["path"], path["pathType"]) == ("/", "Prefix")
        backend = path["backend"]["service"]
        assert backend["name"] == found["Service"]["metadata"]["name"]
        assert backend["port"]["name"] in [one["name"] for one in found["Service"]["spec"]["ports"]]
    accepted = _environ(found)["BANDIT_SERVER_ALLOWED_HOSTS"].split(",")
    assert accepted[-2:] == ["a.example", "b.example"]
    assert "b.example" not in _environ(_rendered(*hosts[1:]))["BANDIT_SERVER_ALLOWED_HOSTS"]
    more = ["ingress.className=nginx", "ingress.tlsSecret=cert", "ingress.annotations.a=b"]
    spec = _rendered(*hosts, *more)["Ingress"]["spec"]
    assert spec["ingressClassName"] == "nginx"
    assert spec["tls"] == [{"secretName": "cert", "hosts": ["a.example", "b.example"]}]
    assert "Ingress" not in _rendered(*hosts, SHARED, "migrate=true")


def test_another_configuration_makes_another_pod() -> None:
    pods = [
        _rendered(f"configuration={text}")["StatefulSet"]["spec"]["template"]
        for text in ("", "[policy]", "[policy]")
    ]
    assert pods[0] != pods[1] == pods[2]


def test_names_are_those_that_kubernetes_takes_however_long_the_releases_is() -> None:
    for each in _rendered(SHARED, "migrate=true", release="r" * 53).values():
        # a pod's name has the ordinal behind it, and is a label
        assert len(each["metadata"]["name"]) <= 60


def test_the_commands_of_the_notes_are_commands(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["install", "mine", str(helm.CHART), "--dry-run=client", "--set"]
    for engine in ENGINES:
        notes = helm.helm(*asked, f"log.engine={engine}").partition("NOTES:")[2]
        (command,) = re.findall(r"^ +bandit-service (.+) > keys.toml$", notes, re.MULTILINE)
        assert cli.main(shlex.split(command)) == 0
        assert "[[keys]]" in capsys.readouterr().out
        assert ("--from-file dsn=dsn" in notes) == (engine != "sqlite")
        assert f"service/{_rendered(release='mine')['Service']['metadata']['name']} " in notes
    assert "mine-bandit-service-migrate" in helm.helm(*asked, f"{SHARED},migrate=true")


def test_the_chart_has_the_version_of_the_service() -> None:
    (chart,) = documents("helm/bandit-service/Chart.yaml")
    assert chart["version"] == chart["appVersion"] == hatch_version.NEXT


@pytest.mark.parametrize("name", helm.MANIFESTS)
def test_the_plain_manifests_are_what_the_chart_renders(name: str) -> None:
    assert (helm.OUT / name).read_text(encoding="utf-8") == helm.manifest(name), "make manifests"
