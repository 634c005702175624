"""Query parameters: what they mean, and what is refused."""

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from web.filters import AuditPageQuery, AuditQuery, link_query
from wherefrom.records import FILTER_NAMES


def test_days_count_whole():
    """From the first to the last moment of a day, in UTC."""
    query = AuditQuery(since="2026-01-31", until="2026-01-31")
    assert query.since == datetime(2026, 1, 31, tzinfo=UTC)
    assert query.until == datetime(2026, 1, 31, 23, 59, 59, 999999, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    ["2026-01-31T12:00:00", "2026-01-31T12:00:00Z", "2026-01-31T13:00:00+01:00", "2026-01-31T13:00:00 01:00"],
)
def test_times_are_read_with_their_zone(text):
    """No zone is UTC; a `+` that arrived as a space is still a `+`."""
    assert AuditQuery(since=text).since == datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_empty_fields_of_a_form_are_not_set():
    """A form sends all its fields."""
    query = AuditQuery(**dict.fromkeys(FILTER_NAMES, ""), cursor="", limit="")
    assert query.to_filter() == AuditQuery().to_filter()


@pytest.mark.parametrize(
    "given",
    [
        {"state": "finished"},
        {"since": "yesterday"},
        {"since": "0001-01-01T00:00:00+14:00"},
        {"since": "2026-02-01", "until": "2026-01-01"},
        {"limit": 0},
        {"text": "a\x00"},
        {"stat": "done"},
        {"model": "m" * 201},
    ],
)
def test_unusable_filters_are_refused(given):
    """A misspelt or impossible filter never returns everything."""
    with pytest.raises(ValidationError):
        AuditQuery(**given)


def test_pages_ignore_what_they_do_not_know():
    """Links pick up parameters on their way."""
    assert AuditPageQuery(utm_source="mail").state is None


def test_page_size_is_cut_to_the_maximum():
    """Asking for more is no error."""
    assert AuditQuery(limit=10_000).size(200) == 200
    assert AuditQuery().size(200) == 50
    assert AuditQuery().size(20) == 20


def test_links_keep_and_change_filters():
    """A link carries what is set, in a stable order, escaped."""
    given = {"text": "a&b", "state": "done"}
    assert link_query(given, cursor=None) == "?state=done&text=a%26b"
    assert link_query(given, state=None, cursor="x=") == "?text=a%26b&cursor=x%3D"
    assert link_query({}) == ""
