"""Feeds broken input to what reads bytes from outside: `python -m scripts.fuzz entry --seconds 60`.

Guided by coverage where atheris is installed (`pip install atheris`), else by chance from a seed. Whatever is not refused with an error
of ours is a fault: the input is kept in a file, and the exit code is 1.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from web import body
from wherefrom.attribution.bundles.manifest import MANIFEST, SIGNATURE, read_manifest
from wherefrom.attribution.bundles.signing import check_signature, make_keys
from wherefrom.errors import WherefromError
from wherefrom.terminal import say
from worker.flagged_stream.entries import read_entry

Target = Callable[[bytes], None]


def read_stream_entry(data: bytes) -> None:
    """What any producer can put on the Redis stream."""
    read_entry({b"record": data}, entry_id="7-0", limit_bytes=1_000_000)


def read_request(data: bytes) -> None:
    """The body of `POST /v1/flagged`."""
    body.parse_records(body.parse_json(data), max_records=100, header_key=None)


def read_bundle(data: bytes) -> None:
    """The manifest of a bundle that somebody sent."""
    with tempfile.TemporaryDirectory(prefix="wherefrom-fuzz-") as folder:
        (Path(folder) / MANIFEST).write_bytes(data)
        read_manifest(Path(folder))


@cache
def _public_key() -> bytes:
    with tempfile.TemporaryDirectory(prefix="wherefrom-fuzz-") as folder:
        make_keys(Path(folder) / "private.pem", Path(folder) / "public.pem")
        return (Path(folder) / "public.pem").read_bytes()


def read_signature(data: bytes) -> None:
    """The signature beside a manifest."""
    with tempfile.TemporaryDirectory(prefix="wherefrom-fuzz-") as folder:
        (Path(folder) / MANIFEST).write_bytes(b"{}")
        (Path(folder) / SIGNATURE).write_bytes(data)
        public = Path(folder) / "public.pem"
        public.write_bytes(_public_key())
        check_signature(Path(folder), [public])


_RECORD = {
    "prompt": "p", "completion": "c", "model": "m", "reason": "r", "severity": "high", "labels": {"a": "b"}, "occurred_at": "2026-01-31T12:00:00Z",
    "spans": [{"start": 0, "end": 1}], "token_ids": [1, 2], "preferred": "d",
}  # fmt: skip
#: What broken input is made of.
SEEDS = (
    json.dumps(_RECORD).encode(),
    json.dumps(
        {"records": [_RECORD, _RECORD | {"messages": [{"role": "user", "content": "x"}], "prompt": None}]}
    ).encode(),
    b'{"schema": 3, "name": "b", "form": "activation", "files": {"../x": {"sha256": "0", "size_bytes": 1}}, "parameters": {}}',
    b"A" * 88,
    b"[" * 2000,
    b'{"a": 1e999, "b": NaN, "c": "\\ud800", "a": -0}',
    "\x00\u202e\ufeff\U0010ffff".encode(),
)
_PIECES = (
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b":",
    b",",
    b"null",
    b"1e999",
    b"-1",
    b"\\u0000",
    b"\xff",
    b"\xf0\x9f",
    b"\n",
    b"0" * 400,
    b"..",
    b"\x1b[31m",
)

TARGETS: Mapping[str, Target] = {
    "entry": read_stream_entry,
    "request": read_request,
    "bundle": read_bundle,
    "signature": read_signature,
}


def refuses(target: Target, data: bytes) -> bool:
    """Whether input is refused in our own words; False where it is taken. Any other error passes."""
    try:
        target(data)
    except WherefromError:
        return True
    return False


def broken(chance: random.Random) -> bytes:
    """A seed with a few bytes changed, put in, taken out or said twice."""
    data = bytearray(chance.choice(SEEDS))
    for _ in range(chance.randint(1, 8)):
        place = chance.randrange(len(data) + 1)
        until = min(len(data), place + chance.randint(1, 20))
        data[place:until] = chance.choice(
            (b"", bytes([chance.randrange(256)]), chance.choice(_PIECES), data[place:until] * 2)
        )
    return bytes(data)


def run(name: str, *, seconds: float, seed: int) -> int:
    """Try a target for a while; how many inputs were tried.

    Raises:
        Exception: whatever the target raised that is no error of ours; the input is kept in ``fuzz-NAME.bin``.
    """
    chance, tried, until = random.Random(seed), 0, time.monotonic() + seconds
    while time.monotonic() < until:
        data = broken(chance)
        try:
            refuses(TARGETS[name], data)
        except Exception:
            Path(f"fuzz-{name}.bin").write_bytes(data)
            raise
        tried += 1
    return tried


def run_guided(name: str, *, seconds: float) -> bool:
    """The same, guided by coverage, until a fault or the end of the process; False where atheris is not installed."""
    try:
        import atheris  # type: ignore[import-untyped] # optional, without types
    except ImportError:
        return False
    atheris.Setup([sys.argv[0], f"-max_total_time={int(seconds)}"], lambda data: refuses(TARGETS[name], data))
    atheris.Fuzz()
    return True


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if not run_guided(given.target, seconds=given.seconds):
        say(f"{run(given.target, seconds=given.seconds, seed=given.seed)} inputs, no fault")


if __name__ == "__main__":
    main()
