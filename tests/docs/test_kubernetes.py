"""The manifests of ops/kubernetes fit the schemas of Kubernetes, start only commands that exist, and keep the promises of docker-compose.yml."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from wherefrom.settings import Settings
from wherefrom.version import __version__

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "ops" / "kubernetes"
#: File and document.
MANIFESTS: list[tuple[str, dict[str, Any]]] = [
    (file.name, one)
    for file in sorted(FOLDER.glob("*.yaml"))
    for one in yaml.safe_load_all(file.read_text("utf-8"))
]
WORKLOADS = [one for _, one in MANIFESTS if one["kind"] in {"Deployment", "Job"}]


def named(manifest: dict[str, Any]) -> str:
    """Kind and name."""
    return f"{manifest['kind']} {manifest['metadata']['name']}"


def pod_of(workload: dict[str, Any]) -> dict[str, Any]:
    """The pod that it starts."""
    pod: dict[str, Any] = workload["spec"]["template"]["spec"]
    return pod


def container_of(workload: dict[str, Any]) -> dict[str, Any]:
    """Its one container."""
    (container,) = pod_of(workload)["containers"]
    found: dict[str, Any] = container
    return found


@pytest.mark.parametrize(("file", "manifest"), MANIFESTS, ids=[f"{f}:{named(m)}" for f, m in MANIFESTS])
def test_kubernetes_knows_every_field(file: str, manifest: dict[str, Any]) -> None:
    """By the strict schemas of the oldest and the newest Kubernetes that there are: no unknown field, no wrong kind of value."""
    import kubernetes_validate
    from kubernetes_validate.utils import all_versions

    versions = all_versions()
    for version in (versions[0], versions[-1]):
        kubernetes_validate.validate(manifest, version, strict=True)
    assert manifest["metadata"].get("namespace", "wherefrom") == "wherefrom", file


def test_a_misspelt_field_would_be_found() -> None:
    """The test above can fail."""
    import kubernetes_validate
    from kubernetes_validate.utils import all_versions

    wrong = yaml.safe_load((FOLDER / "intake.yaml").read_text("utf-8"))
    wrong["spec"]["replica"] = wrong["spec"].pop("replicas")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, all_versions()[-1], strict=True)


def test_all_parts_are_there() -> None:
    """The migration and the five lasting processes, of the release's image; the page of the folder names every file."""
    assert {named(one) for one in WORKLOADS} == {
        f"Job wherefrom-migrate-{__version__.replace('.', '-')}",
        *(f"Deployment wherefrom-{name}" for name in ("web", "intake", "sweeper", "worker", "builder")),
    }
    assert {container_of(one)["image"] for one in WORKLOADS} == {f"wherefrom:{__version__}"}
    page = (FOLDER / "README.md").read_text("utf-8")
    assert set(re.findall(r"\]\((\w+\.yaml)\)", page)) == {file for file, _ in MANIFESTS}


@pytest.mark.parametrize("workload", WORKLOADS, ids=named)
def test_a_pod_is_locked_down(workload: dict[str, Any]) -> None:
    """No root, no capability, no writing into the image, no token, bounded memory; bundles and models cannot be written, parts only by build workers."""
    pod, container = pod_of(workload), container_of(workload)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
    assert "memory" in container["resources"]["limits"]
    writable = [one["mountPath"] for one in container["volumeMounts"] if not one.get("readOnly")]
    assert writable == (["/tmp", "/parts"] if container["name"] == "builder" else ["/tmp"])
    assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in pod["volumes"]}


@pytest.mark.parametrize("workload", WORKLOADS, ids=named)
def test_secrets_are_named_and_settings_exist(workload: dict[str, Any]) -> None:
    """URLs and secrets come from the secret alone; a variable that no setting reads would be a silent mistake."""
    container = container_of(workload)
    given = {one["name"]: one for one in container["env"]}
    (config,) = [one["data"] for _, one in MANIFESTS if one["kind"] == "ConfigMap"]
    for name in {*given, *config}:
        assert name.removeprefix("WHEREFROM_").lower() in Settings.model_fields, name
    secret = {"WHEREFROM_DATABASE_URL", "WHEREFROM_REDIS_URL", "WHEREFROM_SESSION_SECRET"} & given.keys()
    assert {"WHEREFROM_DATABASE_URL", "WHEREFROM_REDIS_URL"} <= secret
    page = (FOLDER / "README.md").read_text("utf-8")
    for name in secret:
        asked = given[name]["valueFrom"]["secretKeyRef"]
        assert asked["name"] == "wherefrom"
        assert f"--from-literal={asked['key']}=" in page
    assert not [one for _, one in MANIFESTS if one["kind"] == "Secret"]
    assert Settings.model_validate(
        {name.removeprefix("WHEREFROM_").lower(): yaml.safe_load(value) for name, value in config.items()}
    ).production


@pytest.mark.parametrize("workload", [one for one in WORKLOADS if one["kind"] == "Deployment"], ids=named)
def test_a_process_is_asked_whether_it_is_well(workload: dict[str, Any]) -> None:
    """By its own check; the web service over HTTP under a host that it accepts, and for readiness too."""
    container = container_of(workload)
    name = container["name"]
    assert container["command"][:3] == ["python", "-m", "worker"]
    for probe in ("startupProbe", "livenessProbe"):
        if name == "web":
            asked = container[probe]["httpGet"]
            assert (asked["path"], asked["httpHeaders"]) == (
                "/healthz",
                [{"name": "Host", "value": "localhost"}],
            )
        else:
            assert container[probe]["exec"]["command"] == ["python", "-m", "worker", "health", name]
    assert ("readinessProbe" in container) == (name == "web")
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert workload["spec"]["selector"]["matchLabels"] == labels


def test_only_the_web_service_can_be_reached() -> None:
    """One service, and policies that let nobody else in."""
    (service,) = [one for _, one in MANIFESTS if one["kind"] == "Service"]
    web = next(one for one in WORKLOADS if named(one) == "Deployment wherefrom-web")
    assert service["spec"]["selector"] == web["spec"]["template"]["metadata"]["labels"]
    policies = {
        one["metadata"]["name"]: one["spec"] for _, one in MANIFESTS if one["kind"] == "NetworkPolicy"
    }
    assert policies["wherefrom"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    assert policies["wherefrom-web"]["podSelector"]["matchLabels"] == service["spec"]["selector"]
