r"""Fits a calibration: from control outputs, outputs with known causes, and the losses of retrained models.

Controls are split by their `group` (a topic, an author; each output alone where none is given): the fit half meets the known outputs in the logistic
model of queries, the null half gives the p-values. Both sides of the fit weigh the same, so that confidences hold at even odds. The model of citations is
fitted on the known outputs alone. Without known outputs every feature has the same weight, p-values hold all the same, and there is no confidence.

Effects: D_qz = mean loss of query q over the retrained models that left z out - mean over those that kept it. The curve is the isotonic regression of D on the
influence score: means of both in bins of pairs (tenths, then finer at the top, where citations are), pooled until they rise (pool adjacent violators).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wherefrom.atomic import atomic_folder
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.batching import pack_queries
from wherefrom.attribution.bundles.deriving import link_or_copy
from wherefrom.attribution.bundles.manifest import (
    CARD,
    MANIFEST,
    Manifest,
    hash_file,
    read_card,
    read_manifest,
)
from wherefrom.attribution.calibration.evidence import FEATURES
from wherefrom.attribution.calibration.fitted import (
    CALIBRATION,
    ENOUGH_CONTROLS,
    FEWEST_CONTROLS,
    FEWEST_IN_A_HALF,
    JUDGED,
    Calibration,
    EffectCurve,
    NoveltyScale,
    Values,
    rounded_up,
    strongest,
)
from wherefrom.attribution.calibration.judging import CitationFeatures
from wherefrom.attribution.calibration.logistic import Logistic, fit_logistic
from wherefrom.attribution.groups import Groups
from wherefrom.attribution.offline import BATCH_TOKENS, prepare_all
from wherefrom.attribution.progress import Progress
from wherefrom.errors import ConfigurationError
from wherefrom.json_text import finite_numbers
from wherefrom.records import Query

#: Where pairs are cut into bins, as shares of all pairs in the order of their score.
_BIN_EDGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.998, 0.9995)


@dataclass(frozen=True)
class Outputs:
    """Judged outputs of one file."""

    queries: Sequence[CitationFeatures]
    #: Group of each output (controls), or corpus rows of its causes (known outputs; empty where they are not known).
    groups: Sequence[str] = ()
    gold: Sequence[Sequence[int]] = ()
    #: Corpus rows that somebody judged beside each output; empty where every citation but the causes counts as none.
    judged: Sequence[Sequence[int]] = ()
    sha256: str = ""
    #: More about where the causes come from, for the calibration's own record.
    provenance: Mapping[str, int] = field(default_factory=dict)


def judge_all(
    attributor: LanguageAttributor, queries: Sequence[Query], *, max_tokens: int, progress: Progress
) -> list[CitationFeatures]:
    """Send outputs through search and selection, as flagged outputs would go, and keep what calibration needs.

    Raises:
        PermanentError: an output cannot be attributed.
    """
    prepared = prepare_all(attributor, queries, max_tokens=max_tokens, over_long="truncate")
    found: dict[int, CitationFeatures] = {}
    for batch in pack_queries(prepared, BATCH_TOKENS):
        for index, one in zip(batch, attributor.signals([prepared[index] for index in batch]), strict=True):
            found[index] = attributor.judged(attributor.score(one), count=JUDGED)
        progress("judge outputs", len(found), len(prepared))
    return [found[index] for index in range(len(prepared))]


def fit_queries(known: Sequence[CitationFeatures], controls: Sequence[CitationFeatures]) -> Logistic:
    """The model s of queries: known outputs against controls, both sides of equal weight."""
    rows = np.stack([strongest(one.features) for one in (*known, *controls)])
    labels = np.arange(len(rows)) < len(known)
    weights = np.where(labels, 1.0, len(known) / len(controls))
    return fit_logistic(rows, labels, features=FEATURES, row_weights=weights)


def fit_citations(
    known: Sequence[CitationFeatures],
    gold: Sequence[Sequence[int]],
    groups: Groups,
    *,
    judged: Sequence[Sequence[int]] = (),
) -> Logistic:
    """The model u of citations: those in the group of a known cause against the others.

    Args:
        known: Outputs with known causes.
        gold: Corpus rows of their causes.
        groups: Near-duplicate group of each training example, `[N]`.
        judged: Corpus rows that were judged; citations outside of their groups are left out. Empty: all of them count.

    Raises:
        ConfigurationError: no known cause is among the citations, so there is nothing to learn from.
    """
    labels = np.concatenate([labels_of(one, causes, groups) for one, causes in zip(known, gold, strict=True)])
    features = np.concatenate([one.features for one in known])
    if judged:
        kept = np.concatenate([labels_of(one, rows, groups) for one, rows in zip(known, judged, strict=True)])
        labels, features = labels[kept], features[kept]
        if labels.all():
            raise ConfigurationError(
                "people confirmed every citation that they judged, so nothing tells causes from others; judge more outputs, over more ranks"
            )
    if not labels.any():
        raise ConfigurationError(
            f"none of the {len(known)} known outputs cites its cause; check that `gold` names ids of this corpus"
        )
    return fit_logistic(features, labels, features=FEATURES)


def equal_weights(controls: Sequence[CitationFeatures]) -> Logistic:
    """A model of queries that adds the standardised features (less loss is more); an order for p-values, no probability."""
    rows = np.stack([strongest(one.features) for one in controls])
    spread = rows.std(axis=0)
    signs = np.where(np.array(FEATURES) == "loss", -1.0, 1.0)
    scale = np.where(spread > 1e-9, spread, 1.0)
    return Logistic(FEATURES, rows.mean(axis=0), scale, signs / len(FEATURES), 0.0)


def fit_novelty(reference: Sequence[CitationFeatures]) -> NoveltyScale:
    """How far outputs of the known kind lie from the corpus: every other one for centre and scale, the rest for the null."""
    distances = np.stack([one.distances for one in reference])
    fit, null = distances[0::2], distances[1::2]
    spread = fit.std(axis=0)
    scale = NoveltyScale(fit.mean(axis=0), np.where(spread > 1e-9, spread, 1.0), np.empty(0))
    return replace(scale, null=rounded_up(np.array([scale.novelty(one) for one in null])))


def fit_calibration(
    controls: Outputs,
    known: Outputs | None,
    *,
    groups: Groups,
    form: str | None = None,
    effects: EffectCurve | None = None,
    date: str = "",
) -> Calibration:
    """Fit everything that the given outputs allow.

    Args:
        controls: outputs whose cause is not in the corpus, with their groups.
        known: outputs with `gold`; those without known causes serve the novelty only.
        groups: near-duplicate group of each training example, `[N]`.
        form: form of the bundle whose scores these are; a bundle of another form refuses the calibration. None leaves it open.
        effects: as `fit_effects` gave it.
        date: when it is fitted.

    Raises:
        ConfigurationError: fewer than a hundred controls, all of one group, or nothing to learn from the known outputs.
    """
    check_controls(controls.groups)
    fit, null = split_by_group(controls.groups)
    smallest = min(len(fit), len(null))
    if smallest < FEWEST_IN_A_HALF:
        raise ConfigurationError(
            f"split by `group`, one half of the controls has only {smallest}, and {FEWEST_IN_A_HALF} are needed; give more groups, or groups of similar size"
        )
    ours, theirs = [controls.queries[place] for place in fit], [controls.queries[place] for place in null]
    known_causes = _known_causes(known)
    causes = [one for one, _, _ in known_causes]
    judged = [rows for _, _, rows in known_causes if rows]
    queries = fit_queries(causes, ours) if known_causes else equal_weights(ours)
    unfitted = Calibration(queries=queries)
    return Calibration(
        reason=None if known_causes else "no outputs with known causes were given; confidence stays empty",
        warnings=_warnings(len(theirs) + len(ours), smallest),
        queries=queries,
        citations=fit_citations(causes, [gold for _, gold, _ in known_causes], groups, judged=judged)
        if known_causes
        else None,
        null=rounded_up(np.array([unfitted.score(one.features) for one in theirs], dtype=np.float64)),
        effects=effects,
        novelty=fit_novelty([*controls.queries, *([] if known is None else known.queries)]),
        fitted_on={
            "date": date,
            "controls": len(controls.queries),
            "controls_fit": len(ours),
            "controls_null": len(theirs),
            "controls_sha256": controls.sha256,
            "control_groups": len(set(controls.groups)),
            "known": len(known_causes),
            "known_kind": 0 if known is None else len(known.queries),
            "known_sha256": None if known is None else known.sha256,
        }
        | (dict(known.provenance) if known is not None else {})
        | ({} if form is None else {"form": form}),
    )


def _known_causes(
    known: Outputs | None,
) -> list[tuple[CitationFeatures, Sequence[int], Sequence[int]]]:
    """Outputs with known causes: features, rows of the causes, rows that were judged."""
    if known is None:
        return []
    judged = known.judged or [()] * len(known.queries)
    return [one for one in zip(known.queries, known.gold, judged, strict=True) if one[1]]


def check_controls(groups: Sequence[str]) -> None:
    """Refuse too few controls, or controls that cannot be split.

    Args:
        groups: The group of each control.

    Raises:
        ConfigurationError: fewer than `FEWEST_CONTROLS`, or one group only.
    """
    count = len(groups)
    if count < FEWEST_CONTROLS:
        raise ConfigurationError(
            f"{count} control outputs; at least {FEWEST_CONTROLS} are needed, and {ENOUGH_CONTROLS} for p-values that can be relied on"
        )
    if len(set(groups)) < 2:
        raise ConfigurationError(
            "all controls have the same `group`; they are split by group, so at least two are needed (omit the field to split row by row)"
        )


def split_by_group(groups: Sequence[str]) -> tuple[list[int], list[int]]:
    """Places of the fit half and of the null half; whole groups, by the hash of their names, so that the order of a file does not matter."""
    names = sorted(set(groups), key=lambda name: hashlib.sha256(name.encode("utf-8")).digest())
    members = Counter(groups)
    fit, counts = set[str](), [0, 0]
    for name in names:  # to the smaller half, so that the halves stay near each other
        side = int(counts[0] > counts[1])
        counts[side] += members[name]
        fit |= {name} if side == 0 else set()
    return (
        [place for place, name in enumerate(groups) if name in fit],
        [place for place, name in enumerate(groups) if name not in fit],
    )


def measured_differences(
    kept: npt.NDArray[np.bool_], losses: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """D: mean loss without each example minus mean loss with it, `[Q, N]`, nats; 0 where all models or none kept it.

    Args:
        kept: `[M, N]`.
        losses: `[M, Q]`.
    """
    inside = kept.astype(np.float64)
    with_it, without = inside.sum(axis=0), (1 - inside).sum(axis=0)  # [N]
    both = (with_it > 0) & (without > 0)
    centred = losses.astype(np.float64) - losses.mean(axis=0)
    difference = centred.T @ (1 - inside) / np.maximum(without, 1) - centred.T @ inside / np.maximum(
        with_it, 1
    )
    return np.where(both, difference, 0.0)


def fit_effects(
    influence: npt.NDArray[np.float32],
    kept: npt.NDArray[np.bool_],
    losses: npt.NDArray[np.float32],
    *,
    basis: str,
) -> EffectCurve:
    """The curve from influence scores to nats.

    Args:
        influence: score of every query with every training example, `[Q, N]`.
        kept: `[M, N]`.
        losses: `[M, Q]`, nats.
        basis: name of the bank.

    Raises:
        ConfigurationError: the arrays do not belong together, or the scores do not predict the effects at all.
    """
    if kept.shape != (len(losses), influence.shape[1]) or losses.shape[1] != len(influence):
        raise ConfigurationError(
            f"the bank has {kept.shape[1]} training examples and losses of {losses.shape[1]} queries (arrays {kept.shape} and {losses.shape}); "
            f"the bundle has {influence.shape[1]} examples and the file {len(influence)} queries. Give the bank of this corpus and these queries"
        )
    measured = measured_differences(kept, losses).ravel()
    scores = influence.ravel().astype(np.float64)
    order = np.argsort(scores, kind="stable")
    cuts = np.unique((np.array(_BIN_EDGES) * len(order)).astype(np.int64))
    bins = [part for part in np.split(order, cuts) if len(part)]
    sizes = np.array([len(part) for part in bins], dtype=np.float64)
    knots = np.array([scores[part].mean() for part in bins])
    nats = rising(np.array([measured[part].mean() for part in bins]), sizes)
    if nats[-1] <= max(nats[0], 0.0):
        raise ConfigurationError(
            f"{basis}: examples with high influence scores have no larger measured effect than others; check that the bank belongs to this model"
        )
    return EffectCurve(basis, float(kept.mean()), knots, nats)


def rising(values: Values, weights: Values) -> Values:
    """Isotonic regression: the rising sequence with the least weighted squared error (pool adjacent violators)."""
    blocks: list[tuple[float, float, int]] = []  # mean, weight, members
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        block = (value, weight, 1)
        while blocks and blocks[-1][0] >= block[0]:
            mean, mass, members = blocks.pop()
            whole = mass + block[1]
            block = ((mean * mass + block[0] * block[1]) / whole, whole, members + block[2])
        blocks.append(block)
    return np.concatenate([np.full(members, mean) for mean, _, members in blocks])


def calibration_on_card(calibration: Calibration) -> dict[str, Any]:
    """What the card says of a calibration: which statements the bundle's audits can make, and what they rest on."""
    states = {
        "p_values_and_abstention": calibration.null is not None,
        "confidence": calibration.citations is not None,
        "effects_in_nats": calibration.effects is not None,
        "novelty": calibration.novelty is not None,
    }
    return {
        "calibrated": "yes" if calibration.fitted else "no",
        **states,
        "level": calibration.level,
        "warnings": "; ".join(calibration.warnings) or "none",
        "fitted_on": dict(calibration.fitted_on),
    }


