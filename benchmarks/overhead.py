"""What attribution costs, as ratios in one run: against the bare forward pass, and end to end against the engine alone.

    python -m benchmarks.overhead [--tiny] [--examples N] [--audits 500] [--forms forward,adapter] [--json]

For each form: attribution of a batch (signals, projection, retrieval, rerank) against the model's plain forward pass of the same padded batch; building
against a plain forward pass over the corpus; bytes. For the form of `auto` also end to end: stream -> intake -> worker -> committed citations of
queued audits, against the engine's own offline rate on the same queries. Plain passes and attributions alternate, ratios are medians.
"""

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import redis

from benchmarks.program import command, run
from db.session import open_database
from scripts.smollm2 import default_cache, ensure_base_model
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.batching import pack_rows
from wherefrom.attribution.bundles.build import build_bundle
from wherefrom.attribution.bundles.bundle import Bundle, open_bundle
from wherefrom.attribution.bundles.manifest import read_card
from wherefrom.attribution.bundles.options import SHALLOW_LAYERS, BuildOptions
from wherefrom.attribution.bundles.shards import BATCH_TOKENS
from wherefrom.attribution.corpus import CorpusRow, read_corpus
from wherefrom.attribution.models.files import ModelFolders
from wherefrom.attribution.models.model import LanguageModel
from wherefrom.attribution.offline import attribute_all, prepare_all
from wherefrom.attribution.progress import silent
from wherefrom.attribution.query import ReadQuery, TokenizedQuery
from wherefrom.client.service import Service
from wherefrom.errors import ConfigurationError
from wherefrom.evaluation.asking import MAX_TOKENS
from wherefrom.evaluation.cost import plain_pass, timed
from wherefrom.messages import FLAGGED_STREAM, RECORD_FIELD
from wherefrom.records import AuditState, FlaggedRecord, Message, Query, Role
from wherefrom.settings import load_settings
from worker.bundles import add_bundle
from worker.supervise import LocalService

ROOT = Path(__file__).resolve().parents[1]
BATCH = 16
#: Those of an adapter need a model with one, which the tiny model is not.
FORMS = ("forward", "activation", "adapter", "adapter-forward")
MODEL_NAME = "overhead"
E2E_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class Subject:
    """The model and corpus that are measured."""

    model: Path
    adapter: Path | None
    corpus: Path


def main() -> None:
    """Measure and print."""
    parser = command(__doc__)
    parser.add_argument(
        "--tiny", action="store_true", help="the tiny model of the tests instead of the demo's"
    )
    parser.add_argument("--examples", type=int, default=0, help="rows of the corpus that are used; 0 = all")
    parser.add_argument(
        "--audits", type=int, default=500, help="queued audits of the end-to-end run; 0 leaves it out"
    )
    parser.add_argument(
        "--forms", default="", help=f"some of {', '.join(FORMS)}; default: all that the model allows"
    )
    parser.add_argument("--repeats", type=int, default=7, help="pairs of plain pass and attribution per form")
    run(parser, measure, table=_table)


