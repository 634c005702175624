"""Measures what a citation claims: trains again without the example and looks at the output's loss.

With L_s(q; G) the mean loss per explained completion token of query q, in nats, after a training with seed s that leaves out the
rows G, the effect of G on q under s is

    e_s = L_s(q; G) - L_s(q; nothing)            positive = the rows made the output more likely

The result is the mean over S seeds with the t-interval  mean +- t_{.975, S-1} sd / sqrt(S). Control groups k = 1 ... K of like
size, source and length, which were not cited, have effects c_ks under the same seeds. With m_k their means over seeds and r_ks
what rows and columns of that table leave over,

    V = max( var_k m_k,  sum_ks r_ks^2 / ((K-1)(S-1)) / S )
    z = (mean_s e_s - mean_k m_k) / sqrt(V (1 + 1/K))

V is the variance of a control's mean effect: what controls really do plus the noise of retraining. The second term keeps V from being small
by chance where K is; 1/K is the noise of the controls' own mean. z >= 2 is called standing out. With few controls z has heavy
tails (K - 1 degrees of freedom at worst): three controls are the least that is allowed.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wherefrom.attribution.corpus import CorpusRow
from wherefrom.attribution.models.model import LanguageModel
from wherefrom.errors import ConfigurationError
from wherefrom.records import Query
from wherefrom.retraining.recipe import Recipe
from wherefrom.retraining.runs import Group, RunFolder, RunLosses, RunProgress
from wherefrom.retraining.training import token_rows

EffectArray = npt.NDArray[np.float64]

#: Least number of seeds and of controls.
LEAST_SEEDS = 3
LEAST_CONTROLS = 3
#: A control's length differs at most by this share from that of the row it stands for, where the corpus allows it.
LENGTH_SHARE = 0.25
#: 97.5 % quantile of Student's t for 1, 2, ... degrees of freedom; above them the normal's is used with Cornish-Fisher.
_T975 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)


@dataclass(frozen=True)
class RetrainingOptions:
    """How thoroughly a citation is measured: (2 + controls) retrainings per seed, most of them shared."""

    #: At least three seeds of the row order.
    seeds: tuple[int, ...] = (0, 1, 2)
    #: Control groups per citation, at least three.
    controls: int = LEAST_CONTROLS
    #: Keep the weights of every run (as large as the base model; an adapter's are small), so that later queries need no
    #: new base and control runs.
    keep_models: bool = True

    def __post_init__(self) -> None:
        """Refuse what measures nothing.

        Raises:
            ConfigurationError: fewer than three different seeds, or fewer than three controls.
        """
        if len(set(self.seeds)) < LEAST_SEEDS or len(set(self.seeds)) < len(self.seeds):
            raise ConfigurationError(
                f"seeds {', '.join(map(str, self.seeds))}: at least {LEAST_SEEDS} different ones are needed"
            )
        if self.controls < LEAST_CONTROLS:
            raise ConfigurationError(f"{self.controls} controls; at least {LEAST_CONTROLS} are needed")


@dataclass(frozen=True)
class CitationToMeasure:
    """A citation to be measured: which query, and the example's near-duplicate group."""

    #: Position among the queries given.
    query: int
    #: Corpus rows left out together.
    group: Group
    #: Rows that are no fit controls: whatever else is cited for the query.
    avoid: frozenset[int] = frozenset()


@dataclass(frozen=True)
class RetrainingEffect:
    """What retraining without a group did to a query's loss, beside controls."""

    query: int
    group: Group
    #: Mean over seeds, nats per completion token; positive = the group made the output more likely.
    effect_nats: float
    #: 95 % t-interval over seeds.
    low_nats: float
    high_nats: float
    #: One effect per seed.
    by_seed: tuple[float, ...]
    #: Left-out rows of each control.
    control_groups: tuple[Group, ...]
    #: Mean effect over seeds of each control.
    controls_nats: tuple[float, ...]
    #: How far the effect stands from the controls'; see the module's text.
    z: float
    #: Retrainings behind this result and what they cost; base and controls are shared with other citations.
    retrainings: int
    seconds: float

    @property
    def stands_out(self) -> bool:
        """Whether the effect differs from the controls' by two standard errors or more, upwards."""
        return self.z >= 2.0


def measure_citations(
    language: LanguageModel,
    corpus: Sequence[CorpusRow],
    *,
    queries: Sequence[Query],
    citations: Sequence[CitationToMeasure],
    recipe: Recipe,
    folder: Path,
    options: RetrainingOptions | None = None,
    progress: RunProgress | None = None,
) -> list[RetrainingEffect]:
    """Measure citations by retraining; runs are kept in a folder, shared, and go on where they were stopped.

    Args:
        language: The base model, before the fine-tune whose outputs are explained.
        corpus: All training examples of that fine-tune, in order.
        queries: The flagged outputs.
        citations: What to measure.
        recipe: How the fine-tune was done.
        folder: Where runs are kept; one folder per base model, corpus and recipe.
        options: Seeds and number of controls.
        progress: Told about each retraining.

    Returns:
        One result per citation, in order.

    Raises:
        ConfigurationError: too few seeds or controls, an unknown row or query, or a folder of another model.
        UnusableModel: a training diverged.
    """
    plan = RetrainingOptions() if options is None else options
    _check(citations, queries=len(queries))
    rows = token_rows(language, corpus, max_tokens=recipe.max_tokens)
    asked = token_rows(language, queries, max_tokens=recipe.max_tokens)
    lengths = [len(row.ids) for row in rows]
    sources = [row.source for row in corpus]
    cited = {row for citation in citations for row in citation.group}
    beside = [
        matched_controls(
            one.group, lengths=lengths, sources=sources, avoid=cited | one.avoid, count=plan.controls
        )
        for one in citations
    ]
    groups = list(dict.fromkeys([(), *(one.group for one in citations), *(g for gs in beside for g in gs)]))
    runs = RunFolder(folder, language=language, rows=rows, recipe=recipe, keep_models=plan.keep_models)
    found = runs.losses(asked, groups, seeds=plan.seeds, progress=progress)
    place = {group: index for index, group in enumerate(groups)}
    return [
        _effect_of(citation, matched, place=place, found=found)
        for citation, matched in zip(citations, beside, strict=True)
    ]


