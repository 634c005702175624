"""Our own forms on the deep bank, over bundles as a user builds them; the scores are those of `benchmarks.deep_bank`."""

import shutil
from functools import partial

from benchmarks.deep_bank.material import FOLDER, RECIPE
from benchmarks.deep_bank.scores import shown_order
from benchmarks.peers.deep.subject import AdapterSubject
from benchmarks.peers.own_bundle import ReadBundle
from benchmarks.peers.subject import Scored, timed
from wherefrom.attribution.bundles.options import BuildOptions
from wherefrom.attribution.models.reading import BundleForm
from wherefrom.evaluation.asking import built_bundle, read_file
from wherefrom.evaluation.cost import folder_bytes
from wherefrom.evaluation.heads import bm25_scores, final_scores, net_scores, similarity_scores


def adapter(subject: AdapterSubject) -> dict[str, Scored]:
    """The form `adapter` alone, projected and in the order shown, and what its bundle holds beside it: BM25 and similarity."""
    read = _read(subject, "adapter")
    influence = read.exact()
    words, similar = _words(read), _similar(read)
    (net, net_seconds) = timed(lambda: net_scores(read.bundle, read.queries, influence.scores))
    (final, final_seconds) = timed(lambda: final_scores(read.bundle, read.queries))
    shown, seconds = timed(lambda: shown_order("adapter", net, words.scores, similar.scores, final=final))
    seconds += final_seconds
    each = influence.seconds_per_query + words.seconds_per_query + (net_seconds + seconds) / len(read.queries)
    stored = folder_bytes(read.bundle.path) / len(subject.rows)
    return {
        "wherefrom adapter, order shown": Scored(
            shown,
            read.build_seconds,
            each,
            stored,
            "net influence, final gradients and BM25, every pair exact; the whole bundle",
        ),
        "wherefrom adapter": influence,
        "wherefrom adapter, projected": read.retrieved(),
        "wherefrom BM25": words,
        "similarity of hidden states": similar,
    }


def single(form: BundleForm, subject: AdapterSubject) -> dict[str, Scored]:
    """The influence of another form."""
    return {f"wherefrom {form}": _read(subject, form).exact()}


activation = partial(single, "activation")
forward = partial(single, "forward")
adapter_forward = partial(single, "adapter-forward")


def _read(subject: AdapterSubject, form: BundleForm) -> ReadBundle:
    path = subject.scratch / form
    shutil.rmtree(path, ignore_errors=True)
    options = BuildOptions(form=form, max_tokens=RECIPE.max_tokens)
    return ReadBundle.of(
        lambda: built_bundle(subject.folders, FOLDER / "rows.jsonl", path, options),
        lambda attributor: read_file(attributor, FOLDER / "queries.jsonl", max_tokens=RECIPE.max_tokens),
    )


def _words(read: ReadBundle) -> Scored:
    scores, seconds = timed(lambda: bm25_scores(read.bundle, read.queries))
    stored = folder_bytes(read.bundle.path / "lexical") / len(read.bundle.store)
    return Scored(scores, read.stages("lexical"), seconds / len(read.queries), stored, "our lexical index")


def _similar(read: ReadBundle) -> Scored:
    scores, seconds = timed(lambda: similarity_scores(read.bundle, read.queries))
    each = read.pass_seconds + seconds / len(read.queries)
    layer = read.bundle.manifest.parameters.similarity_layer
    stored = read.bundle.pooled.nbytes / len(read.bundle.store)
    return Scored(
        scores, read.stages("model_pass"), each, stored, f"cosine of the mean of hidden state {layer}"
    )
