"""What an operator does about audits that are stuck, by the code that stands with them; `wherefrom.errors` says what each code means."""

from wherefrom import errors
from wherefrom.records import Alert, AuditState, MeasurementState, Stuck, StuckKind, StuckWork, Today

_AGAIN = "Then try them again."
_BY_THEMSELVES = "They then run by themselves."
_PRODUCER = "Correct it at the producer, and flag the output again."
_BUNDLE = (
    "Repair the bundle's folder, or activate another bundle. `python -m worker doctor` says which file it is."
)
_MODEL = "Set the model folder right (`python -m worker doctor` names it), and start the workers again."

#: What to do, by code.
REMEDIES = {
    errors.ATTEMPTS_EXHAUSTED: f"The reason names what failed: mend it. {_AGAIN}",
    errors.LEASE_EXPIRED: "Read the worker's log: it was killed or hung, often for lack of memory. Give it more, or set a smaller batch. "
    + _AGAIN,
    errors.INTERNAL_ERROR: f"Read the traceback in the worker's log, report it, and have it mended. {_AGAIN}",
    errors.OUTPUT_ERASED: "Nothing: the text is gone, so there is nothing to explain.",
    errors.OutOfMemory.code: f"Give the worker more memory, or set fewer tokens in a batch. {_AGAIN}",
    errors.DiskFull.code: f"Free space on the worker's disk. {_AGAIN}",
    errors.DatabaseUnavailable.code: f"See that the database answers. {_AGAIN}",
    errors.DatabaseReadOnly.code: f"Lead the workers to the primary database. {_AGAIN}",
    errors.IndexUnavailable.code: f"See that the Milvus server answers (`WHEREFROM_MILVUS_URI`). {_AGAIN}",
    errors.StorageUnavailable.code: f"See that the object storage answers (`WHEREFROM_BUNDLES_DIR`). {_AGAIN}",
    errors.StorageRefused.code: "Correct the URL in `WHEREFROM_BUNDLES_DIR`, or the credentials in the workers' environment. "
    + _AGAIN,
    errors.CacheFull.code: f"Raise `WHEREFROM_BUNDLE_CACHE_BYTES`, or retire a bundle. {_AGAIN}",
    errors.UnknownModel.code: f"Add a bundle of this model. {_BY_THEMSELVES}",
    errors.UnknownBundle.code: "Put the bundle's folder where the workers look (`WHEREFROM_BUNDLES_DIR`), or activate another one.",
    errors.BundleCorrupt.code: _BUNDLE,
    errors.BundleMismatch.code: _BUNDLE,
    errors.BundleTooNew.code: f"Bring the workers to the release that built the bundle, or activate an older bundle. {_BY_THEMSELVES}",
    errors.UnsafeWeights.code: "Give the model's weights as safetensors.",
    errors.UnusableModel.code: _MODEL,
    errors.NoChatTemplate.code: "Build the bundle with `--chat-template FILE`, or flag prompts instead of messages.",
    errors.TemplateRefused.code: "The reason quotes the chat template: flag conversations that it takes, or build with another template.",
    errors.TemplateNotPrefix.code: "Build the bundle with a chat template that renders the prompt first and unchanged.",
    errors.OutputTooLong.code: "Raise the limit of tokens, or let long outputs be cut (`WHEREFROM_OVER_LONG`). "
    + _AGAIN,
    errors.EmptyCompletion.code: _PRODUCER,
    errors.InvalidRecord.code: _PRODUCER,
    errors.UnknownSchema.code: "Bring the workers to the release that wrote the record. " + _AGAIN,
    errors.GroupsUnsupported.code: "Ask about single outputs, or use an engine that answers for groups.",
}
#: Where a code has no remedy of its own.
USUAL = {
    AuditState.DEAD: f"Read the reason on one of them, and mend the cause. {_AGAIN}",
    AuditState.REJECTED: f"The reason says what to change. {_AGAIN}",
}
WAITS = "They are tried again by themselves."


