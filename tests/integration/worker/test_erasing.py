"""Forgetting from end to end: bundle folders, database files, and the files of a Redis that keeps them, searched byte by byte."""

import errno
import json
import shutil
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import redis
from pydantic import SecretStr
from sqlalchemy import update
from structlog.testing import capture_logs

from db.bundles import catalogue, erased_bundles, routing
from db.clock import db_after
from db.erasure import cleaning, erasures, example_erasing, holds, retention
from db.erasure.erasing import ErasedOutput
from db.models import Audit, FlaggedOutput
from db.queues.audit_queue import AuditQueue, Finished
from db.reading import reader
from db.session import Database
from db.storing import intake
from tests.byte_scan import holding_database, holding_files
from tests.integration.db.builders import attribution, draft, register
from tests.services.redis import RedisServer
from tests.tiny import build, shared_micro_bundle, shared_micro_model, tiny_rows, write_jsonl
from tests.waiting import wait_until
from wherefrom.attribution.bundles import erasing as bundle_erasing
from wherefrom.attribution.bundles.examples import iter_examples, write_examples
from wherefrom.attribution.bundles.manifest import read_manifest
from wherefrom.errors import BundleMismatch, ConfigurationError, Held, NotFound, QueueUnavailable
from wherefrom.records import (
    AuditState,
    ErasureDraft,
    FlaggedRecord,
    HoldDraft,
    RetentionDraft,
    TrainingExample,
)
from wherefrom.records.lineage import CitationAddress, Reproduced
from wherefrom.settings import Settings
from worker.bundles import add_bundle
from worker.erasure.bundle_deletion import delete_unused
from worker.erasure.erasing import Eraser
from worker.erasure.example_erasing import Outcome, Request, forget
from worker.erasure.redis_erasing import CopiesInRedis, _Marks, _when_free
from worker.pool.engine import load_engine
from worker.reproducing import reproduce

ROW = 3
BY = "operator"


@pytest.fixture
def settings(tmp_path: Path, migrated_sqlite_url: str) -> Settings:
    """A service whose only bundle is a real one."""
    return Settings(
        database_url=SecretStr(migrated_sqlite_url),
        key_prefix="t:",
        state_dir=tmp_path / "state",
        bundles_dir=tmp_path / "bundles",
    )


@pytest.fixture
def home(database: Database, settings: Settings) -> Path:
    """Folder of the bundle in service."""
    _, manifest = add_bundle(database, settings, shared_micro_bundle(), activate=True)
    return settings.bundles_dir / manifest.name


def example_of(home: Path, row: int = ROW) -> TrainingExample:
    """A training example of a bundle."""
    return list(iter_examples(home))[row]


def forgotten(database: Database, settings: Settings, *ids: str, **more: object) -> Outcome:
    """What became of a request."""
    return forget(database, settings, Request(ids, "case 9", **more), by=BY)  # type: ignore[arg-type]  # options of `Request`


def test_an_example_is_gone_from_files_and_database(
    database: Database, settings: Settings, home: Path, migrated_sqlite_url: str
) -> None:
    """Text, id hash and vectors in float32 and int8: found before, in no byte after. The new bundle is in service, the old folder gone."""
    one = example_of(home)
    offsets = np.load(home / "features" / "offsets.npy")
    marks = {
        "text": one.prompt.encode(),
        "hash": one.text_sha256.encode(),
        "vector": np.load(home / "features" / "vectors.npy")[ROW].tobytes(),
        "int8": np.load(home / "features" / "a.npy")[offsets[ROW] : offsets[ROW + 1]].tobytes(),
    }
    for what, mark in marks.items():
        assert holding_files(settings.bundles_dir, mark), what
    assert set(holding_database(migrated_sqlite_url, [marks["text"], marks["hash"]])) == {
        marks["text"],
        marks["hash"],
    }
    found = forgotten(database, settings, one.example_id)
    assert found.replaced.keys() == {home.name}
    assert (found.deleted, found.waiting, found.cleaned) == ((home.name,), (), True)
    for what, mark in marks.items():
        assert not holding_files(settings.bundles_dir, mark), what
    assert holding_database(migrated_sqlite_url, marks.values()) == {}
    [active] = catalogue.active_bundles(database)
    assert active.name == found.replaced[home.name]
    assert read_manifest(settings.bundles_dir / active.name).corpus.examples == 39
    assert [one.kind for one in erasures.listed(database)] == ["example"]


