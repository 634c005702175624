"""Measures what training examples do: trains again without them and looks at the output's loss, beside controls.

With L_s(q; G) the mean loss per explained completion token of query q, in nats, after a training with seed s that leaves out the
rows G, leaving them out changes the loss under s by

    c_s(G) = L_s(q; G) - L_s(q; nothing)            positive = the rows made the output more likely

Control groups k = 1 ... K of like size, source and length, which were not cited, have changes c_ks under the same seeds. The effect is what the
rows do beyond them, so that the noise of the base run, which all share, cancels:

    d_s = c_s(G) - mean_k c_ks                      the effect is the mean over seeds d

Two things make it uncertain: retraining, and which rows are left out. With m_k a control's mean over seeds and r_ks what rows and columns of
the controls' table leave over,

    A = var_s d_s / S                                                      S - 1 degrees of freedom
    V = max( var_k m_k,  sum_ks r_ks^2 / ((K-1)(S-1)) / S ) (1 + 1/K)      K - 1 or (K-1)(S-1), of the larger term

V is what a control's own mean would stand from the others': controls' real differences plus the noise of retraining; the second term keeps V from being
small by chance where K is. The 95 % interval is the wider of d +- t sqrt(A) and d +- t sqrt(V), each with Student's t of its own degrees of freedom. z says the same
on one scale: the larger of the two p-values as a quantile of the normal distribution. So the interval leaves 0 out where abs(z) > 1.96, and only there. z >= 2 is
called standing out.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import special

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
#: More than any unlikeness of two rows.
_TAKEN = 4
#: z from which on an effect is said to stand out.
OUT_Z = 2.0


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
    #: What the group does beyond the controls, mean over seeds, nats per completion token; positive = it made the output more likely.
    effect_nats: float
    #: 95 % interval; leaves 0 out where abs(z) > 1.96.
    low_nats: float
    high_nats: float
    #: One effect per seed.
    by_seed: tuple[float, ...]
    #: Left-out rows of each control.
    control_groups: tuple[Group, ...]
    #: What each control does beyond the mean of all of them, mean over seeds.
    controls_nats: tuple[float, ...]
    #: Mean change of the loss over the controls, which is taken off the effect and off each control.
    controls_mean_nats: float
    #: The same as the interval, on the scale of the normal distribution; see the module's text.
    z: float
    #: Retrainings behind this result and what they cost; base and controls are shared with other citations.
    retrainings: int
    seconds: float

    @property
    def stands_out(self) -> bool:
        """Whether the group surely made the output more likely than its controls did."""
        return self.z >= OUT_Z


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
        controls_beside(
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
        effects: Change of the loss without its group under each seed, `[S]`, nats.
        controls: The same without each control, `[K, S]`, nats.
        control_groups: What each control left out.
        seconds: What the retrainings behind it cost.
    """
    found = contrast(effects, controls)
    means = controls.mean(axis=1)
    return RetrainingEffect(
        query=citation.query,
        group=citation.group,
        effect_nats=found.effect,
        low_nats=found.low,
        high_nats=found.high,
        by_seed=tuple((effects - controls.mean(axis=0)).tolist()),
        control_groups=tuple(control_groups),
        controls_nats=tuple((means - means.mean()).tolist()),
        controls_mean_nats=float(means.mean()),
        z=found.z,
        retrainings=len(effects) * (2 + len(controls)),
        seconds=seconds,
    )


@dataclass(frozen=True)
class Contrast:
    """An effect beyond controls, with an interval and a z that say the same."""

    effect: float
    low: float
    high: float
    z: float


def contrast(effects: EffectArray, controls: EffectArray) -> Contrast:
    """What a group does beyond its controls; see the module's text.

    Args:
        effects: Change of the loss without the group under each seed, `[S]`, nats, S >= 2.
        controls: The same without each control, `[K, S]`, nats, K >= 2.

    Returns:
        The effect; z is infinite (0 for no effect) where nothing varies at all.
    """
    beyond = effects - controls.mean(axis=0)  # [S]
    effect, seeds = float(beyond.mean()), len(beyond)
    variance, freedom = _control_variance(controls)
    errors = (
        (math.sqrt(float(beyond.var(ddof=1)) / seeds), seeds - 1),
        (math.sqrt(variance), freedom),
    )
    half = max(t_quantile(one) * error for error, one in errors)
    z = min(normal_z(abs(effect), error, one) for error, one in errors)
    return Contrast(effect, effect - half, effect + half, math.copysign(z, effect))


def normal_z(distance: float, error: float, freedom: int) -> float:
    """A t-statistic as the quantile of the normal distribution that has its p-value, >= 0."""
    if distance == 0.0:
        return 0.0
    beyond = special.stdtr(freedom, -distance / error) if error else 0.0
    return -float(special.ndtri(beyond))


