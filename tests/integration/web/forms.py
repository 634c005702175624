"""A browser without script, for tests: signs in, and sends forms with the token that stands on the page."""

import re
from urllib.parse import urlencode

from starlette.testclient import TestClient

FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_TOKEN = re.compile(r'name="form_token" value="([^"]+)"')


def token_of(client: TestClient, page: str) -> str:
    """The token of the forms of a page."""
    found = _TOKEN.search(client.get(page).text)
    assert found, f"{page} has no form"
    return found[1]


def send(client: TestClient, page: str, action: str, /, fields=(), *, follow=False):
    """Open a page and send a form of it.

    Args:
        client: Keeps the cookies.
        page: Where the form stands.
        action: Where it goes.
        fields: Its fields, a dictionary or pairs.
        follow: Whether to go where the answer leads.
    """
    pairs = [*dict(fields).items()] if isinstance(fields, dict) else [*fields]
    body = urlencode([("form_token", token_of(client, page)), *pairs])
    return client.post(action, content=body, headers=FORM, follow_redirects=follow)


def sign_in(client: TestClient, *, key: str = "", name: str = ""):
    """Begin a session with a key, or with a chosen name."""
    answer = send(client, "/sign-in", "/sign-in", {"key": key} if key else {"name": name})
    assert answer.status_code == 303, answer.text
    return answer