def test_the_old_bundle_waits_for_its_lease(database: Database, settings: Settings, home: Path) -> None:
    """A worker may finish; then the sweeper deletes. What waited under the bundle follows to the new one, or ends."""
    old = catalogue.bundle_by_name(database, home.name)
    records = [
        FlaggedRecord(prompt="p", completion=f"answer {n}", model=old.model, idempotency_key=f"k{n}")
        for n in range(2)
    ]
    held, waits = intake.accept(database, records, producer="p", channel="http")
    batch = AuditQueue(database).claim(old.id, owner="w", limit=1, lease_s=60)
    assert batch is not None
    found = forgotten(database, settings, example_of(home).example_id)
    assert (found.deleted, found.waiting) == ((), (home.name,))
    assert home.is_dir()
    assert delete_unused(database, settings) == []
    new = catalogue.bundle_by_name(database, found.replaced[home.name])
    assert reader.get_audit(database, waits.audit_id or 0).audit.bundle == new.name
    with database.writing() as session:  # asked again under the old bundle on purpose, and its lease ended
        session.execute(
            update(Audit)
            .where(Audit.id == held.audit_id)
            .values(state=AuditState.PENDING, lease_owner=None, lease_until=None)
        )
    assert delete_unused(database, settings) == [home.name]
    assert not home.exists()
    ended = reader.get_audit(database, held.audit_id or 0).audit
    assert (ended.state, ended.code) == (AuditState.REJECTED, "unknown_bundle")
    assert delete_unused(database, settings) == []
    shutil.copytree(shared_micro_bundle(), home)  # the folder of another machine
    assert delete_unused(database, settings) == [home.name]


