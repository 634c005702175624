"""Names and shapes of what is on the queue. A message is a hint ("there is work for bundle B"), never a payload."""

from typing import Literal

from pydantic import Field

from wherefrom.records import Frozen

#: Explicit Celery task names; they never follow a module's path.
ATTRIBUTE_TASK = "wherefrom.attribute"
MEASURE_TASK = "wherefrom.measure"
BUILD_TASK = "wherefrom.build_shard"

#: Celery queue of attribution hints.
ATTRIBUTE_QUEUE = "attribute"
#: Celery queue of measuring hints, apart: one of them is many trainings.
MEASURE_QUEUE = "measure"
#: Celery queue of hints at builds over many machines.
BUILD_QUEUE = "build"

#: Redis stream that producers XADD flagged outputs to (field `record` holds the JSON of record v1).
FLAGGED_STREAM = "wherefrom:flagged"
#: Redis stream that keeps entries that intake could not read, with the reason.
REJECTED_STREAM = "wherefrom:rejected"
#: Redis stream that keeps entries that cannot be stored although others can; nothing is trimmed there.
QUARANTINE_STREAM = "wherefrom:quarantine"
#: Consumer group of the intake processes.
INTAKE_GROUP = "wherefrom-intake"
#: Field of a stream entry that holds the record.
RECORD_FIELD = "record"
#: Field of an entry that was taken back: its first id, which stays its idempotency key.
REPLAYED_FIELD = "replayed_entry"
#: Field of a rejected entry whose record was cut: how many bytes it had.
CUT_FIELD = "rejected_cut"


#: Largest id that a database can hold; a hint with a larger one is forged.
LARGEST_ID = 2**63 - 1


class AttributeHint(Frozen):
    """There is pending work for this bundle. Lost, doubled, reordered or forged hints are harmless."""

    version: Literal[1] = 1
    bundle_id: int = Field(ge=1, le=LARGEST_ID)


class MeasureHint(Frozen):
    """There is an effect to measure with this bundle; as harmless as the other hint."""

    version: Literal[1] = 1
    bundle_id: int = Field(ge=1, le=LARGEST_ID)


class BuildHint(Frozen):
    """There is a part of this build to be read; as harmless as the other hints."""

    version: Literal[1] = 1
    build_id: int = Field(ge=1, le=LARGEST_ID)