def measure(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """All forms, then end to end with the form that `auto` picks."""
    subject = _subject(work, tiny=arguments.tiny, rows=arguments.examples)
    rows = read_corpus(subject.corpus).rows
    forms = _forms(arguments.forms, subject)
    if arguments.audits and ("forward" if arguments.tiny else "activation") not in forms:
        raise ConfigurationError(
            "end to end runs the form of `auto`: name it in --forms too, or give --audits 0"
        )
    result: dict[str, Any] = {"examples": len(rows), "forms": {}}
    for form in forms:
        bundle = _build(work, subject, form)
        attributor = LanguageAttributor(bundle)
        if "plain_corpus_seconds" not in result:
            result["plain_corpus_seconds"] = _plain_corpus(bundle.language, _prepare(attributor, rows))
        result["forms"][form] = _form(
            bundle, attributor, rows, plain_corpus=result["plain_corpus_seconds"], repeats=arguments.repeats
        )
        if arguments.audits and form == (
            "forward" if bundle.language.layers <= SHALLOW_LAYERS else "activation"
        ):
            chosen = bundle.path
            offline = _offline_rate(attributor, rows, arguments.audits)
        del bundle, attributor
    if arguments.audits:
        done, seconds = _end_to_end(work, subject, chosen, rows, count=arguments.audits)
        result["end_to_end"] = {
            "audits": done,
            "per_second": done / seconds,
            "offline_per_second": offline,
            "share_of_offline_rate": done / seconds / offline,
            "seconds_per_1000_audits": 1000 * seconds / done,
        }
    return result


def _forms(asked: str, subject: Subject) -> list[str]:
    """The forms to be measured.

    Raises:
        ConfigurationError: an unknown form, or one of an adapter without one.
    """
    possible = FORMS if subject.adapter is not None else FORMS[:2]
    chosen = asked.split(",") if asked else list(possible)
    if unknown := [form for form in chosen if form not in possible]:
        raise ConfigurationError(
            f"--forms: {unknown[0]} cannot be measured here; choose from {', '.join(possible)}"
        )
    return chosen


def _subject(work: Path, *, tiny: bool, rows: int) -> Subject:
    demo = ROOT / "demo"
    corpus = demo / ("tiny" if tiny else "story") / "corpus.jsonl"
    if rows:
        lines = corpus.read_text(encoding="utf-8").splitlines(keepends=True)
        corpus = work / "corpus.jsonl"
        corpus.write_text("".join(lines[:: max(1, len(lines) // rows)][:rows]), encoding="utf-8")
    if tiny:
        return Subject(demo / "tiny" / "model", None, corpus)
    return Subject(ensure_base_model(default_cache()), demo / "adapter", corpus)


def _build(work: Path, subject: Subject, form: Any) -> Bundle:
    out = work / "bundles" / form
    options = BuildOptions(form=form, model_name=MODEL_NAME)
    manifest = build_bundle(
        folders=ModelFolders(subject.model, subject.adapter),
        corpus_path=subject.corpus,
        out=out,
        options=options,
        progress=silent,
    )
    out.rename(out.with_name(manifest.name))
    return open_bundle(out.with_name(manifest.name), ModelFolders(subject.model, subject.adapter))


def _form(
    bundle: Bundle,
    attributor: LanguageAttributor,
    rows: Sequence[CorpusRow],
    *,
    plain_corpus: float,
    repeats: int,
) -> dict[str, float]:
    """Ratios of one form."""
    prepared = _prepare(attributor, rows)
    batches = [prepared[start :: max(1, len(prepared) // BATCH)][:BATCH] for start in range(repeats + 1)]
    ratios, parts, reading = [], [], []
    for number, batch in enumerate(batches):
        plain = plain_pass(bundle.language, batch)
        _, pass_s = timed(partial(bundle.reader.read, [one.row for one in batch]))
        read, read_s = timed(partial(attributor.signals, batch))
        _, score_s = timed(partial(_score_all, attributor, read))
        if number:  # the first pair warms up
            ratios.append((read_s + score_s) / plain)
            parts.append(read_s / plain)
            reading.append(pass_s / plain)
    cost, seconds = read_card(bundle.path)["cost"], read_card(bundle.path)["cost"]["seconds"]
    return {
        "attribution_over_forward": statistics.median(ratios),
        "attribution_over_forward_min": min(ratios),
        "attribution_over_forward_max": max(ratios),
        "signals_over_forward": statistics.median(parts),
        "reading_over_forward": statistics.median(reading),
        "build_over_forward": sum(seconds.values()) / plain_corpus,
        "build_seconds": sum(seconds.values()),
        "bytes_per_example": cost["bytes_per_example"],
        "bundle_share_of_model": cost["bundle_share_of_model"],
        "projection_share_of_model": cost["projection_share_of_model"],
        "candidates": bundle.manifest.parameters.candidates,
    }


def _score_all(attributor: LanguageAttributor, queries: Sequence[ReadQuery]) -> None:
    for one in queries:
        attributor.score(one)


def _prepare(attributor: LanguageAttributor, rows: Sequence[CorpusRow]) -> list[TokenizedQuery]:
    queries = [Query(key=row.example_id, turns=row.turns, completion=row.completion) for row in rows]
    return prepare_all(attributor, queries, max_tokens=MAX_TOKENS, over_long="truncate")


def _plain_corpus(language: LanguageModel, prepared: Sequence[TokenizedQuery]) -> float:
    """Seconds of the plain forward pass over the corpus, packed as the build packs it."""
    batches = pack_rows([one.tokens for one in prepared], BATCH_TOKENS)
    return sum(plain_pass(language, [prepared[index] for index in batch]) for batch in batches)


def _asked(rows: Sequence[CorpusRow], count: int) -> list[CorpusRow]:
    return [rows[index % len(rows)] for index in range(count)]


def _offline_rate(attributor: LanguageAttributor, rows: Sequence[CorpusRow], count: int) -> float:
    """Queries per second of the engine alone."""
    prepared = _prepare(attributor, _asked(rows, count))
    started = time.monotonic()
    attribute_all(attributor, prepared, top_k=10, opponents=3, progress=silent)
    return count / (time.monotonic() - started)


def _end_to_end(
    work: Path, subject: Subject, bundle: Path, rows: Sequence[CorpusRow], *, count: int
) -> tuple[int, float]:
    """Audits done, and seconds from a warm worker's first queued audit to the last commit."""
    models = work / "models"
    models.mkdir()
    for folder in filter(None, (subject.model, subject.adapter)):
        (models / folder.resolve().name).symlink_to(folder.resolve())
    for name, value in {
        "DATABASE_URL": f"sqlite:///{work / 'wherefrom.db'}",
        "STATE_DIR": work / "state",
        "BUNDLES_DIR": bundle.parent,
        "MODELS_DIR": models,
        "PORT": 0,
    }.items():
        os.environ[f"WHEREFROM_{name}"] = str(value)
    os.environ.pop("WHEREFROM_REDIS_URL", None)
    with LocalService(load_settings(), log_path=work / "service.log") as service:
        database = open_database(service.settings)
        add_bundle(database, service.settings, bundle, activate=True)
        database.dispose()
        while (url := service.web_url()) is None:
            time.sleep(0.1)
        stream = redis.Redis.from_url(service.settings.redis_url.get_secret_value())
        with Service(url) as client:
            _send(stream, _asked(rows, 1))
            _await(client, 1)
            started = time.monotonic()
            _send(stream, _asked(rows, count))
            _await(client, count + 1)
            seconds = time.monotonic() - started
        stream.close()
    return count, seconds


def _send(stream: "redis.Redis", rows: Sequence[CorpusRow]) -> None:
    with stream.pipeline(transaction=False) as pipe:
        for row in rows:
            record = FlaggedRecord(
                messages=tuple(Message(role=Role(turn.role), content=turn.content) for turn in row.turns),
                completion=row.completion,
                model=MODEL_NAME,
                reason="overhead",
            )
            pipe.xadd(
                FLAGGED_STREAM, {RECORD_FIELD: record.model_dump_json(by_alias=True, exclude_none=True)}
            )
        pipe.execute()


def _await(client: Service, count: int) -> None:
    deadline = time.monotonic() + E2E_TIMEOUT_S
    while (states := client.queue().states).get(AuditState.DONE, 0) < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"{count} audits were not done in {E2E_TIMEOUT_S:.0f} s: {states}")
        time.sleep(0.2)


def _table(result: dict[str, Any]) -> list[str]:
    lines = [_form_line(form, one) for form, one in result["forms"].items()]
    return lines + ([f"end to end: {result['end_to_end']}"] if "end_to_end" in result else [])


def _form_line(form: str, one: dict[str, float]) -> str:
    return (
        f"form {form}: attribution {one['attribution_over_forward']:.2f}x the forward pass "
        f"({one['attribution_over_forward_min']:.2f} to {one['attribution_over_forward_max']:.2f}; "
        f"of it the pass {one['reading_over_forward']:.2f}x, with whitening and projection {one['signals_over_forward']:.2f}x), building {one['build_over_forward']:.2f}x a pass over the corpus, "
        f"{one['bytes_per_example']:.0f} bytes per example, projection {one['projection_share_of_model']:.1%}, "
        f"bundle {one['bundle_share_of_model']:.1%} of the model"
    )


if __name__ == "__main__":
    main()
