"""What a key may do in a moment and in a day, counted by all processes together."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import event, update

from db.access import budgets, key_rotation, keys
from db.access.budgets import Budget, Quotas, Spending
from db.models import KeyBudget
from db.session import Database
from tests.services.templates import Templates
from wherefrom.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    NotFound,
    QuotaSpent,
    TooManyRequests,
)


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def db(
    request: pytest.FixtureRequest, templates: Templates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    """A database for the module; each test makes a key of its own."""
    with templates.copied(request.param, tmp_path_factory.mktemp("budgets") / "w.db") as url:
        opened = Database(url)
        yield opened
        opened.dispose()


def budget_of(db: Database, name: str, quotas: Quotas) -> Budget:
    """The budget of a new key."""
    info = keys.check_key(db, keys.create_key(db, name, ["ingest"], quotas=quotas))
    assert info is not None
    return Budget(info.key_id, info.quotas)


def test_a_day_ends_at_its_quota_whoever_counts(db: Database) -> None:
    """Threads stand for processes: of twenty that want one each, ten get it; what is given back may be had again."""
    budget = budget_of(db, "day", Quotas(outputs=10))

    def take(_: int) -> bool:
        try:
            budgets.pay(db, budget, Spending.OUTPUTS)
        except QuotaSpent:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(take, range(20))) == 10
    with pytest.raises(QuotaSpent, match="10 outputs a day; 10 are spent") as caught:
        budgets.pay(db, budget, Spending.OUTPUTS, 3)
    assert 0 < caught.value.retry_after_s <= 86_400
    budgets.give_back(db, budget, Spending.OUTPUTS, 3)
    budgets.pay(db, budget, Spending.OUTPUTS, 3)
    budgets.pay(db, budget, Spending.EXPORTS, 10_000)  # not bounded
    with db.writing() as session:  # yesterday's spending is over
        session.execute(
            update(KeyBudget).where(KeyBudget.api_key_id == budget.key_id).values(day=KeyBudget.day - 1)
        )
    budgets.pay(db, budget, Spending.OUTPUTS, 10)


def test_more_than_a_burst_waits(db: Database) -> None:
    """A burst goes through, the next request is told how long to wait, and afterwards the rate holds."""
    budget = budget_of(db, "burst", Quotas(requests_per_second=0.01, burst=3))
    for _ in range(3):
        budgets.pay_request(db, budget)
    with pytest.raises(TooManyRequests) as caught:
        budgets.pay_request(db, budget)
    assert 50.0 < caught.value.retry_after_s <= 100.0  # a busy machine may stall between two requests
    with db.writing() as session:  # a hundred seconds go by
        session.execute(
            update(KeyBudget).where(KeyBudget.api_key_id == budget.key_id).values(used=KeyBudget.used - 100.0)
        )
    budgets.pay_request(db, budget)
    with pytest.raises(TooManyRequests):
        budgets.pay_request(db, budget)


def test_slower_bounds_and_a_clock_that_was_set_back_lock_nobody_out(db: Database) -> None:
    """What was paid for hours ahead under them counts no more; within the present bounds nothing is forgiven."""
    slow = budget_of(db, "slow", Quotas(requests_per_second=0.001, burst=5))
    for _ in range(5):
        budgets.pay_request(db, slow)
    with pytest.raises(TooManyRequests):
        budgets.pay_request(db, slow)
    quick = Budget(slow.key_id, Quotas(requests_per_second=0.1, burst=2))
    for _ in range(2):
        budgets.pay_request(db, quick)
    with pytest.raises(TooManyRequests) as caught:
        budgets.pay_request(db, quick)
    assert caught.value.retry_after_s <= 10.0


def test_nothing_is_given_back_by_a_database_that_is_away(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was stored is stored: whoever sent it must not be told otherwise, and send it again."""
    budget = budget_of(db, "away", Quotas(outputs=3))

    def away() -> None:
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(db, "writing", away)
    budgets.give_back(db, budget, Spending.OUTPUTS, 1)


def test_bounds_are_set_replaced_and_go_with_a_rotated_key(db: Database) -> None:
    """And a key without any costs no statement."""
    keys.create_key(db, "bounded", ["read"])
    keys.set_quotas(db, "bounded", Quotas(exports=2))
    new = keys.check_key(db, key_rotation.rotate_key(db, "bounded", grace_s=60).key)
    assert new is not None
    assert new.quotas == Quotas(exports=2)
    keys.set_quotas(db, "bounded-2", Quotas())
    statements: list[str] = []
    event.listen(db._writer, "before_cursor_execute", lambda *given: statements.append(given[2]))
    for spending in Spending:
        budgets.pay(db, Budget(new.key_id, Quotas()), spending)
    budgets.pay_request(db, Budget(new.key_id, Quotas()))
    assert not statements
    with pytest.raises(NotFound):
        keys.set_quotas(db, "nobody", Quotas())
    for wrong in (Quotas(requests_per_second=0), Quotas(burst=3), Quotas(outputs=-1)):
        with pytest.raises(ConfigurationError):
            wrong.check()
