"""The Celery application is what the decision says, also after its way into a pool process."""

import pickle

import pytest

from wherefrom.messages import ATTRIBUTE_QUEUE, ATTRIBUTE_TASK
from wherefrom.settings import Settings
from worker.app import make_celery, start_runtime
from worker.vitals.liveness import LOADING_S


@pytest.fixture
def app():
    """An application."""
    made = make_celery(Settings(key_prefix="p:", batch_time_limit_seconds=77))
    yield made
    made.close()


def test_only_json_no_results_early_acknowledgement_spawn(app):
    """The settings of the decision."""
    conf = app.conf
    assert conf.accept_content == ["json"]
    assert conf.task_serializer == conf.event_serializer == "json"
    assert conf.result_backend is None
    assert (conf.task_acks_late, conf.task_reject_on_worker_lost, conf.task_ignore_result) == (
        False,
        False,
        True,
    )
    assert (conf.worker_pool_start_method, conf.worker_prefetch_multiplier) == ("spawn", 1)
    assert conf.task_time_limit == 77 + LOADING_S, "the batch's own limit starts when the model is loaded"
    assert conf.worker_proc_alive_timeout >= 60, (
        "a spawned process imports for seconds, and many more on a busy machine"
    )
    assert conf.task_default_queue == ATTRIBUTE_QUEUE
    assert conf.broker_transport_options["global_keyprefix"] == "p:"


def test_a_pickled_application_keeps_settings_and_task(app):
    """A pool process gets it pickled."""
    copy = pickle.loads(pickle.dumps(app))
    assert copy.settings == app.settings
    assert ATTRIBUTE_TASK in copy.tasks
    assert copy.conf.accept_content == ["json"]
    copy.close()


def test_a_pool_process_gets_its_runtime(tmp_path):
    """The task of the started application has the runtime; nothing is connected yet."""
    app = make_celery(Settings(database_url=f"sqlite:///{tmp_path / 'x.db'}"))
    runtime = start_runtime(app)
    assert app.tasks[ATTRIBUTE_TASK].runtime is runtime
    runtime.close()
    app.close()
