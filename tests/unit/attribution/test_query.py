"""The record of a query grows: each stage holds all that the one before held, and says nothing twice."""

import ast
import inspect
from dataclasses import fields

import numpy as np
import torch

from wherefrom.attribution import query as stages
from wherefrom.attribution.factors import Factors
from wherefrom.attribution.models.render import TokenRow
from wherefrom.attribution.query import (
    CandidateScores,
    QuerySignals,
    ReadQuery,
    ScoredQuery,
    TokenizedQuery,
    contrast_rows,
)
from wherefrom.attribution.retrieval.candidates import Candidates
from wherefrom.records import Message, Query, Role

TURNS = (Message(role=Role.SYSTEM, content="be brief"), Message(role=Role.USER, content="why?"))


def tokenized(preferred: TokenRow | None = None) -> TokenizedQuery:
    """Five tokens, two of them the completion's."""
    asked = Query(key="q", turns=TURNS, completion="so")
    return TokenizedQuery(asked, TokenRow((1, 2, 3, 4, 5), 3, (True, True)), preferred)


def signals() -> QuerySignals:
    """One token of the completion, then one of an acceptable answer."""
    a, b = torch.ones(2, 1, 3), torch.ones(2, 1, 3)
    none = np.zeros(2, dtype=np.float32)
    return QuerySignals(
        Factors(a, b, (2,)),
        torch.tensor(1.0),
        none,
        none,
        None,
        loss=0.5,
        final=None,
        tokens=1,
        read_tokens=1,
    )


def scores() -> CandidateScores:
    """Two candidates."""
    one = np.zeros(2, dtype=np.float32)
    return CandidateScores(
        Candidates(np.arange(2), one),
        one,
        one,
        one,
        one,
        one,
        encoder=None,
        final=None,
        shown=one,
        effect=one,
        ekfac=None,
    )


def test_each_stage_is_the_one_before_and_more() -> None:
    """Parts are handed on, not copied; what takes an earlier stage takes a later one."""
    first = tokenized(TokenRow((1, 2, 3, 6), 3, (True,)))
    second = first.with_signals(signals())
    third = second.with_scores(scores())
    assert isinstance(third, ScoredQuery)
    assert isinstance(third, ReadQuery)
    for before, after in ((first, second), (second, third)):
        assert isinstance(after, type(before))
        for one in fields(before):
            assert getattr(after, one.name) is getattr(before, one.name), one.name


def test_what_a_query_says_of_its_tokens() -> None:
    """The text leaves system messages out; an acceptable answer counts as a second row as long as the longer one."""
    assert tokenized().text == "why?\nso"
    assert (tokenized().tokens, tokenized().completion_tokens) == (5, 2)
    both = tokenized(TokenRow((1, 2, 3, 6, 7, 8), 3, (True, True, True)))
    assert (both.tokens, both.completion_tokens) == (12, 3)


def test_the_factors_of_the_completion_are_the_first_ones() -> None:
    """Those of an acceptable answer stand behind them and are left out."""
    assert signals().of_completion().lengths == (1,)


def test_no_stage_forwards_a_part_of_another() -> None:
    """A name that only repeats `self.part.name` would be a second way to the same thing."""
    tree = ast.parse(inspect.getsource(stages))
    returned = [
        one.value
        for one in ast.walk(tree)
        if isinstance(one, ast.Return) and isinstance(one.value, ast.Attribute)
    ]
    assert not [ast.unparse(one) for one in returned if ast.unparse(one).startswith("self.")]


def test_an_acceptable_answer_is_taken_from_its_own_query() -> None:
    """Rows of answers stand behind all queries, in the order of those that have one."""
    values = torch.tensor([[1.0], [2.0], [3.0], [0.5], [0.25]])
    found = contrast_rows(values, [True, False, True])
    assert found.tolist() == [[0.5], [2.0], [2.75]]
    assert values[0] == 1.0
