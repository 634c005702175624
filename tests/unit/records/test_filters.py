"""The filters of the list of audits are one list: what is made from it agrees with it."""

from datetime import datetime
from typing import get_args, get_type_hints

import pytest
import typer.utils

from db.reading.selection import conditions
from web.filters import LINK_NAMES, AuditQuery
from wherefrom.cli import export, service
from wherefrom.client.filters import AuditFilters
from wherefrom.records import FILTER_NAMES, AuditFilter, filter_help, filter_type

#: What no filter is, among the parameters of the API.
_OF_THE_LIST = {"cursor", "limit", "fdr", "unseen", "sort"}


def _options(command):
    """The options of a command as Typer reads them: by spelling, help and type."""
    parameters = typer.utils.get_params_from_function(command).values()
    return {
        one.default.param_decls[0]: (one.default.help, next(iter(get_args(one.annotation)), None))
        for one in parameters
    }


@pytest.mark.parametrize("name", FILTER_NAMES)
def test_each_filter_is_described_and_has_an_example_that_it_takes(name):
    """And the example narrows the statement, so no filter is read and then forgotten."""
    field = AuditFilter.model_fields[name]
    assert filter_help(name).endswith(".")
    assert field.examples is not None
    (example,) = field.examples
    narrowed = AuditQuery(**{name: example}).to_filter()
    assert getattr(narrowed, name) is not None
    assert len(conditions(narrowed)) == 1
    assert conditions(AuditFilter()) == []


def test_the_parameters_are_the_filters():
    """With the same help; links carry all of them."""
    assert set(AuditQuery.model_fields) - _OF_THE_LIST == set(FILTER_NAMES)
    assert (*FILTER_NAMES, "fdr", "unseen", "sort") == LINK_NAMES
    for name in FILTER_NAMES:
        assert AuditQuery.model_fields[name].description == filter_help(name)


def test_the_client_takes_the_filters():
    """Enums and times as text too."""
    hints = get_type_hints(AuditFilters)
    assert tuple(hints) == FILTER_NAMES
    assert {name: set(get_args(hint)) for name, hint in hints.items()} == {
        name: {filter_type(name), str, type(None)} for name in FILTER_NAMES
    }


@pytest.mark.parametrize("command", [service.audits, export.export])
def test_the_commands_have_an_option_per_filter(command):
    """`--reason` is short for `flag_reason`; a choice is offered where the filter has one."""
    options = _options(command)
    for name in FILTER_NAMES:
        shown_help, kind = options.pop({"flag_reason": "--reason"}.get(name, f"--{name.replace('_', '-')}"))
        assert shown_help == filter_help(name)
        assert kind is (str if filter_type(name) is datetime else filter_type(name))
    others = {
        "--fdr",
        "--sort",
        "--unseen",
        "--count",
        "--limit",
        "--url",
        "--json",
        "--output",
        "--format",
        "--verdicts",
        "--rows",
        "--manifest",
    }
    assert set(options) <= others