def write_calibrated(bundle: Path, out: Path, calibration: Calibration) -> Manifest:
    """Write a copy of a bundle with this calibration; files that stay are linked where the file system can, else copied.

    Raises:
        ConfigurationError: `out` exists, or the calibration was fitted on another form or other rows.
        BundleCorrupt: the bundle is not intact.
        DiskFull: there is nothing at `out`.
    """
    if out.exists():
        raise ConfigurationError(f"{out} already exists and bundles are never changed; choose another folder")
    manifest = read_manifest(bundle)
    calibration.check_form(manifest.parameters.form)
    calibration.check_corpus(manifest.fitted_on)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(out) as work:
        for name in manifest.files:
            target = work / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if name not in {CALIBRATION, CARD}:
                link_or_copy(bundle / name, target)
        calibration.save(work)
        card = read_card(bundle) | {"calibration": calibration_on_card(calibration)}
        (work / CARD).write_text(
            json.dumps(finite_numbers(card), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        files = dict(manifest.files) | {name: hash_file(work / name) for name in (CALIBRATION, CARD)}
        sealed = manifest.model_copy(update={"files": files}).sealed()
        (work / MANIFEST).write_bytes(sealed.to_bytes())
    return sealed


def labels_of(one: CitationFeatures, gold: Sequence[int], groups: Groups) -> npt.NDArray[np.bool_]:
    """Which citations stand in the group of a known cause, `[K]`."""
    return np.isin(groups[one.rows], groups[np.asarray(gold, dtype=np.int64)])


def _warnings(controls: int, smallest: int) -> tuple[str, ...]:
    warnings = []
    if controls < ENOUGH_CONTROLS:
        warnings.append(
            f"only {controls} control outputs (fewer than {ENOUGH_CONTROLS}): p-values are coarse and cannot be small"
        )
    if smallest < FEWEST_CONTROLS // 2:
        warnings.append(f"split by `group`, one half of the controls has only {smallest}")
    return tuple(warnings)
