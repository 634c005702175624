"""What becomes of each audit of a batch, whatever goes wrong with its neighbours."""

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from wherefrom.errors import (
    ATTEMPTS_EXHAUSTED,
    INTERNAL_ERROR,
    NO_SUPPORT,
    BundleCorrupt,
    DatabaseUnavailable,
    OutOfMemory,
    OutputTooLong,
)
from wherefrom.records import AuditState, FlaggedRecord
from wherefrom.settings import Settings


def record(completion="refunds take two days", **fields):
    """A flagged output."""
    return FlaggedRecord(prompt="hello", completion=completion, model="m", **fields)


def poison(*bad, error):
    """A pass raises when one of these audits is in it."""

    def _before(keys):
        if set(keys) & {str(one) for one in bad}:
            raise error

    return _before


def test_every_audit_of_a_healthy_batch_is_done(bench):
    """Each audit gets its own citations."""
    ids = [bench.audits.add(record(f"word{n} take days")) for n in range(10)]
    report = bench.work(bench.engine())
    assert report.counts() == {"done": 10}
    for audit_id in ids:
        stored = bench.audits.by_id[audit_id]
        assert stored.attribution is not None
        assert stored.attribution.key == str(audit_id)
    assert bench.metric("audits_finished_total", state="done") == 10


@given(st.integers(min_value=1, max_value=24), st.data())
def test_poisoned_items_sink_nobody_else(make_bench, size, data):
    """However many items poison their passes, exactly these are dead and all others are done."""
    bench = make_bench()
    bad = data.draw(st.sets(st.integers(min_value=1, max_value=size)))
    for n in range(size):
        bench.audits.add(record(f"{'word ' * (n % 7)}tail"))
    report = bench.work(bench.engine(poison(*bad, error=ZeroDivisionError("bug"))))
    assert {one for one, state in bench.states().items() if state == "dead"} == bad
    assert report.done == size - len(bad)
    assert report.dead == len(bad)


def test_a_bug_is_dead_at_once_with_its_traceback_in_the_log(bench, logs):
    """A bug is not tried again; the table names the class only, the log has everything."""
    bench.audits.add(record())
    report = bench.work(bench.engine(poison(1, error=KeyError("secret text"))))
    [logged] = [one for one in logs if one["event"] == "audit_bug"]
    assert logged["audit_id"] == 1
    assert isinstance(logged["exc_info"], KeyError)
    stored = bench.audits.by_id[1]
    assert report.counts() == {"dead": 1}
    assert (stored.state, stored.code) == (AuditState.DEAD, INTERNAL_ERROR)
    assert "KeyError" in (stored.reason or "")
    assert "secret" not in (stored.reason or "")


def test_a_permanent_error_rejects_only_its_audit(bench):
    """An output over the limit is rejected with its code when the setting says so; it is never passed to the model."""
    bench.settings = Settings(max_tokens=8, over_long="reject")
    bench.audits.add(record("one " * 9))
    bench.audits.add(record())
    engine = bench.engine()
    report = bench.work(engine)
    assert report.counts() == {"done": 1, "rejected": 1}
    assert bench.audits.by_id[1].code == OutputTooLong.code
    assert engine.passes == [["2"]]


def test_a_permanent_error_of_a_pass_rejects_the_culprit(bench):
    """Also a permanent error in a pass is narrowed down to the one that causes it."""
    for _ in range(4):
        bench.audits.add(record())
    bench.work(bench.engine(poison(3, error=BundleCorrupt("index"))))
    assert bench.states() == {1: "done", 2: "done", 3: "rejected", 4: "done"}
    assert bench.audits.by_id[3].code == BundleCorrupt.code


@pytest.mark.parametrize(
    ("error", "code"), [(OutOfMemory("4 GB"), "out_of_memory"), (MemoryError(), "out_of_memory")]
)
def test_a_transient_error_is_tried_again_and_dead_in_the_end(bench, error, code):
    """The waits grow; when the attempts are spent the audit is dead and the last error is in its reason."""
    bench.audits.add(record())
    engine = bench.engine(poison(1, error=error))
    waits = []
    for _ in range(2):
        assert bench.work(engine).counts() == {"retried": 1}
        stored = bench.audits.by_id[1]
        assert stored.state is AuditState.PENDING
        waits.append(stored.next_attempt_at - bench.now)
        bench.now = stored.next_attempt_at
    assert bench.work(engine).counts() == {"dead": 1}
    assert 1 <= waits[0] <= 2 <= waits[1] <= 4
    assert bench.audits.by_id[1].code == ATTEMPTS_EXHAUSTED
    assert code in (bench.audits.by_id[1].reason or "")