def t_interval(effects: EffectArray) -> tuple[float, float]:
    """95 % interval of the mean over seeds `[S]`, S >= 2."""
    half = t_quantile(len(effects) - 1) * float(effects.std(ddof=1)) / math.sqrt(len(effects))
    return float(effects.mean()) - half, float(effects.mean()) + half


def t_quantile(freedom: int) -> float:
    """97.5 % quantile of Student's t."""
    return float(special.stdtrit(freedom, 0.975))


def z_score(effects: EffectArray, controls: EffectArray) -> float:
    """How many standard errors of the controls, d / sqrt(V), a mean effect stands from theirs.

    For many controls, whose degrees of freedom no longer matter.

    Args:
        effects: `[S]`, nats.
        controls: `[K, S]`, nats, K >= 2, S >= 2.

    Returns:
        z; infinite (or 0, for no difference) where the controls do not vary at all.
    """
    variance, _ = _control_variance(controls)
    difference = float(effects.mean() - controls.mean())
    if variance == 0.0:
        return math.copysign(math.inf, difference) if difference else 0.0
    return difference / math.sqrt(variance)


def _control_variance(controls: EffectArray) -> tuple[float, int]:
    """V of the module's text and its degrees of freedom."""
    count, seeds = controls.shape
    means = controls.mean(axis=1)  # [K]
    left = controls - means[:, None] - controls.mean(axis=0) + controls.mean()  # [K, S]
    inner = (count - 1) * (seeds - 1)
    between, noise = float(means.var(ddof=1)), float((left**2).sum()) / inner / seeds
    variance, freedom = (between, count - 1) if between >= noise else (noise, inner)
    return variance * (1 + 1 / count), freedom


def controls_beside(
    group: Sequence[int],
    *,
    lengths: Sequence[int],
    sources: Sequence[str],
    avoid: Iterable[int],
    count: int,
) -> list[Group]:
    """Control groups as `matched_controls` makes them; those of a large group may have rows in common.

    Raises:
        ConfigurationError: fewer than twice as many rows are left as the group holds: controls would be nearly the same rows.
    """
    left = len(lengths) - len({*avoid, *group})
    if len(group) == 1 or left >= count * len(group):
        return matched_controls(group, lengths=lengths, sources=sources, avoid=avoid, count=count)
    if left < 2 * len(group):
        raise ConfigurationError(
            f"{len(group)} of {len(lengths)} training examples are left out; the {left} others are too few for control groups of "
            f"as many rows. At least {2 * len(group)} are needed: measure a part of them"
        )
    taken = set(avoid)
    return [
        matched_controls(group, lengths=lengths, sources=sources, avoid=taken, count=1, seed=number)[0]
        for number in range(1, count + 1)
    ]


def matched_controls(
    group: Sequence[int],
    *,
    lengths: Sequence[int],
    sources: Sequence[str],
    avoid: Iterable[int],
    count: int,
    seed: int = 0,
) -> list[Group]:
    """Control groups of as many rows as `group`, each row like its counterpart and none used twice.

    All citations walk through the corpus in the same random order and take the first rows that fit - same source and length within
    25 %, then same source, then like length, then any - so citations of like rows get the same controls, and their runs are shared.

    Raises:
        ConfigurationError: the corpus has too few other rows.
    """
    taken = {*avoid, *group}
    if len(lengths) - len(taken) < count * len(group):
        raise ConfigurationError(
            f"{len(lengths)} training examples are too few for {count} control groups of {len(group)} rows "
            f"beside {len(taken)} cited ones"
        )
    order = np.random.default_rng(seed).permutation(len(lengths))
    free = ~np.isin(order, list(taken))
    length, source = np.array(lengths)[order], np.unique(sources, return_inverse=True)[1]
    walked = source[order]  # all three in the order of the walk
    found: list[Group] = []
    for _ in range(count):
        rows: list[int] = []
        for row in group:
            unlike = 2 * (walked != source[row]) + (
                np.abs(length - lengths[row]) > LENGTH_SHARE * lengths[row]
            )
            place = int(np.where(free, unlike, _TAKEN).argmin())
            free[place] = False
            rows.append(int(order[place]))
        found.append(tuple(sorted(rows)))
    return found


def _check(citations: Sequence[CitationToMeasure], *, queries: int) -> None:
    for citation in citations:
        if not 0 <= citation.query < queries:
            raise ConfigurationError(f"citation of query {citation.query}; there are {queries} queries")
        if not citation.group:
            raise ConfigurationError(f"citation of query {citation.query}: its group holds no row")
