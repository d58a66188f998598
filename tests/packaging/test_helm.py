"""The chart, rendered by real Helm and judged by the API's own schemas for the oldest and the newest Kubernetes."""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import kubernetes_validate
import pytest
import yaml
from helm_binary import WHEELS, require_helm

from bridge.delivery import sinks
from bridge.intake import providers
from bridge.settings import ConfigError, load

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "jobbridge"
KUBERNETES = ["1.25", "1.37"]

Object = dict[str, Any]

FULL: Object = {
    "config": {
        "sources": {"auvy-prod": {"provider": "auvy", "token": "${AUVY_TOKEN}"}},
        "sinks": {
            "events": {"kind": "kafka", "bootstrap_servers": "kafka:9092", "batch_bytes": 1_000_000},
            "partner": {"kind": "webhook", "url": "https://partner.example/hooks", "secret": "${PARTNER_SECRET}"},
        },
        "control": {"port": 9090, "token": "${CONTROL_TOKEN}"},
        "journal": {"high_water_bytes": 10_737_418_240},
        "supervision": {"drain_timeout_s": 45.5},
    },
    "image": {"repository": "registry.example:5000/team/jobbridge", "digest": "sha256:" + "0f" * 32},
    "imagePullSecrets": [{"name": "registry"}],
    "existingSecret": {"name": "jobbridge-secrets", "env": True, "files": True},
    "persistence": {"storageClassName": "fast", "accessModes": ["ReadWriteOncePod"], "annotations": {"a/b": "c"}},
    "service": {"type": "NodePort", "port": 80, "annotations": {"a/b": "c"}},
    "serviceAccount": {"name": "bridge", "annotations": {"a/b": "c"}},
    "livenessProbe": {"initialDelaySeconds": 1},
    "resources": {"limits": {"cpu": 2}},
    "extraEnv": [{"name": "TZ", "value": "UTC"}],
    "extraEnvFrom": [{"configMapRef": {"name": "proxies"}}],
    "extraVolumes": [{"name": "ca", "configMap": {"name": "corporate-ca"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca", "readOnly": True}],
    "podAnnotations": {"a/b": "true"},
    "podLabels": {"team": "jobs"},
    "priorityClassName": "high",
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "tolerations": [{"key": "jobs", "operator": "Exists", "effect": "NoSchedule"}],
}

VALUES = pytest.mark.parametrize("values", [{}, FULL], ids=["default", "full"])


class Helm(NamedTuple):
    """One Helm, away from the user's own settings."""

    binary: Path
    home: Path

    def run(self, *arguments: str, values: Object | None = None) -> subprocess.CompletedProcess[str]:
        environment = {"HOME": str(self.home), "PATH": ""}
        command = [str(self.binary), *arguments, "--values", "-"]
        given = json.dumps(values or {})
        return subprocess.run(command, input=given, env=environment, capture_output=True, text=True, check=False)

    def render(
        self, values: Object | None = None, release: str = "r", kubernetes: str = KUBERNETES[-1]
    ) -> list[Object]:
        done = self.run("template", release, str(CHART), "-n", "jobs", "--kube-version", kubernetes, values=values)
        assert done.returncode == 0, done.stderr
        return [found for found in yaml.safe_load_all(done.stdout) if found]


@pytest.fixture(scope="session", params=list(WHEELS))
def helm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(require_helm(request.param), tmp_path_factory.mktemp("home"))


def only(objects: list[Object], kind: str) -> Object:
    (found,) = (candidate for candidate in objects if candidate["kind"] == kind)
    return found


def pod(objects: list[Object]) -> Object:
    spec: Object = only(objects, "StatefulSet")["spec"]["template"]["spec"]
    return spec


def config(objects: list[Object]) -> Object:
    parsed: Object = yaml.safe_load(only(objects, "ConfigMap")["data"]["jobbridge.yaml"])
    return parsed


def checksum(objects: list[Object]) -> str:
    annotations = only(objects, "StatefulSet")["spec"]["template"]["metadata"]["annotations"]
    return str(annotations["checksum/config"])


@VALUES
def test_helm_finds_nothing_to_complain_about(helm: Helm, values: Object) -> None:
    done = helm.run("lint", "--strict", str(CHART), values=values)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kubernetes", KUBERNETES)
@VALUES
def test_kubernetes_knows_every_field(helm: Helm, values: Object, kubernetes: str) -> None:
    objects = helm.render(values, kubernetes=kubernetes)
    assert sorted(found["kind"] for found in objects) == [
        "ConfigMap",
        "Service",
        "Service",
        "ServiceAccount",
        "StatefulSet",
    ]
    for found in objects:
        kubernetes_validate.validate(found, kubernetes, strict=True)
        assert found["metadata"]["namespace"] == "jobs"


def unrestricted(spec: Object) -> list[str]:
    """Where a pod falls short of the "restricted" Pod Security Standard (kubernetes.io, as of Kubernetes 1.37)."""
    inside = {"runAsNonRoot": True, "allowPrivilegeEscalation": False, "privileged": False}
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    flaws = [key for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    flaws += [volume["name"] for volume in spec["volumes"] if set(volume) - {"name"} - allowed]
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        context = {"privileged": False} | spec.get("securityContext", {}) | container.get("securityContext", {})
        flaws += [key for key, wanted in inside.items() if context.get(key) is not wanted]
        flaws += ["runAsUser"] * (context.get("runAsUser") == 0)
        flaws += ["seccompProfile"] * (
            context.get("seccompProfile", {}).get("type") not in {"RuntimeDefault", "Localhost"}
        )
        capabilities = context.get("capabilities", {})
        flaws += ["capabilities"] * (capabilities.get("drop") != ["ALL"] or "add" in capabilities)
        flaws += ["hostPort" for port in container.get("ports", []) if "hostPort" in port]
    return flaws


@VALUES
def test_the_pod_may_run_where_only_restricted_pods_may(helm: Helm, values: Object) -> None:
    spec = pod(helm.render(values))
    assert unrestricted(spec) == []
    assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False


def test_the_restricted_check_itself_sees_a_pod_that_is_not(helm: Helm) -> None:
    loose = {"podSecurityContext": {"runAsNonRoot": None}, "securityContext": {"capabilities": {"drop": []}}}
    volume = {"extraVolumes": [{"name": "host", "hostPath": {"path": "/"}}]}
    assert unrestricted(pod(helm.render(loose | volume))) == ["host", "runAsNonRoot", "capabilities"]


REFUSED: list[tuple[Object, str]] = [
    ({"imagee": {}}, "imagee"),
    ({"replicaCount": 3}, "/replicaCount"),
    ({"replicaCount": "1"}, "/replicaCount"),
    ({"image": {"tag": "latest"}}, "/image/tag"),
    ({"image": {"digest": "sha256:short"}}, "/image/digest"),
    ({"existingSecret": "token"}, "/existingSecret"),
    ({"podLabels": {"team": 7}}, "/podLabels/team"),
    ({"config": {"control": {"port": 0}}}, "/config/control/port"),
    ({"config": {"sources": ["auvy"]}}, "/config/sources"),
    ({"config": {"control": {"host": "127.0.0.1"}}}, "no probe can reach it"),
    ({"config": {"supervision": {"drain_timeout_s": 60}}}, "terminationGracePeriodSeconds (60) must be longer"),
]
CLOSED = ["image", "existingSecret", "persistence", "service", "serviceAccount", "resources", "startupProbe"]


@pytest.mark.parametrize(
    ("values", "said"), REFUSED + [({section: {"typo": 1}}, "typo") for section in CLOSED], ids=json.dumps
)
def test_a_mistake_in_the_values_is_refused_and_named(helm: Helm, values: Object, said: str) -> None:
    done = helm.run("template", "r", str(CHART), values=values)
    assert done.returncode != 0
    assert said in done.stderr


def test_two_releases_in_one_namespace_share_no_name_and_no_pod(helm: Helm) -> None:
    one, two = helm.render(release="one"), helm.render(release="two")
    names = [(found["kind"], found["metadata"]["name"]) for found in one + two]
    assert len(names) == len(set(names))
    labels = only(two, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    for selector in [only(one, "StatefulSet")["spec"]["selector"]["matchLabels"], *selectors(one)]:
        assert not selector.items() <= labels.items()


def selectors(objects: list[Object]) -> list[Object]:
    return [found["spec"]["selector"] for found in objects if found["kind"] == "Service"]


@VALUES
def test_every_selector_finds_the_pod_and_every_port_its_name(helm: Helm, values: Object) -> None:
    objects = helm.render(values)
    labels = only(objects, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    assert all(selector.items() <= labels.items() for selector in selectors(objects))
    headless = only(objects, "StatefulSet")["spec"]["serviceName"]
    assert headless in {found["metadata"]["name"] for found in objects if found["kind"] == "Service"}
    (port,) = pod(objects)["containers"][0]["ports"]
    assert port == {"name": "http", "containerPort": config(objects)["control"]["port"]}


def test_the_longest_release_name_still_gives_legal_names(helm: Helm) -> None:
    for found in helm.render(release="a" * 53):
        room = 52 if found["kind"] == "StatefulSet" else 63  # eleven more for the revision's hash in a label
        assert len(found["metadata"]["name"]) <= room


def test_the_config_arrives_as_it_was_given(helm: Helm) -> None:
    given, arrived = FULL["config"], config(helm.render(FULL))
    for section, settings in given.items():
        assert settings.items() <= arrived[section].items()
    assert isinstance(arrived["journal"]["high_water_bytes"], int)
    assert arrived["control"]["host"] == "0.0.0.0"


def test_the_service_itself_accepts_the_config(helm: Helm, tmp_path: Path) -> None:
    (tmp_path / "jobbridge.yaml").write_text(only(helm.render(FULL), "ConfigMap")["data"]["jobbridge.yaml"])
    environment = {"AUVY_TOKEN": "ak_live_1", "CONTROL_TOKEN": "t" * 32, "PARTNER_SECRET": "whsec_" + "A" * 32}
    settings = load(tmp_path / "jobbridge.yaml", environment, providers.catalogue(), sinks.catalogue())
    assert set(settings.sources) == {"auvy-prod"}
    assert set(settings.sinks) == {"events", "partner"}
    assert settings.journal.high_water_bytes == 10_737_418_240


def test_the_default_config_lacks_only_what_every_user_has_to_name(helm: Helm, tmp_path: Path) -> None:
    (tmp_path / "jobbridge.yaml").write_text(only(helm.render(), "ConfigMap")["data"]["jobbridge.yaml"])
    with pytest.raises(ConfigError) as raised:
        load(tmp_path / "jobbridge.yaml", {}, providers.catalogue(), sinks.catalogue())
    assert {mistake.path for mistake in raised.value.mistakes} == {"sources", "sinks"}


def test_the_pod_is_replaced_when_the_config_changes_and_only_then(helm: Helm) -> None:
    plain = checksum(helm.render())
    assert checksum(helm.render({"config": {"telemetry": {"log_level": "debug"}}})) != plain
    assert checksum(helm.render({"podLabels": {"team": "jobs"}, "service": {"port": 80}})) == plain


@pytest.mark.parametrize(("env", "files"), [(True, False), (False, True), (False, False)])
def test_a_secret_comes_as_variables_or_as_files_and_is_never_written(helm: Helm, env: bool, files: bool) -> None:
    objects = helm.render({"existingSecret": {"name": "keys", "env": env, "files": files}})
    container = pod(objects)["containers"][0]
    assert ("envFrom" in container) is env
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert ("/run/secrets/jobbridge" in mounts) is files
    assert all(mount.get("readOnly") for path, mount in mounts.items() if path.startswith(("/run", "/etc")))
    assert "Secret" not in {found["kind"] for found in objects}


@pytest.mark.parametrize(
    ("persistence", "volume"),
    [
        ({}, None),
        ({"existingClaim": "kept"}, {"name": "data", "persistentVolumeClaim": {"claimName": "kept"}}),
        ({"enabled": False, "existingClaim": "kept"}, {"name": "data", "emptyDir": {}}),
    ],
    ids=["own claim", "existing claim", "off"],
)
def test_the_journal_has_exactly_one_place(helm: Helm, persistence: Object, volume: Object | None) -> None:
    objects = helm.render({"persistence": persistence})
    claims = only(objects, "StatefulSet")["spec"].get("volumeClaimTemplates", [])
    volumes = [found for found in pod(objects)["volumes"] if found["name"] == "data"]
    assert [claim["metadata"]["name"] for claim in claims] == ([] if volume else ["data"])
    assert volumes == ([volume] if volume else [])
    mounts = {mount["name"]: mount["mountPath"] for mount in pod(objects)["containers"][0]["volumeMounts"]}
    assert config(objects)["journal"]["url"].startswith(f"sqlite:///{mounts['data']}/")


def test_the_chart_starts_the_version_it_lies_beside() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
