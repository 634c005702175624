"""`wherefrom bundle`: bundles are verified and signed, and written with fewer or more rows."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.plain_bundle import write_plain_bundle
from tests.tiny import shared_micro_bundle, shared_micro_model, tiny_rows, write_jsonl
from tests.unit.cli.conftest import Run
from wherefrom.attribution.bundles.stored import push_bundle
from wherefrom.attribution.bundles.work_folder import sole_use
from wherefrom.storage import open_store

RunCommand = Callable[..., Run]


def test_changed_bundle(run: RunCommand, tmp_path: Path) -> None:
    """`bundle verify` refuses a changed file by name."""
    changed = Path(shutil.copytree(shared_micro_bundle(), tmp_path / "bundle"))
    (changed / "card.json").write_text("{}")
    done = run("bundle", "verify", str(changed))
    assert (done.code, done.out) == (2, "")
    assert "error[bundle_corrupt]" in done.err
    assert "card.json has changed" in done.err


def test_sign_and_verify(run: RunCommand, tmp_path: Path) -> None:
    """Keys are made, a whole bundle is signed and stays whole; a changed one is not signed, and an unsigned one is refused by its signature."""
    bundle = Path(shutil.copytree(shared_micro_bundle(), tmp_path / "bundle"))
    private, public = str(tmp_path / "team.key"), str(tmp_path / "team.pub")
    assert run("bundle", "keys", private, public).code == 0
    unsigned = run("bundle", "verify", str(bundle), "--key", public)
    assert (unsigned.code, "error[bundle_unsigned]" in unsigned.err) == (2, True)
    assert run("bundle", "sign", str(bundle), "--key", private).code == 0
    assert "signed by an accepted key and intact" in run("bundle", "verify", str(bundle), "--key", public).out
    assert run("bundle", "verify", str(bundle)).code == 0
    (bundle / "card.json").write_text("{}")
    assert "error[bundle_corrupt]" in run("bundle", "sign", str(bundle), "--key", private).err


def test_forget_and_add(run: RunCommand, tmp_path: Path) -> None:
    """A bundle without a row and one with further rows, each with the share that a rebuild depends on; an unknown id is no usage error."""
    rows = tiny_rows(41)
    bundle, first, second = shared_micro_bundle(), tmp_path / "first", tmp_path / "second"
    missing = run("bundle", "forget", str(bundle), "nobody", "--out", str(first))
    assert (missing.code, first.exists()) == (4, False)
    done = run("bundle", "forget", str(bundle), rows[0]["id"], "--out", str(first))
    assert done.code == 0
    for part in (
        "without 1 example.",
        "It is not signed",
        f"{bundle} still holds them",
        "40 rows; 1 were erased",
    ):
        assert part in " ".join(done.out.split())
    corpus = write_jsonl(tmp_path / "new.jsonl", rows[40:])
    added = run(
        *("bundle", "add", str(first), "--corpus", str(corpus), "--out", str(second)),
        *("--model", str(shared_micro_model()), "--json"),
    )
    assert added.code == 0
    printed = json.loads(added.out)
    assert (printed["examples"], printed["changed_share"], printed["rebuild_due"]) == (40, 0.05, False)
    assert run("bundle", "verify", str(second)).code == 0


def test_two_pulls_into_one_folder(run: RunCommand, tmp_path: Path) -> None:
    """The second one is refused before it touches what the first one has fetched; a pull that was cut off goes on and leaves the bundle alone."""
    write_plain_bundle(tmp_path / "made", {"features/a.npy": b"a" * 3000})
    place = push_bundle(tmp_path / "made", open_store(str(tmp_path / "store")))
    home = tmp_path / "here"
    begun = home / ".bundle.pulling" / "features" / "a.npy"
    with sole_use(home / ".bundle.pulling"):
        begun.parent.mkdir(parents=True)
        begun.write_bytes(b"a")
        refused = run("bundle", "pull", place.url, "--out", str(home / "bundle"))
        assert (refused.code, "another process works in" in refused.err) == (2, True)
        assert begun.read_bytes() == b"a"
    assert run("bundle", "pull", place.url, "--out", str(home / "bundle")).code == 0
    assert [one.name for one in home.iterdir()] == ["bundle"]
