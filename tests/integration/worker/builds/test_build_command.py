"""The command of builds over many machines: what it takes, refuses, lists and cancels."""

import json
from pathlib import Path
from typing import Any

import pytest

from db import signs
from db.bundles import shared_builds
from tests.integration.worker.builds.conftest import (
    ROWS,
    SHARDS,
    Farm,
    content_of,
    raising,
    stop,
)
from tests.tiny import shared_corpus, shared_micro_model
from wherefrom.attribution.bundles.stored import stored_bundles
from wherefrom.errors import (
    ConfigurationError,
    NotFound,
    StorageUnavailable,
)
from wherefrom.records import MeasurementState
from wherefrom.storage import open_store
from wherefrom.storage.folder import FolderStore
from worker.checkup.upkeep import look_at_builds
from worker.commands import build_app
from worker.commands.build import cancel, list_builds
from worker.commands.build_app import make_build_app


@pytest.fixture
def told(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> Farm:
    """The farm, as the commands find it in their environment."""
    monkeypatch.setenv("WHEREFROM_DATABASE_URL", farm.settings.database_url.get_secret_value())
    monkeypatch.setenv("WHEREFROM_STATE_DIR", str(farm.folder / "state"))
    monkeypatch.setattr(build_app, "BuildHintSender", lambda *_, **__: farm.worker())
    return farm


def test_the_command_takes_urls(told: Farm, alone: dict[str, Any], bucket: str) -> None:
    """Corpus, bundle and parts at URLs: the bundle is in its store under its name, and nothing else is left there or on this machine."""
    data = open_store(f"s3://{bucket}/data")
    data.put(shared_corpus(ROWS), shared_corpus(ROWS).name)
    asked = [str(shared_micro_model()), "--corpus", f"s3://{bucket}/data/{shared_corpus(ROWS).name}"]
    asked += ["--out", f"s3://{bucket}/bundles", "--no-learning-check", "--part-rows", "128", "--json"]
    make_build_app()(args=asked, standalone_mode=False)
    bundles = open_store(f"s3://{bucket}/bundles")
    [name] = stored_bundles(bundles)
    for one in bundles.names(f"{name}/"):
        bundles.fetch(one, told.folder / one)
    assert content_of(told.folder / name) == alone
    assert open_store(f"s3://{bucket}/bundles.parts").names() == []
    assert not list((told.folder / "state").rglob("bundle"))
    assert shared_builds.list_builds(told.database) == []


def test_what_cannot_be_tidied_up_is_told(
    told: Farm, alone: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bundle is written and the shared folder goes away: the command succeeds, says what is left, and the build can be cancelled later."""
    out = told.folder / "bundle"
    asked = [str(shared_micro_model()), "--corpus", str(shared_corpus(ROWS)), "--out", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "delete", raising(StorageUnavailable("the shared folder is away")))
        make_build_app()(args=[*asked, "--no-learning-check", "--part-rows", "128"], standalone_mode=False)
    assert content_of(out) == alone
    said = capsys.readouterr().err
    assert "the bundle is written" in said
    assert "storage_unavailable" in said
    [(build, _)] = shared_builds.list_builds(told.database)
    cancel(build.build_id, as_json=True)
    assert not Path(build.store).exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--part-rows", "12"], "multiple of 8"),
        (["--corpus", "s3://user:password@bucket/x"], "must not hold credentials"),
        (["--shared", "ftp://host/x"], "ftp://"),
    ],
)
def test_the_command_refuses_what_cannot_be(told: Farm, wrong: list[str], said: str) -> None:
    """Before a model is loaded, and without what may be a secret."""
    needed = ["model", "--corpus", "c.jsonl", "--out", str(told.folder / "out"), "--json"]
    with pytest.raises(ConfigurationError, match=said) as refused:
        make_build_app()(args=[*needed, *wrong], standalone_mode=False)
    assert "password" not in str(refused.value)


def test_doctor_says_where_a_build_stands(told: Farm) -> None:
    """Nothing where nobody builds; what to start where parts wait for nobody; why no worker takes one; nothing to do where somebody reads."""
    assert list(look_at_builds(told.settings)) == []
    with pytest.raises(KeyboardInterrupt):
        told.build(told.reading(told.worker(before=stop)))
    (found,) = look_at_builds(told.settings)
    assert (found.verdict, found.text.partition(";")[0]) == (
        "warning",
        f"1 of {SHARDS} parts are read, 0 are being read, {SHARDS - 1} wait, 0 cannot be read",
    )
    assert "start python -m worker build-worker" in found.text
    assert shared_builds.part_counts(told.database)[MeasurementState.PENDING] == SHARDS - 1
    signs.give_sign(told.database, signs.Sign("one", "build", "there", 1))
    assert [one.verdict for one in look_at_builds(told.settings)] == ["ok"]
    [(build, _)] = shared_builds.list_builds(told.database)
    shared_builds.refuse(told.database, build.build_id, worker="one", code="build_mismatch", reason="other")
    (found,) = look_at_builds(told.settings)
    assert found.text.endswith("worker one takes no part [build_mismatch]: other")


def test_builds_are_listed_and_cancelled(told: Farm, capsys: pytest.CaptureFixture[str]) -> None:
    """Where each stands; a cancelled one is gone with its files."""
    with pytest.raises(KeyboardInterrupt):
        told.build(told.reading(told.worker(before=stop)))
    capsys.readouterr()  # the log of the worker
    list_builds(as_json=True)
    [listed] = json.loads(capsys.readouterr().out)
    assert (listed["parts"], listed["waiting"], listed["done"]) == (SHARDS, SHARDS - 1, 1)
    cancel(listed["id"], as_json=True)
    assert json.loads(capsys.readouterr().out) == {"id": listed["id"], "deleted_files": SHARDS + 2}
    assert not told.shared.exists()
    with pytest.raises(NotFound):
        cancel(listed["id"])
