"""docker-compose.yml is valid, starts only commands that exist, and keeps its promises about safety."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.absence import absent
from wherefrom.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
#: The services that run our image.
OURS = sorted(name for name, service in SERVICES.items() if service["image"].startswith("wherefrom:"))
#: Those that stay up.
LASTING = [name for name in OURS if name != "migrate"]


def compose_tool() -> list[str]:
    """The tool that validates the file without an engine; absent in CI is a failure, elsewhere a skip."""
    if shutil.which("docker-compose") is None:
        absent("docker-compose is not installed")
    return ["docker-compose"]


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without what the file reads, so that its own defaults count."""
    return {name: value for name, value in os.environ.items() if not name.endswith("_PASSWORD")} | more


@pytest.mark.parametrize("profiles", ["", "gpu,measure", "scale", "build"])
def test_compose_accepts_the_file(profiles):
    """`docker-compose config` finds no fault, and warns of nothing, without a .env file, with and without the profiles."""
    ended = subprocess.run(
        [*compose_tool(), "-f", "docker-compose.yml", "config", "-q"],
        cwd=ROOT,
        env=clean_environment(COMPOSE_PROFILES=profiles),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_the_example_of_the_environment_is_complete():
    """Every variable that the file reads stands in .env.example, or is one that few ever set."""
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    read = {part.split(":", 1)[0].rstrip("}") for part in text.split("${")[1:]}
    offered = {
        line.split("=", 1)[0]
        for line in (ROOT / ".env.example").read_text("utf-8").splitlines()
        if "=" in line
    }
    assert read - offered == {"WHEREFROM_IMAGE_TAG"}


def test_all_parts_are_there():
    """The production shape: two stores, a migration, and the four lasting services."""
    always = {name for name, service in SERVICES.items() if "profiles" not in service}
    assert always == {"redis", "postgres", "migrate", "intake", "worker", "sweeper", "web"}
    assert SERVICES["measurer"]["profiles"] == ["measure"], "it trains models; nobody gets it unasked"
    assert SERVICES["builder"]["profiles"] == ["build"], "it loads models; nobody gets it unasked"


def test_the_gpu_worker_reserves_gpus():
    """Only where it is asked for, from the image's GPU target, with every GPU of the host and one process per GPU as it is told."""
    worker = SERVICES["worker-gpu"]
    assert worker["profiles"] == ["gpu"]
    assert worker["build"]["target"] == "gpu"
    assert worker["image"] != SERVICES["worker"]["image"], "two builds under one name would take turns"
    (asked,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert asked == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert {"WHEREFROM_DEVICE", "WHEREFROM_DTYPE"} <= worker["environment"].keys()
    assert [name for name, one in SERVICES.items() if "deploy" in one] == ["worker-gpu"]


def test_three_workers_share_a_milvus():
    """Only where it is asked for, from an image that has the client; the server is reached by nobody else, and keeps its vectors."""
    worker, milvus = SERVICES["worker-scale"], SERVICES["milvus"]
    assert worker["profiles"] == milvus["profiles"] == ["scale"]
    assert worker["scale"] == 3
    assert "milvus" in worker["build"]["args"]["EXTRAS"].split(",")
    assert worker["image"] not in {SERVICES[name]["image"] for name in ("worker", "worker-gpu")}
    assert worker["environment"]["WHEREFROM_MILVUS_URI"] == "http://milvus:19530"
    assert milvus["volumes"] == ["milvusdata:/var/lib/milvus"]
    assert "ports" not in milvus
    assert ":" in milvus["image"], "a release by its name, not whatever is newest"


def test_the_image_has_a_gpu_target_and_is_built_without_it_unasked():
    """The target is refused where torch has no CUDA; the last stage is the plain image."""
    stages = [
        line.split()[1:]
        for line in (ROOT / "Dockerfile").read_text("utf-8").splitlines()
        if line.startswith("FROM ")
    ]
    assert ["runtime", "AS", "gpu"] in stages
    assert stages[-1] == ["runtime"]
    gpu = (ROOT / "Dockerfile").read_text("utf-8").partition("FROM runtime AS gpu\n")[2]
    assert "torch.version.cuda" in gpu.splitlines()[0]


@pytest.mark.parametrize("name", OURS)
def test_service_is_locked_down(name):
    """Our containers have no capabilities, cannot gain any, and cannot write into the image."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    writable = [volume for volume in service.get("volumes", []) if not volume.endswith(":ro")]
    assert writable == {"measurer": ["measured:/measured"], "builder": ["parts:/parts"]}.get(name, [])


@pytest.mark.parametrize("name", OURS)
def test_environment_names_real_settings(name):
    """A variable that no setting reads would be a silent mistake."""
    for variable in SERVICES[name]["environment"]:
        assert variable.removeprefix("WHEREFROM_").lower() in Settings.model_fields, variable


def test_nobody_is_served_without_a_key():
    """Compose is production: the web service asks its own machine for keys too."""
    assert SERVICES["web"]["environment"]["WHEREFROM_PRODUCTION"] == "true"


def test_only_the_web_service_can_be_reached():
    """One published port, on loopback; everything else is on a network without a way out."""
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert list(published) == ["web"]
    assert all(port.startswith("127.0.0.1:") for port in published["web"])
    assert COMPOSE["networks"]["inside"]["internal"] is True
    assert all(SERVICES[name]["networks"] == ["inside"] for name in SERVICES if name != "web")


def test_stores_outlive_their_containers():
    """Redis and PostgreSQL keep their data in named volumes; Redis appends to a file and never evicts."""
    assert SERVICES["redis"]["volumes"] == ["redisdata:/data"]
    assert SERVICES["postgres"]["volumes"] == ["pgdata:/var/lib/postgresql/data"]
    command = SERVICES["redis"]["command"][-1]
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


def test_nobody_starts_before_the_schema_is_there():
    """Every lasting service waits for the migration to have ended well and for the stores to be healthy."""
    for name in LASTING:
        waits = {other: wish["condition"] for other, wish in SERVICES[name]["depends_on"].items()}
        more = {"milvus": "service_healthy"} if name == "worker-scale" else {}
        assert waits == more | {
            "migrate": "service_completed_successfully",
            "redis": "service_healthy",
            "postgres": "service_healthy",
        }
        assert SERVICES[name]["restart"] == "unless-stopped"


def test_redis_refuses_an_empty_password():
    """Without a .env file the stack fails at its start instead of running open."""
    ended = subprocess.run(
        ["sh", "-c", SERVICES["redis"]["command"][-1].replace("$$", "$")],
        env=clean_environment(REDIS_PASSWORD="", REDIS_APPENDFSYNC="always"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "REDIS_PASSWORD is empty" in ended.stderr


@pytest.mark.parametrize("folder", ["/measured", "/parts"])
def test_a_volume_belongs_to_the_user_of_the_image(folder):
    """A named volume takes its owner from the image: one of root could not be written to."""
    lines = (ROOT / "Dockerfile").read_text("utf-8").splitlines()
    (made,) = [line for line in lines if line.startswith("RUN mkdir /")]
    assert folder in made.partition("&& chown wherefrom:wherefrom ")[2].split()


def test_the_image_runs_as_another_user_than_root():
    """The last USER of the Dockerfile is not root, and no key or bundle is copied into the image."""
    lines = (ROOT / "Dockerfile").read_text("utf-8").splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == ["wherefrom"]
    assert not [line for line in lines if line.startswith("COPY") and line.split()[1] in {".", "./"}]
