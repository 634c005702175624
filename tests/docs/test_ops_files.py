"""Alert rules and dashboard name metrics that exist, and every alert is in the runbook."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.absence import absent
from wherefrom.metrics import PREFIX, declared_metrics

ROOT = Path(__file__).parents[2]
OPS = ROOT / "ops"
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text("utf-8")
_NAME = re.compile(rf"\b{PREFIX}[a-z0-9_]+")
_LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"")


def rules() -> list[dict[str, Any]]:
    """All alerts."""
    groups = yaml.safe_load((OPS / "alerts.yml").read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panel_queries() -> list[str]:
    """All queries of the dashboard."""
    panels = json.loads((OPS / "grafana.json").read_text("utf-8"))["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def series() -> dict[str, list[str]]:
    """Names of the exposition, each with its labels."""
    found: dict[str, list[str]] = {}
    for name, one in declared_metrics().items():
        ends = ("_bucket", "_count", "_sum") if one["type"] == "histogram" else ("",)
        labels = [*one["labels"], "le"] if one["type"] == "histogram" else one["labels"]
        found |= {f"{PREFIX}{name}{end}": labels for end in ends}
    return found


def problems_of(query: str) -> list[str]:
    """What a query names that no process of the service shows."""
    known, named = series(), _NAME.findall(query)
    labels = {label for name in named for label in known.get(name, ())}
    grouped = {word for inside in re.findall(r"by \(([^)]*)\)", query) for word in re.split(r",\s*", inside)}
    asked = set(_LABEL.findall(query)) | grouped
    return [name for name in named if name not in known] + sorted(asked - labels)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_names_what_is_measured_and_is_in_the_runbook(rule: dict[str, Any]) -> None:
    """Its metrics and labels are declared; its section says what it means and what to do, and its link leads there."""
    assert _NAME.findall(rule["expr"])
    assert not problems_of(rule["expr"])
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["runbook"] == f"docs/runbook.md#{rule['alert'].lower()}"
    section = RUNBOOK.partition(f"\n### {rule['alert']}\n")[2].split("\n#")[0]
    assert "**Means:**" in section, f"docs/runbook.md has no section {rule['alert']} that says what it means"
    assert "**Do:**" in section, f"the section {rule['alert']} does not say what to do"


def test_the_runbook_has_no_section_of_an_alert_that_is_gone() -> None:
    """Sections of alerts and rules are the same."""
    assert sorted(re.findall(r"^### (Wherefrom\w+)$", RUNBOOK, re.MULTILINE)) == sorted(
        rule["alert"] for rule in rules()
    )


def test_the_dashboard_names_what_is_measured() -> None:
    """No panel stays empty for a misspelt name."""
    assert len(panel_queries()) > 15
    assert not [(query, wrong) for query in panel_queries() if (wrong := problems_of(query))]


def test_what_every_web_process_shows_alike_is_not_added_up() -> None:
    """Totals of the service are the same in each of them: a sum would double with a second one, and an alert would come twice."""
    totals = [
        f"{PREFIX}{name}"
        for name, one in declared_metrics().items()
        if one["type"] == "counter" and one.get("scope") != "process"
    ]
    queries = [*panel_queries(), *(rule["expr"] for rule in rules())]
    of_totals = [query for query in queries if set(_NAME.findall(query)) & set(totals)]
    assert len(of_totals) > 20
    assert not [query for query in of_totals if not query.startswith("max")]


def test_every_metric_is_looked_at() -> None:
    """What is counted stands in an alert or on the dashboard."""
    looked_at = "\n".join([*panel_queries(), *(rule["expr"] for rule in rules())])
    assert not [name for name in declared_metrics() if f"{PREFIX}{name}" not in looked_at]


@pytest.mark.parametrize(
    "query",
    ["wherefrom_nothing > 0", 'wherefrom_audits{colour="red"} > 0', "sum by (colour) (wherefrom_audits)"],
)
def test_a_misspelt_query_would_be_found(query: str) -> None:
    """The test above can fail."""
    assert problems_of(query)


def test_every_alert_is_tried() -> None:
    """Its tests see it quiet first, then fire with its own text."""
    tried: dict[str, list[bool]] = {}
    for case in yaml.safe_load((OPS / "alerts_test.yml").read_text("utf-8"))["tests"]:
        for one in case["alert_rule_test"]:
            tried.setdefault(one["alertname"], []).append(bool(one["exp_alerts"]))
    assert tried == {rule["alert"]: [False, True] for rule in rules()}


@pytest.mark.parametrize("what", ["check rules alerts.yml", "test rules alerts_test.yml"])
def test_prometheus_takes_the_rules(what: str) -> None:
    """`promtool` parses every expression and template, and each alert fires on what it is for and on nothing else."""
    promtool = shutil.which("promtool")
    if promtool is None:
        absent("promtool is not installed (Debian's package prometheus has it)")
    done = subprocess.run([promtool, *what.split()], cwd=OPS, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
