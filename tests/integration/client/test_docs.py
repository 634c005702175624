"""The Python of docs/clients.md runs as it stands there."""

import re
from pathlib import Path

import pytest

from db.access.keys import create_key
from tests.integration.client.conftest import Served
from wherefrom.client import Service

DOCUMENT = Path(__file__).parents[3] / "docs" / "clients.md"


def test_python_examples(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both examples run against a service, and what the first one flags is accepted."""
    monkeypatch.setenv("WHEREFROM_SERVICE_URL", served.url)
    text = DOCUMENT.read_text(encoding="utf-8")
    text = text.replace("http://127.0.0.1:8077", served.url).replace("/var/lib/my-service", str(tmp_path))
    key = create_key(served.database, "producer", ["ingest", "read"])
    text = text.replace("wf_...", key)
    flagging, reading = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, object] = {}
    exec(flagging, names)
    assert names["left"] == 0
    with Service() as service:
        assert len(list(service.audits(text="We refund every product at any time."))) >= 1
        cited = service.audit(served.story.audit_ids[0]).citations[0].example_id
    exec(reading.replace("vendor_batch_07-0012", cited), names)
