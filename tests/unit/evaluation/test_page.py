"""Plots are well-formed XML, small and escaped; the page shows every key and runs nothing."""

from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from tests.tiny import shared_micro_bundle
from wherefrom.attribution.bundles.manifest import read_manifest
from wherefrom.attribution.calibration.reliability import Bin
from wherefrom.evaluation.card import evaluated_card, plots_of
from wherefrom.evaluation.estimates import Estimate
from wherefrom.evaluation.material import MaterialFiles
from wherefrom.evaluation.page import card_page
from wherefrom.evaluation.report import Report

EVIL = '<script>alert("1")</script> & more'


@pytest.fixture
def report() -> Report:
    """One of everything, with a hostile name."""
    found = Report(ceiling=Estimate(0.93, (0.9, 0.95), 200, "queries", "banks"))
    for name, value in (("LDS, effect", 0.64), (f"LDS, {EVIL}", -0.2)):
        found.measures[name] = Estimate(value, (value - 0.05, value + 0.05), 200, "queries", EVIL)
    found.recall = {EVIL: [0.5 + 0.04 * rank for rank in range(10)], "BM25 alone": [0.4] * 10}
    found.bins = [Bin(100, 0.1, 0.08), Bin(100, 0.9, 0.95)]
    found.conformal = [{"nominal": 0.1, "realised": 0.08, "interval": [0.05, 0.11], "n": 120}]
    found.missing["stress"] = EVIL
    found.stress = {"kinds": {EVIL: {"shown@1": 0.7, "false": None}}}
    return found


def test_plots_are_xml_small_and_escaped(report: Report) -> None:
    """Every plot parses, has a label, holds no script and stays under 20 KB."""
    plots = plots_of(report)
    assert [one["title"] for one in plots] == [
        "LDS",
        "Recall of known causes",
        "Reliability of confidence",
        "False citations",
    ]
    for one in plots:
        root = ET.fromstring(one["svg"])
        assert root.attrib["aria-label"]
        assert len(one["svg"]) < 20_000
        assert not root.findall(".//{*}script")
    texts = [text.text for text in ET.fromstring(plots[1]["svg"]).findall(".//{*}text")]
    assert EVIL in texts


def test_bars_stand_for_their_values(report: Report) -> None:
    """The bar of .64 reaches from zero to its value, the negative one hangs below zero."""
    rects = ET.fromstring(plots_of(report)[0]["svg"]).findall(".//{*}rect")[1:]
    (top, height), (hanging, depth) = ((float(one.attrib["y"]), float(one.attrib["height"])) for one in rects)
    assert height / depth == pytest.approx(0.64 / 0.2, rel=0.02)
    assert top + height == pytest.approx(hanging, abs=0.2)


def test_shares_of_the_ceiling(report: Report) -> None:
    """LDS over the ceiling, for LDS only."""
    measures = report.quality()["measures"]
    assert measures["LDS, effect"]["share_of_ceiling"] == round(0.64 / 0.93, 4)
    assert "share_of_ceiling" not in measures["ceiling of LDS"]


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        assert not any(name.startswith("on") or name in {"src", "href"} for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_escapes_everything_and_needs_nothing_else(report: Report) -> None:
    """No script, no address; hostile names are shown as text; cost and what is missing are there."""
    before = {
        "quality": None,
        "quality_reason": "not measured",
        "cost": {"bundle_bytes": 77, "seconds": {"index": 1.5}},
    }
    manifest = read_manifest(shared_micro_bundle(), verify=False)
    card = evaluated_card(before, report, files=MaterialFiles(), manifest=manifest)
    assert "quality_reason" not in card
    assert card["cost"] == before["cost"]
    tags = _Tags()
    tags.feed(card_page(f"b-1 {EVIL}", card))
    assert "script" not in tags.seen
    assert tags.text.count(EVIL) >= 5
    assert {"svg", "table"} <= tags.seen
    assert "77" in tags.text
    assert f"wherefrom evaluate --bundle {manifest.name}" in tags.text
    assert manifest.corpus.sha256 in tags.text
