"""Times that go in aware come out aware, in UTC."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy.dialects import postgresql, sqlite

from db.clock import UtcTimestamp

_DIALECTS = [sqlite.dialect(), postgresql.dialect()]


@pytest.mark.parametrize("dialect", _DIALECTS)
def test_round_trip(dialect) -> None:
    """The same instant, whatever zone it was written in; None stays None."""
    kind, moment = UtcTimestamp(), datetime(2026, 1, 31, 12, 0, 0, 123456, timezone(timedelta(hours=5.5)))
    stored = kind.process_bind_param(moment, dialect)
    read = kind.process_result_value(stored, dialect)
    assert read == moment
    assert read is not None
    assert read.utcoffset() == timedelta(0)
    assert kind.process_bind_param(None, dialect) is None
    assert kind.process_result_value(None, dialect) is None


@pytest.mark.parametrize("dialect", _DIALECTS)
def test_naive_times_are_refused(dialect) -> None:
    """Nobody can say which instant a time without a zone means."""
    with pytest.raises(ValueError, match="naive"):
        UtcTimestamp().process_bind_param(datetime(2026, 1, 31, tzinfo=UTC).replace(tzinfo=None), dialect)
