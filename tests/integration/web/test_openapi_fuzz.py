"""Requests made up from the OpenAPI document never break the service or its promises.

Drives schemathesis by hand: its pytest plugin does not know the pytest that is installed.
"""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from web.app import create_app
from web.wellness.health import SilentProbe
from wherefrom.metrics import Metrics

#: What `derandomize` makes the same in every run; enough to reach each parameter, few enough for a short test.
FEW = settings(
    max_examples=7,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("mode_name", ["positive", "negative"])
def test_every_operation_keeps_its_promises(sqlite_story, mode_name):
    """Well-formed and ill-formed requests: no 500, only documented status codes, content types and bodies."""
    import schemathesis
    from schemathesis.checks import not_a_server_error
    from schemathesis.core.result import Ok
    from schemathesis.specs.openapi import checks

    mode = schemathesis.GenerationMode(mode_name)
    promises = [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    ]
    service_settings, database = sqlite_story
    service_settings = service_settings.model_copy(update={"recipe": Path("recipe.json")})
    app = create_app(service_settings, database, metrics=Metrics(), queue=SilentProbe())
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers={"Host": "127.0.0.1"})
    operations = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    assert len(operations) == 90
    for operation in operations:
        if mode.is_negative and not (operation.body or any(operation.iter_parameters())):
            continue  # nothing can be wrong about a request that carries nothing

        @FEW
        @given(case=operation.as_strategy(generation_mode=mode))
        def keeps(case):
            case.call_and_validate(checks=promises, headers={"Host": "127.0.0.1"})

        keeps()
