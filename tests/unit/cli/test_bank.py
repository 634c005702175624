"""`wherefrom bank` reads and renders a corpus by the options of `wherefrom build`."""

import json
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from wherefrom.attribution.corpus import ReadAs
from wherefrom.attribution.corpus.rows import Turns
from wherefrom.attribution.models.rule import RenderingRule
from wherefrom.cli import offline, retraining
from wherefrom.retraining.bank import Bank
from wherefrom.retraining.workers import BankJob

SHARED = ("turns", "dialect", "split", "chat_template", "template_args", "join")


def test_the_options_of_a_corpus_are_shared() -> None:
    """One definition each: spelling, help and default."""
    built, retrained = signature(offline.build).parameters, signature(retraining.bank).parameters
    for name in SHARED:
        assert retrained[name] == built[name]


def test_what_is_given_reaches_the_job(run: Any, monkeypatch: Any, tmp_path: Path) -> None:
    """Template file, variables, join rule and turns."""
    jobs: list[BankJob] = []

    def keep(job: BankJob, **_: object) -> Bank:
        jobs.append(job)
        return Bank(np.ones((2, 3), dtype=np.bool_), {}, np.ones((2, 3), dtype=np.float32), np.ones(2))

    monkeypatch.setattr(retraining, "run_job", keep)
    template = tmp_path / "chat.jinja"
    template.write_text("{{ messages }}", encoding="utf-8")
    needed = ["--model", "m", "--corpus", "c", "--queries", "q", "--out", "o", "--json"]
    chosen = ["--chat-template", str(template), "--template-args", json.dumps({"mood": 1}), "--join", " - "]
    assert run("bank", *needed, *chosen, "--turns", "last", "--split", "test").code == 0
    [job] = jobs
    assert job.rendering == RenderingRule(
        chat_template="{{ messages }}", template_args={"mood": 1}, join=" - "
    )
    assert job.read == ReadAs(Turns.LAST, None, "test")
    said = run("bank", *needed[:-1]).out
    assert "The bank in o holds 2 retrained models." in said
    assert "Each saw 50% of 3 training examples and took 1.0 s." in said
    assert "--bank o --bank-queries q" in said
    for wrong in ("[]", "[" * 100_000):
        assert run("bank", *needed, "--template-args", wrong).code == 2