def test_a_batch_that_does_not_fit_is_worked_in_halves(bench):
    """Out of memory with many: halves are tried, nobody loses an attempt."""

    def _small(keys):
        if len(keys) > 2:
            raise OutOfMemory(f"{len(keys)} queries")

    for _ in range(8):
        bench.audits.add(record())
    report = bench.work(bench.engine(_small))
    assert report.done == 8
    assert report.bisections == 3
    assert bench.metric("batch_bisections_total") == 3


def test_packs_keep_to_the_token_budget(bench):
    """No pass is larger than `batch_tokens`."""
    for n in range(20):
        bench.audits.add(record("word " * (1 + n)))
    engine = bench.engine()
    bench.work(engine)
    assert len(engine.passes) > 3
    for keys in engine.passes:
        assert len(keys) * max(int(key) for key in keys) <= 64


def test_an_audit_that_another_worker_holds_is_dropped(bench):
    """A lease that ran out during the pass: the other worker's claim stands, our answer is discarded."""
    bench.audits.add(record())
    bench.audits.add(record())

    def _someone_else_takes_the_first(_keys):
        bench.audits.by_id[1].owner, bench.audits.by_id[1].attempt = "other", 2

    report = bench.work(bench.engine(_someone_else_takes_the_first))
    assert report.counts() == {"done": 1, "fenced": 1}
    assert bench.audits.by_id[1].owner == "other"
    assert bench.audits.by_id[1].attribution is None
    assert bench.metric("fence_rejects_total") == 1


@pytest.mark.parametrize("error", [ZeroDivisionError(), OutOfMemory("x"), BundleCorrupt("x")])
def test_failures_of_a_lost_audit_are_dropped_too(bench, error):
    """What another worker holds is not marked dead, rejected or pending by us."""
    bench.audits.add(record())

    def _lose_and_fail(_keys):
        bench.audits.by_id[1].owner = "other"
        raise error

    assert bench.work(bench.engine(_lose_and_fail)).counts() == {"fenced": 1}
    assert bench.states() == {1: "running"}


def test_items_that_were_tried_before_run_alone_after_the_others(bench):
    """One of them may have killed its worker; the order turns round with each attempt."""
    for _ in range(4):
        bench.audits.add(record())
    for audit_id in (1, 2, 3):
        bench.audits.by_id[audit_id].attempt = 1
    engine = bench.engine()
    bench.work(engine)
    assert engine.passes == [["4"], ["1"], ["2"], ["3"]]
    for audit_id in (1, 2, 3):
        bench.audits.by_id[audit_id].state = AuditState.PENDING
    second = bench.engine()
    bench.work(second)
    assert second.passes == [["3"], ["2"], ["1"]]


def test_answers_for_other_queries_are_a_bug(bench):
    """An engine that mixes up its answers does not get them stored."""
    bench.audits.add(record())
    engine = bench.engine()
    right = engine.attribute
    engine.attribute = lambda *args, **kwargs: [
        one.model_copy(update={"key": "7"}) for one in right(*args, **kwargs)
    ]
    assert bench.work(engine).counts() == {"dead": 1}


def test_a_record_that_cannot_be_stored_is_a_bug_of_its_own(bench):
    """A failure while storing one answer leaves the other answers stored."""
    for _ in range(3):
        bench.audits.add(record())
    finish = bench.store.finish

    def _finish(finished):
        if any(one.claimed.audit_id == 2 for one in finished):
            raise ValueError("unstorable")
        return finish(finished)

    bench.store.finish = _finish
    assert bench.work(bench.engine()).counts() == {"done": 2, "dead": 1}
    assert bench.audits.by_id[2].code == INTERNAL_ERROR


@pytest.mark.parametrize("culprit", [1, 2, 3])
def test_one_answer_that_is_refused_for_no_known_reason(bench, culprit):
    """The others are stored, also those behind it; its own failures are counted with their reason until it is dead."""
    for _ in range(3):
        bench.audits.add(record())
    finish = bench.store.finish

    def _finish(finished):
        if any(one.claimed.audit_id == culprit for one in finished):
            raise DatabaseUnavailable("a trigger")
        return finish(finished)

    bench.store.finish = _finish
    assert bench.work(bench.engine()).counts() == {"done": 2, "retried": 1}
    assert bench.audits.by_id[culprit].code == DatabaseUnavailable.code