def _effect_of(
    citation: CitationToMeasure, matched: Sequence[Group], *, place: Mapping[Group, int], found: RunLosses
) -> RetrainingEffect:
    """One citation's effect beside its controls, from the losses of all runs."""
    losses = found.losses[:, :, citation.query]  # [S, G]
    wanted = [place[group] for group in matched]
    return summarise(
        citation,
        effects=losses[:, place[citation.group]] - losses[:, 0],
        controls=(losses[:, wanted] - losses[:, :1]).T,
        control_groups=matched,
        seconds=float(found.seconds[:, [0, place[citation.group], *wanted]].sum()),
    )


def summarise(
    citation: CitationToMeasure,
    *,
    effects: EffectArray,
    controls: EffectArray,
    control_groups: Sequence[Group],
    seconds: float,
) -> RetrainingEffect:
    """The result of one citation.

    Args:
        citation: What was measured.
        effects: Its effect under each seed, `[S]`, nats.
        controls: The controls' effects, `[K, S]`, nats.
        control_groups: What each control left out.
        seconds: What the retrainings behind it cost.
    """
    low, high = t_interval(effects)
    return RetrainingEffect(
        query=citation.query,
        group=citation.group,
        effect_nats=float(effects.mean()),
        low_nats=low,
        high_nats=high,
        by_seed=tuple(effects.tolist()),
        control_groups=tuple(control_groups),
        controls_nats=tuple(controls.mean(axis=1).tolist()),
        z=z_score(effects, controls),
        retrainings=len(effects) * (2 + len(controls)),
        seconds=seconds,
    )


def t_interval(effects: EffectArray) -> tuple[float, float]:
    """95 % interval of the mean over seeds `[S]`, S >= 2."""
    half = t_quantile(len(effects) - 1) * float(effects.std(ddof=1)) / math.sqrt(len(effects))
    return float(effects.mean()) - half, float(effects.mean()) + half


def t_quantile(freedom: int) -> float:
    """97.5 % quantile of Student's t; exact to four digits."""
    if freedom <= len(_T975):
        return _T975[freedom - 1]
    x = 1.959964
    terms: tuple[float, ...] = (
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
    )
    return x + sum(term / float(freedom) ** power for power, term in enumerate(terms, start=1))


def z_score(effects: EffectArray, controls: EffectArray) -> float:
    """How far a mean effect stands from the controls'; see the module's text.

    Args:
        effects: `[S]`, nats.
        controls: `[K, S]`, nats, K >= 2, S >= 2.

    Returns:
        z; infinite (or 0, for no difference) where the controls do not vary at all.
    """
    count, seeds = controls.shape
    means = controls.mean(axis=1)  # [K]
    left = controls - means[:, None] - controls.mean(axis=0) + controls.mean()  # [K, S]
    noise = float((left**2).sum()) / ((count - 1) * (seeds - 1)) / seeds
    variance = max(float(means.var(ddof=1)), noise) * (1 + 1 / count)
    difference = float(effects.mean() - means.mean())
    if variance == 0.0:
        return math.copysign(math.inf, difference) if difference else 0.0
    return difference / math.sqrt(variance)


def matched_controls(
    group: Sequence[int],
    *,
    lengths: Sequence[int],
    sources: Sequence[str],
    avoid: Iterable[int],
    count: int,
) -> list[Group]:
    """Control groups of as many rows as `group`, each row like its counterpart and none used twice.

    All citations walk through the corpus in the same random order and take the first rows that fit - same source and length within
    25 %, then same source, then any - so citations of like rows get the same controls, and their runs are shared.

    Raises:
        ConfigurationError: the corpus has too few other rows.
    """
    order = np.random.default_rng(0).permutation(len(lengths)).tolist()
    taken = {*avoid, *group}
    if len(lengths) - len(taken) < count * len(group):
        raise ConfigurationError(
            f"{len(lengths)} training examples are too few for {count} control groups of {len(group)} rows "
            f"beside {len(taken)} cited ones"
        )
    found: list[Group] = []
    for _ in range(count):
        rows = []
        for row in group:
            like = min(
                (other for other in order if other not in taken),
                key=lambda other: _unlikeness(row, other, lengths, sources),
            )
            taken.add(like)
            rows.append(like)
        found.append(tuple(sorted(rows)))
    return found


def _unlikeness(row: int, other: int, lengths: Sequence[int], sources: Sequence[str]) -> int:
    if sources[row] != sources[other]:
        return 2
    return int(abs(lengths[row] - lengths[other]) > LENGTH_SHARE * lengths[row])


def _check(citations: Sequence[CitationToMeasure], *, queries: int) -> None:
    for citation in citations:
        if not 0 <= citation.query < queries:
            raise ConfigurationError(f"citation of query {citation.query}; there are {queries} queries")
        if not citation.group:
            raise ConfigurationError(f"citation of query {citation.query}: its group holds no row")
