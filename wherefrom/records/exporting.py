"""What leaves the service as a file: which rows, in which format, and the manifest that tells what a file holds."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from wherefrom.records.bounds import MAX_ITEMS, Items
from wherefrom.records.flagged import Frozen


class ExportRows(StrEnum):
    """What one row of an export is."""

    #: A flagged output with its audit.
    AUDITS = "audits"
    #: A citation or an opponent, with the output that it is about; an audit without any is one row.
    CITATIONS = "citations"
    #: A training example that answered audits cite; each stands there once.
    EXAMPLES = "examples"


class ExportFormat(StrEnum):
    """What the file is."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


class ExportedExample(Frozen):
    """A training example that a selection of audits cites. Opponents and groups of outputs do not count."""

    training_example_id: int
    example_id: str
    source: str
    outputs: int = Field(description="Audits of the selection that cite it.")
    first_citations: int = Field(description="Audits in which it is the first citation.")
    best_rank: int = Field(description="Its best rank in them.")
    strength: float = Field(description="Sum over its citations of 1 / rank.")
    mean_influence: float | None = Field(description="Mean influence score of these citations.")
    confidence: float | None = Field(description="Highest confidence among them.")
    measured_nats: float | None = Field(description="Largest measured effect among them.")
    confirmed: int = Field(description="Verdicts that stand and call it a confirmed cause, of any audit.")
    unrelated: int = Field(description="Verdicts that stand and call it unrelated.")
    prompt: str
    completion: str
    text_sha256: str
    corpus_sha256: str


class ExportedBundle(Frozen):
    """A bundle that made what a file holds."""

    name: str
    model: str
    corpus_sha256: str


class ExportManifest(Frozen):
    """What a file holds, where it comes from, and the hash that it must have."""

    schema_version: Literal[1] = 1
    #: Name of the file that it is about.
    file: str
    rows: ExportRows
    format: ExportFormat
    num_rows: int
    #: Of the file.
    sha256: str
    size_bytes: int
    #: What selected the audits, as it was asked for; empty for all.
    filter: Annotated[dict[str, Any], Field(max_length=MAX_ITEMS)]
    #: The bundles of these audits; of training examples, all bundles over their corpora.
    bundles: Items[ExportedBundle]
    #: The rows were read between these times; audits that ended meanwhile may be missing.
    begun_at: datetime
    finished_at: datetime
    #: Name of the key, the session or `local`.
    exported_by: str
    #: Release of wherefrom that wrote it.
    version: str
