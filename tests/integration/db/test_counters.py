"""Totals of what the processes count."""

import threading

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from db.counters import add_to_totals, read_totals
from db.session import Database
from wherefrom.metrics import Metrics
from worker.vitals.counter_store import CounterStore


@pytest.fixture
def database(db):
    """A database with the schema."""
    return db


def shown(metrics, totals):
    """What `/metrics` would show, by sample and labels."""

    class Page:
        """As a registry."""

        def collect(self):
            """All families."""
            return metrics.families(totals)

    families = text_string_to_metric_families(generate_latest(Page()).decode())
    return {
        (one.name, *sorted(one.labels.items())): one.value for family in families for one in family.samples
    }


def test_processes_add_up_and_leave_nothing_behind(database):
    """Two processes of two lives each: totals grow, and there is one row per series."""
    for _ in range(2):
        for _ in range(2):
            metrics = Metrics()
            store = CounterStore(metrics, database)
            metrics.count("claims_total", 3)
            metrics.count("audits_finished_total", state="done")
            metrics.observe("batch_seconds", 0.3, stage="attribute")
            metrics.count("http_requests_total", route="/", method="GET", status="200")
            metrics.gauge("stream_entries", 7)
            store.store()
            metrics.count("claims_total")
            store.store()
            store.store()
    totals = read_totals(database)
    assert totals["wherefrom_claims_total", "{}"] == 16
    assert totals["wherefrom_audits_finished_total", '{"state": "done"}'] == 4
    assert totals["wherefrom_batch_seconds_sum", '{"stage": "attribute"}'] == pytest.approx(1.2)
    assert not any("http" in name or "created" in name or "stream" in name for name, _ in totals)


def test_the_page_shows_totals_whole(database):
    """Another process's counters, its histogram with buckets in order; the page's own requests; parsed as Prometheus does."""
    worker = Metrics()
    for seconds in (0.004, 0.3, 40.0):
        worker.observe("batch_seconds", seconds, stage="attribute")
    worker.count("claims_total", 5)
    CounterStore(worker, database).store()
    web = Metrics()
    web.count("http_requests_total", route="/", method="GET", status="200")
    page = shown(web, read_totals(database))
    assert page["wherefrom_claims_total",] == 5
    assert page["wherefrom_batch_seconds_count", ("stage", "attribute")] == 3
    assert page["wherefrom_batch_seconds_bucket", ("le", "+Inf"), ("stage", "attribute")] == 3
    assert page["wherefrom_http_requests_total", ("method", "GET"), ("route", "/"), ("status", "200")] == 1
    bounds = [dict(key[1:])["le"] for key in page if key[0] == "wherefrom_batch_seconds_bucket"]
    assert [float(one) for one in bounds] == sorted(float(one) for one in bounds)


def test_without_the_database_totals_are_left_out_and_increments_wait(database, database_url):
    """A counter that falls would look like a restart."""
    metrics = Metrics()
    metrics.count("claims_total", 2)
    away = Database("postgresql+psycopg://x@127.0.0.1:1/x")
    CounterStore(metrics, away).store()
    assert not any(name.startswith("wherefrom_claims") for name, *_ in shown(metrics, None))
    CounterStore(metrics, database).store()
    assert read_totals(database) == {("wherefrom_claims_total", "{}"): 2}


def test_processes_that_store_at_once_lose_nothing(database):
    """Each in a thread of its own, all on the same rows."""

    def work():
        metrics = Metrics()
        for _ in range(10):
            metrics.count("claims_total")
            metrics.count("audits_finished_total", state="done")
            CounterStore(metrics, database).store()
        CounterStore(metrics, database).store()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert set(read_totals(database).values()) == {40.0}


def test_no_increments_no_statement(database):
    """An idle process leaves the database alone."""
    add_to_totals(database, {})
    assert read_totals(database) == {}


def test_the_thread_stores_and_the_end_stores_the_rest(database):
    """What was counted between the last time and the end is not lost."""
    metrics = Metrics()
    store = CounterStore(metrics, database, every_s=60).start()
    metrics.count("claims_total")
    store.close()
    assert read_totals(database) == {("wherefrom_claims_total", "{}"): 1}


def test_figures_of_one_process_say_whose_they_are_where_several_answer_at_one_address():
    """Else Prometheus would take a request counted by one for a fall of the counter of another; totals are of all processes and say nothing."""
    alone, second = Metrics(), Metrics(process="2")
    for metrics in (alone, second):
        metrics.count("http_requests_total", route="/", method="GET", status="200")
        metrics.observe("http_request_seconds", 0.1, route="/")
        metrics.count("claims_total")
    labels = {name: dict(rest) for name, *rest in shown(second, {}) if "http_request" in name}
    assert labels
    assert all(one["process"] == "2" for one in labels.values())
    others = [rest for name, *rest in (*shown(alone, {}), *shown(second, {})) if "claims" in name]
    assert others
    assert not any("process" in dict(rest) for rest in others)
