"""Lanes: slots, a bounded line before them, and who goes to which."""

import asyncio

import pytest

from web.guard.admission import Lane, LaneName, Lanes
from wherefrom.errors import TooBusy
from wherefrom.metrics import Metrics
from wherefrom.settings import Settings


def lane(metrics=None, *, slots=1, depth=1, wait_s=5.0):
    """A lane."""
    return Lane(LaneName.READ, slots=slots, depth=depth, wait_s=wait_s, metrics=metrics or Metrics())


async def hold(one, opened, done):
    """Hold a slot until told otherwise."""
    async with one.slot():
        opened.set()
        await done.wait()


def test_a_full_line_is_refused_at_once_and_a_slot_is_handed_on():
    """One is in work, one waits and gets the slot in its turn, the third is refused and counted."""
    metrics = Metrics()

    async def story():
        one = lane(metrics)
        opened, done, second_opened = asyncio.Event(), asyncio.Event(), asyncio.Event()
        first = asyncio.create_task(hold(one, opened, done))
        await opened.wait()
        second = asyncio.create_task(hold(one, second_opened, done))
        await asyncio.sleep(0)
        with pytest.raises(TooBusy):
            async with one.slot():
                pass
        assert not second_opened.is_set()
        done.set()
        await asyncio.gather(first, second)
        async with one.slot():
            pass

    asyncio.run(story())
    assert metrics.registry.get_sample_value("wherefrom_http_refused_total", {"lane": "read"}) == 1


def test_who_waits_too_long_is_refused_and_leaves_the_line():
    """Afterwards there is room in the line again."""

    async def story():
        one = lane(wait_s=0.01)
        opened, done = asyncio.Event(), asyncio.Event()
        first = asyncio.create_task(hold(one, opened, done))
        await opened.wait()
        for _ in range(3):
            with pytest.raises(TooBusy):
                async with one.slot():
                    pass
        done.set()
        await first

    asyncio.run(story())


def test_a_slot_comes_back_from_a_request_that_failed():
    """Whatever it raised."""

    async def story():
        one = lane(depth=0)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                async with one.slot():
                    raise ZeroDivisionError

    asyncio.run(story())


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/healthz", None),
        ("GET", "/static/wherefrom.css", None),
        ("GET", "/readyz", "probe"),
        ("GET", "/metrics", "probe"),
        ("POST", "/v1/flagged", "upload"),
        ("GET", "/v1/flagged", "read"),
        ("GET", "/v1/audits", "read"),
        ("GET", "/v1/audits.csv", "export"),
        ("GET", "/", "read"),
        ("POST", "/audits/1/citations/1/measure", "read"),
    ],
)
def test_each_request_has_its_lane(method, path, name):
    """Liveness and static files never wait."""

    async def look():
        return Lanes.of(Settings(), Metrics()).of_request(method, path)

    found = asyncio.run(look())
    assert (None if found is None else found._name) == name


@pytest.mark.parametrize(("most", "slots"), [(None, 3), (1, 1), (9, 3)])
def test_no_more_writers_at_once_than_the_database_has_use_for(most, slots):
    """The setting is the upper bound; a database may have use for fewer."""

    async def look():
        return Lanes.of(Settings(max_concurrent_writes=3), Metrics(), most_writes=most).store._free._value

    assert asyncio.run(look()) == slots
