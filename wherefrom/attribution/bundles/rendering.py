"""The corpus as tokens, before anything runs through the model; rows that cannot be rendered are refused or left out."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from wherefrom.attribution.corpus import Corpus, CorpusRow, Reading, corpus_sha256
from wherefrom.attribution.models.render import Renderer
from wherefrom.attribution.models.rows import RenderedRow, render_row
from wherefrom.attribution.models.rule import RenderingRule
from wherefrom.errors import PermanentError

#: Called with one sentence that the person who builds should read.
OnNote = Callable[[str], None]

#: Rows left out that are named.
_NAMED = 3


def ignore_note(sentence: str) -> None:
    """Where nobody listens."""


def joined_note(rule: RenderingRule | None) -> str:
    """What a person should know who builds with a model that has no chat template."""
    rule = rule or RenderingRule()
    how = f"with {rule.join!r} between them" if rule.join else "without a separator (--join sets one)"
    end = ", followed by the end-of-text token" if rule.join_ends else ""
    return (
        f"the model has no chat template: prompt and completion are joined {how}{end}; `messages` are refused"
    )


def render_corpus(
    renderer: Renderer, corpus: Corpus, *, max_tokens: int, skip_bad: bool, on_note: OnNote
) -> tuple[Corpus, list[RenderedRow]]:
    """Tokens of all rows, in order, and the corpus without the rows that were left out.

    Args:
        renderer: of the audited model, under the bundle's rule.
        corpus: all rows.
        max_tokens: longest row; the others are cut.
        skip_bad: whether a row that cannot be rendered is left out and counted, not refused.
        on_note: hears which rows were left out, and why.

    Raises:
        PermanentError: a row cannot be rendered, and `skip_bad` is not set or no row is left; the first one's own error.
    """
    kept, rendered, refused = [], [], []
    for row in corpus.rows:
        try:
            one = render_row(
                renderer, row, max_tokens=max_tokens, name=f"training example {row.example_id!r}"
            )
        except PermanentError as error:
            if not skip_bad:
                raise
            refused.append(error)
            continue
        kept.append(row)
        rendered.append(one)
    for field, count in sorted(Counter(name for one in rendered for name in one.left_out).items()):
        on_note(f"the chat template leaves `{field}` of {count} rows out, so the model never saw it")
    if refused and not kept:
        raise refused[0]
    corpus = replace(corpus, reading=_explained(corpus.reading, kept, rendered))
    if not refused:
        return corpus, rendered
    on_note(_left_out(refused))
    rows = tuple(kept)
    skipped = corpus.skipped + len(refused)
    return replace(corpus, rows=rows, sha256=corpus_sha256(rows), skipped=skipped), rendered


def _explained(reading: Reading, rows: Sequence[CorpusRow], rendered: Sequence[RenderedRow]) -> Reading:
    """The reading with the turns that are explained after all."""
    pairs = [(row, one) for row, one in zip(rows, rendered, strict=True) if row.turns]
    explained = sum(one.turns for _, one in pairs)
    lost = sum(1 + len(row.trained) for row, _ in pairs) - explained
    left_out = {**reading.left_out, **({"by the chat template": lost} if lost else {})}
    return replace(reading, explained_turns=explained, left_out=left_out)


def _left_out(refused: list[PermanentError]) -> str:
    named = "; ".join(f"{error} [{error.code}]" for error in refused[:_NAMED])
    more = f"; and {len(refused) - _NAMED} more" if len(refused) > _NAMED else ""
    return f"rows left out because they cannot be rendered: {len(refused)}: {named}{more}"