#: What to do about other work: what died without a remedy of its code, and what waits.
WORK_DEAD = {
    StuckKind.MEASUREMENT: "Its page has the reason. Mend the cause, and ask for the effect again.",
    StuckKind.GROUP_MEASUREMENT: "Its page has the reason. Mend the cause, and ask for the effect again.",
    StuckKind.WHAT_IF: "Its page has the reason. Mend the cause, and ask again on the fix list.",
    StuckKind.NOTICE: "`python -m worker notify list` has the reason. Mend it, then run `python -m worker notify retry`.",
}
WORK_WAITS = {
    StuckKind.MEASUREMENT: "See that a measurer runs: `python -m worker measure`.",
    StuckKind.GROUP_MEASUREMENT: "See that a measurer runs: `python -m worker measure`.",
    StuckKind.WHAT_IF: "See that a worker runs that has loaded its bundle: `python -m worker run`.",
    StuckKind.COMPARISON: "See that the sweeper runs: `python -m worker sweep`.",
}


def remedy(state: AuditState, code: str | None) -> str:
    """What to do about audits of a state and a code."""
    return REMEDIES.get(code or "", USUAL.get(state, WAITS))


def in_words(found: Today, meanings: dict[str, str]) -> Today:
    """The same with words: what each code means and what to do, and what keeps the work from going on.

    Args:
        found: What was read.
        meanings: What each code means.
    """
    stuck = tuple(_worded(one, meanings) for one in found.stuck)
    work = tuple(_work_worded(one, meanings) for one in found.stuck_work)
    return found.model_copy(update={"stuck": stuck, "stuck_work": work, "alerts": tuple(_alerts(found))})


def _worded(one: Stuck, meanings: dict[str, str]) -> Stuck:
    meaning = meanings.get(one.code or "", "No code is stored.")
    return one.model_copy(update={"meaning": meaning, "advice": remedy(one.state, one.code)})


def _work_worded(one: StuckWork, meanings: dict[str, str]) -> StuckWork:
    waits = one.state is MeasurementState.PENDING
    meaning = meanings.get(one.code or "", "It waits for its process." if waits else "No code is stored.")
    advice = (WORK_WAITS if waits else WORK_DEAD)[one.kind]
    if not waits and (known := REMEDIES.get(one.code or "")) is not None:
        cause = known.removesuffix(_AGAIN).removesuffix(_BY_THEMSELVES).rstrip()
        advice = known if one.code == errors.OUTPUT_ERASED else f"{cause} Then ask for it again."
    return one.model_copy(update={"meaning": meaning, "advice": advice})


def _alerts(found: Today) -> list[Alert]:
    alive = {one.role for one in found.workers if one.alive}
    pending = found.queue.states.get(AuditState.PENDING, 0)
    told = []
    if pending and "attribute" not in alive:
        told.append(
            Alert(
                text="Audits wait, and no worker gives a sign of life.",
                advice="Start one: `python -m worker run`.",
            )
        )
    elif waiting := [one for one in found.waiting if not one.workers]:
        names = ", ".join(one.bundle for one in waiting[:3])
        told.append(
            Alert(
                text=f"Audits wait for a bundle that no worker has loaded: {names}.",
                advice="A worker that is free loads it in a moment. If not, its log says `bundle_refused` and why.",
            )
        )
    if found.queue.expired_leases:
        told.append(
            Alert(
                text=f"{found.queue.expired_leases} leases ran out: a worker died at its work.",
                advice="The sweeper puts its audits back for another worker.",
            )
        )
    if (pending or found.queue.expired_leases) and "sweep" not in alive:
        told.append(
            Alert(
                text="No sweeper gives a sign of life.",
                advice="Without it, nothing that was lost comes back. Start it: `python -m worker sweep`.",
            )
        )
    return told