def test_a_claim_at_the_last_moment_keeps_the_folder(
    database: Database, settings: Settings, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker claims what waits after the look for leases; a folder that cannot be deleted stays without an end of the sweeper, and a machine without the folder does not say that it is gone. What is asked for afterwards ends."""
    old = catalogue.bundle_by_name(database, home.name)
    record = FlaggedRecord(prompt="p", completion="a", model=old.model)
    [made] = intake.accept(database, [record], producer="p", channel="http")
    queue = AuditQueue(database)

    def put_back() -> None:
        values = {"state": AuditState.PENDING, "lease_owner": None, "lease_until": None, "bundle_id": old.id}
        with database.writing() as session:
            session.execute(update(Audit).values(**values))

    elsewhere = settings.model_copy(update={"bundles_dir": settings.bundles_dir.with_name("elsewhere")})
    assert queue.claim(old.id, owner="w", limit=1, lease_s=60) is not None
    forgotten(database, settings, example_of(home).example_id)
    put_back()
    leaving = erased_bundles.leaving

    def then_claimed(db: Database) -> list[erased_bundles.Leaving]:
        found = leaving(db)
        assert queue.claim(old.id, owner="w", limit=1, lease_s=60) is not None
        return found

    with monkeypatch.context() as patch:
        patch.setattr(erased_bundles, "leaving", then_claimed)
        assert delete_unused(database, settings) == []
    assert home.is_dir()
    put_back()

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    told: set[str] = set()
    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr(Path, "rename", refuse)
        for _ in range(2):
            assert delete_unused(database, settings, told=told) == []
    assert [one["event"] for one in logs] == ["bundle_not_deleted"]
    assert delete_unused(database, elsewhere) == []
    assert [one.deleted for one in leaving(database)] == [False]
    assert delete_unused(database, settings) == [home.name]
    assert [one.deleted for one in leaving(database)] == [True]
    put_back()
    assert delete_unused(database, settings) == []
    assert reader.get_audit(database, made.audit_id or 0).audit.code == "unknown_bundle"


def test_an_erased_bundle_stays_out_of_service(
    database: Database, settings: Settings, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither adding it from where it was built nor activating brings it back."""
    forgotten(database, settings, example_of(home).example_id)
    with pytest.raises(BundleMismatch, match="was erased; it stays out of service"):
        add_bundle(database, settings, shared_micro_bundle(), activate=True)
    old = catalogue.bundle_by_name(database, home.name)
    with pytest.raises(BundleMismatch, match="was erased"):
        erased_bundles.refuse_erased(database, home.name, corpus_sha256="0" * 64)
    with pytest.raises(BundleMismatch, match="was erased"):
        routing.activate(database, old.id)
    monkeypatch.setattr(erased_bundles, "is_erased", lambda *_: False)  # as if it had been built once more
    with pytest.raises(BundleMismatch, match="take the row out of the corpus file"):
        add_bundle(database, settings, shared_micro_bundle(), activate=True)
    assert not home.exists()


def test_a_bundle_that_became_active_meanwhile_keeps_its_texts(
    database: Database, settings: Settings, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody went back to the old bundle between the switch and the erasure: nothing is erased, and its folder stays."""
    monkeypatch.setattr("worker.erasure.example_erasing._replace", lambda *_: "nothing")
    with pytest.raises(BundleMismatch, match="was made active meanwhile"):
        forgotten(database, settings, example_of(home).example_id)
    assert erased_bundles.leaving(database) == []
    assert not any(one.erased for one in example_erasing.stored(database, [example_of(home).example_id]))


def test_other_bundles_are_looked_into(database: Database, settings: Settings, home: Path) -> None:
    """The text under another id in another bundle is refused or goes too; a bundle whose folder is elsewhere is named."""
    one = example_of(home)
    moved = one.model_copy(update={"example_id": "moved", "row": 0})
    facts = {"model": "other", "activate": False, "examples": []}
    register(database, "other", corpus_sha256="1" * 64, **facts)
    write_examples(settings.bundles_dir / "other", iter([moved]))
    register(database, "away", corpus_sha256="2" * 64, **facts)
    with pytest.raises(ConfigurationError, match="of other have exactly the same text, such as 'moved'"):
        forgotten(database, settings, one.example_id)
    assert home.is_dir()
    found = forgotten(database, settings, one.example_id, copies=True)
    assert set(found.example_ids) == {one.example_id, "moved"}
    assert set(found.deleted) == {home.name, "other"}
    assert found.unseen == ("away",)


def test_a_key_that_is_no_text_is_no_copy() -> None:
    """A rejected entry may hold anything, for example a list where its key should be."""
    marks = _Marks([ErasedOutput(output_id=1, producer="stream", key="k", completion="", texts=())])
    assert marks.have_key({b"record": b'{"idempotency_key": "k"}'})
    for key in (b"[]", b"{}", b"1", b"null"):
        assert not marks.have_key({b"record": b'{"idempotency_key": %b}' % key})


def test_a_run_that_was_killed_is_run_again(
    database: Database, settings: Settings, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the new bundle is in service, or while it is written: nothing half is left, and the same command finishes."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    name = example_of(home).example_id
    with monkeypatch.context() as patch:
        patch.setattr(bundle_erasing, "finish", stop)
        with pytest.raises(KeyboardInterrupt):
            forgotten(database, settings, name)
    assert [one.name for one in settings.bundles_dir.iterdir() if one.is_dir()] == [home.name]
    assert [one.name for one in catalogue.active_bundles(database)] == [home.name]
    with monkeypatch.context() as patch:
        patch.setattr("worker.erasure.example_erasing._erase_stored", stop)
        with pytest.raises(KeyboardInterrupt):
            forgotten(database, settings, name)
    found = forgotten(database, settings, name)
    assert (found.replaced, found.deleted) == ({}, (home.name,))
    [left] = catalogue.active_bundles(database)
    assert name not in {one.example_id for one in iter_examples(settings.bundles_dir / left.name)}


def test_what_cannot_be_forgotten(database: Database, settings: Settings, home: Path, tmp_path: Path) -> None:
    """An unknown id, a text that others share, a missing signature, a hold: refused before anything is written."""
    with pytest.raises(NotFound, match="'nobody'"):
        forgotten(database, settings, "nobody")
    signed = settings.model_copy(update={"bundle_keys": (tmp_path / "team.pub",)})
    with pytest.raises(ConfigurationError, match="--key"):
        forgotten(database, signed, example_of(home).example_id)
    rows = tiny_rows(12)
    corpus = write_jsonl(tmp_path / "twins.jsonl", [*rows, {**rows[ROW], "id": "twin"}])
    build(shared_micro_model(), corpus, tmp_path / "twins", model_name="twins@1")
    _, twins = add_bundle(database, settings, tmp_path / "twins", activate=True)
    with pytest.raises(ConfigurationError, match="'twin'"):
        forgotten(database, settings, rows[ROW]["id"])
    assert sorted(one.name for one in settings.bundles_dir.iterdir() if one.is_dir()) == sorted(
        [home.name, twins.name]
    )
    found = forgotten(database, settings, rows[ROW]["id"], copies=True)
    assert set(found.example_ids) == {rows[ROW]["id"], "twin"}
    assert set(found.deleted) == {home.name, twins.name}


def cited(database: Database, home: Path) -> int:
    """Id of an audit that cites the example."""
    known = catalogue.bundle_by_name(database, home.name)
    record = FlaggedRecord(prompt="p", completion="a", model=known.model)
    [made] = intake.accept(database, [record], producer="p", channel="http")
    queue = AuditQueue(database)
    batch = queue.claim(known.id, owner="w", limit=1, lease_s=60)
    assert batch is not None
    answer = attribution(draft(1, example_of(home)), draft(2, example_of(home, 5)))
    queue.finish([Finished(batch.audits[0], answer, 0.1)])
    return made.audit_id or 0


def test_reproduce_says_erased(database: Database, settings: Settings, home: Path) -> None:
    """Of the erased example, and of another one that the same bundle cited: the bundle is gone with it."""
    audit_id = cited(database, home)
    forgotten(database, settings, example_of(home).example_id)
    engine = load_engine(settings)
    for rank, what in ((1, "The text of the training example"), (2, "The bundle, because of another")):
        found = reproduce(database, engine, settings, CitationAddress(audit_id=audit_id, rank=rank))
        assert found.verdict is Reproduced.ERASED
        assert found.text.startswith(what)


def test_a_held_citation_keeps_its_example(database: Database, settings: Settings, home: Path) -> None:
    """No bundle is written either."""
    audit_id = cited(database, home)
    holds.place(database, HoldDraft(audit_ids=(audit_id,), reason="court"), by=BY)
    with pytest.raises(Held, match="court"):
        forgotten(database, settings, example_of(home).example_id)
    assert [one.name for one in settings.bundles_dir.iterdir() if one.is_dir()] == [home.name]


SECRET = "Sesquipedalian walruses whistle softly"


@pytest.mark.redis
def test_copies_in_redis_go(database: Database, settings: Settings, tmp_path: Path) -> None:
    """Rejected, quarantined and waiting copies, in memory and in both files; another producer's entry with the same key stays."""
    with RedisServer(tmp_path / "redis", append_only=True) as server:
        chosen = settings.model_copy(update={"redis_url": SecretStr(server.url)})
        client = redis.Redis.from_url(server.url)
        client.config_set("save", "3600 1")
        client.config_set("rdbcompression", "no")  # or the text would not stand in the snapshot as it is
        record = {"prompt": "p", "completion": SECRET, "model": "m", "idempotency_key": "chat-1"}
        other = {**record, "completion": "Something else entirely", "idempotency_key": "chat-2"}
        for stream in ("rejected", "quarantine"):
            client.xadd(f"t:wherefrom:{stream}", {"record": json.dumps(record)})
            client.xadd(f"t:wherefrom:{stream}", {"record": json.dumps(other)})
        client.xadd("t:wherefrom:rejected", {"record": json.dumps(record)[:-40], "cut": "1"})
        client.xadd("t:wherefrom:flagged", {"record": json.dumps(record)})
        client.xadd("t:wherefrom:flagged", {"record": json.dumps({**other, "completion": SECRET})})
        client.save()
        mark = SECRET.encode()
        assert len(holding_files(tmp_path / "redis", mark)) >= 2
        accepted = FlaggedRecord.model_validate(record)
        [made] = intake.accept(database, [accepted], producer="stream", channel="stream")
        asked = erasures.ask(database, ErasureDraft(audit_ids=(made.audit_id or 0,), reason="r"), by=BY)
        Eraser(database, client, chosen).step()
        assert erasures.get(database, asked).erased == 1
        left = {name: client.xlen(f"t:wherefrom:{name}") for name in ("rejected", "quarantine", "flagged")}
        assert left == {"rejected": 1, "quarantine": 1, "flagged": 1}  # the one that waits is another output
        client.xtrim("t:wherefrom:flagged", maxlen=0, approximate=False)
        CopiesInRedis(client, chosen).rewrite_files()
        wait_until(lambda: not holding_files(tmp_path / "redis", mark), message="Redis wrote its files anew")
        client.close()


def test_a_redis_that_is_away_keeps_texts_whole(database: Database, settings: Settings) -> None:
    """What could not be looked for outside is not erased inside: its text would be needed to find it."""
    record = FlaggedRecord(prompt="p", completion=SECRET, model="m")
    [made] = intake.accept(database, [record], producer="p", channel="http")
    with database.writing() as session:
        session.execute(update(FlaggedOutput).values(received_at=db_after(-86_400.0 * 40)))
    retention.add(database, RetentionDraft(name="all", days=30), by=BY)

    def away(_: object) -> None:
        raise QueueUnavailable("Redis: no answer")

    with pytest.raises(QueueUnavailable):
        retention.step(database, before=away)
    assert reader.get_audit(database, made.audit_id or 0).completion == SECRET
    assert retention.step(database, before=lambda _: None) == 1
    assert cleaning.clean(database)


def test_a_save_that_began_before_is_followed_by_another() -> None:
    """Redis refuses to save while it saves; what it is writing has the erased bytes."""
    asked = []

    def save() -> None:
        asked.append(1)
        if len(asked) < 3:
            raise redis.ResponseError("Background save already in progress")

    _when_free(save)
    assert len(asked) == 3
    with pytest.raises(redis.ResponseError, match="NOPERM"):
        _when_free(Mock(side_effect=redis.ResponseError("NOPERM no permissions")))