def test_a_database_that_takes_no_probe_ends_the_batch(bench):
    """However many answers fail, none of them is to blame, and none is tried alone."""
    for _ in range(3):
        bench.audits.add(record())
    asked = []

    def _away(finished=()):
        asked.append(len(finished))
        raise DatabaseUnavailable("read-only")

    bench.store.finish = bench.store.check_writable = _away
    with pytest.raises(DatabaseUnavailable):
        bench.work(bench.engine())
    assert bench.states() == {1: "running", 2: "running", 3: "running"}
    assert asked == [3, 0]


def test_an_absent_database_ends_the_batch(bench):
    """Nothing can be recorded, so nothing is: the leases run out and the audits are claimed again."""
    bench.audits.add(record())

    def _away(*_args, **_kwargs):
        raise DatabaseUnavailable("away")

    bench.store.finish = _away
    with pytest.raises(DatabaseUnavailable):
        bench.work(bench.engine())
    assert bench.states() == {1: "running"}


class AbstainingAttributor:
    """The engine of a bench; answers to keys in `unsure` abstain, and queries are remembered."""

    bundle_name = "bundle-1"

    def __init__(self, inner, unsure):
        self._inner, self._unsure, self.queries = inner, unsure, []

    def prepare(self, query, *, max_tokens, over_long):
        """As the inner engine."""
        self.queries.append(query)
        return self._inner.prepare(query, max_tokens=max_tokens, over_long=over_long)

    def attribute(self, prepared, *, top_k, opponents):
        """As the inner engine, and some answers say that nobody should trust them."""
        answers = self._inner.attribute(prepared, top_k=top_k, opponents=opponents)
        doubt = {"abstained": "no better than controls", "conformal_p": 0.8}
        return [one.model_copy(update=doubt) if one.key in self._unsure else one for one in answers]


def test_an_abstained_answer_keeps_its_citations_and_says_why(bench):
    """State, code and reason tell that the citations are not supported; they are stored all the same."""
    sure, unsure = bench.audits.add(record()), bench.audits.add(record())
    report = bench.work(AbstainingAttributor(bench.engine(), {str(unsure)}))
    assert report.counts() == {"done": 1, "abstained": 1}
    assert bench.states() == {sure: "done", unsure: "abstained"}
    stored = bench.audits.by_id[unsure]
    assert (stored.code, stored.reason) == (NO_SUPPORT, "no better than controls")
    assert stored.attribution is not None
    assert stored.attribution.citations
    assert bench.audits.by_id[sure].code is None
    assert bench.metric("audits_finished_total", state="abstained") == 1


@pytest.mark.parametrize(
    ("setting", "important"),
    [("critical", {"critical"}), (" High, critical", {"high", "critical"}), ("", set())],
)
def test_severities_of_the_full_tier_mark_their_queries(bench, setting, important):
    """The engine is told which audits are important; it does the rest."""
    bench.settings = Settings(full_tier_severities=setting)
    ids = {bench.audits.add(record(severity=one)): one for one in ("low", "medium", "high", "critical")}
    engine = AbstainingAttributor(bench.engine(), set())
    bench.work(engine)
    assert {ids[int(query.key)] for query in engine.queries if query.important} == important


def test_an_unknown_severity_of_the_full_tier_is_refused_at_the_start():
    """A misspelt severity would silently never match."""
    with pytest.raises(ValueError, match="'urgent' is not a severity; the severities are low"):
        Settings(full_tier_severities="critical,urgent")


def test_what_is_logged_within_a_pass_carries_its_audits(bench):
    """Whoever logs below the engine says for which audits, halves of a split pack included; nothing is left bound."""
    ids = [bench.audits.add(record(f"word{n} take days")) for n in range(4)]
    seen = []

    def note(keys):
        seen.append(structlog.contextvars.get_contextvars()["audit_ids"])
        if len(keys) == len(ids):
            raise OutOfMemory("too much")

    bench.work(bench.engine(note))
    assert seen == [ids, ids[:2], ids[2:]]
    assert "audit_ids" not in structlog.contextvars.get_contextvars()
