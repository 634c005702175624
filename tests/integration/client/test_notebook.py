"""Every cell of the notebook runs against a service, and finds what it speaks of."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.client.conftest import Served

NOTEBOOK = Path(__file__).parents[3] / "examples" / "auditing.ipynb"


def test_the_notebook_runs(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cell by cell in one namespace, as Jupyter does; it holds no output of anybody's service."""
    monkeypatch.setenv("WHEREFROM_SERVICE_URL", served.url)
    cells = [one for one in json.loads(NOTEBOOK.read_text("utf-8"))["cells"] if one["cell_type"] == "code"]
    assert len(cells) >= 8
    assert not any(one["outputs"] or one["execution_count"] for one in cells)
    names: dict[str, Any] = {}
    for number, cell in enumerate(cells):
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    names["service"].__exit__(None, None, None)
    assert names["blame"].to_numpy().sum() == 18
    assert len(names["culprits"]) == 10
    assert len(names["others"]) >= 1
    assert "What a citation does not prove" in names["report"]
