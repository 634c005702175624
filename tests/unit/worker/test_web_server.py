"""How the web process serves: which protocol stands before the application."""

from types import SimpleNamespace

import pytest
from fastapi import FastAPI

from web.guard.admission import Lanes
from web.guard.protocol import RefusingProtocol
from wherefrom.metrics import Metrics
from wherefrom.settings import Settings
from worker import web_server


@pytest.fixture
def app():
    """An application with lanes."""
    made = FastAPI()
    made.state.services = SimpleNamespace(lanes=Lanes.of(Settings(), Metrics()))
    return made


def test_the_server_refuses_by_the_lanes_of_its_application(app):
    """The protocol looks at the same line as the application."""
    protocol = web_server._protocol(app)
    assert isinstance(protocol, type)
    assert issubclass(protocol, RefusingProtocol)
    assert protocol.lanes is app.state.services.lanes


def test_without_httptools_the_application_refuses_by_itself(app, monkeypatch):
    """Then uvicorn chooses its own protocol."""
    monkeypatch.setattr(web_server, "find_spec", lambda name: None)
    assert web_server._protocol(app) == "auto"
