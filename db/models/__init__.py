"""The tables, in the vocabulary of the glossary; the migrations build them, a test holds the two together.

Everything that is filtered or sorted is a column with an index. Texts of flagged outputs stand apart in `flagged_text`, so that
they can be erased and lists stay small. Sign rule of all scores: positive = made the flagged output more likely.
"""

from db.models.audits import (
    Audit,
    Citation,
    FlaggedOutput,
    FlaggedText,
    GroupMeasurement,
    Measurement,
    MeasuringCheckRow,
    OutputGroupMember,
)
from db.models.building import BuildPart, SharedBuild
from db.models.columns import Base
from db.models.comparing import BundleComparisonRow, ComparedOutputRow
from db.models.corpora import Bundle, Corpus, ModelRevision, TrainingExample
from db.models.erasing import ErasedBundle, Erasure, LegalHold, LegalHoldAudit, RetentionRule
from db.models.findings import Finding, FindingEntryRow, FindingMark, FindingOutput, FindingWord
from db.models.fixing import FixList, FixListEntry, FixListRow
from db.models.listing import ListingFactsRow, SavedView, SourceFactsRow, SourceLook
from db.models.notices import Alert, WebhookDelivery
from db.models.review import Review, ReviewAssignment, ReviewItem, ReviewMember, ReviewQueue, ReviewRow
from db.models.search import ENGINE_OWN, ExampleWords, OutputWords
from db.models.service import ApiKey, CounterTotal, KeyBudget, Person, Producer, SchemaRelease
from db.models.setups import EngineSetup
from db.models.signs import ProcessSign
from db.models.trail import ItemKey, ServiceLease, TrailEvent
from db.models.vectors import OutputVector
from db.models.what_if import WhatIf, WhatIfOutputRow

__all__ = [
    "ENGINE_OWN",
    "Alert",
    "ApiKey",
    "Audit",
    "Base",
    "BuildPart",
    "Bundle",
    "BundleComparisonRow",
    "Citation",
    "ComparedOutputRow",
    "Corpus",
    "CounterTotal",
    "EngineSetup",
    "ErasedBundle",
    "Erasure",
    "ExampleWords",
    "Finding",
    "FindingEntryRow",
    "FindingMark",
    "FindingOutput",
    "FindingWord",
    "FixList",
    "FixListEntry",
    "FixListRow",
    "FlaggedOutput",
    "FlaggedText",
    "GroupMeasurement",
    "ItemKey",
    "KeyBudget",
    "LegalHold",
    "LegalHoldAudit",
    "ListingFactsRow",
    "Measurement",
    "MeasuringCheckRow",
    "ModelRevision",
    "OutputGroupMember",
    "OutputVector",
    "OutputWords",
    "Person",
    "ProcessSign",
    "Producer",
    "RetentionRule",
    "Review",
    "ReviewAssignment",
    "ReviewItem",
    "ReviewMember",
    "ReviewQueue",
    "ReviewRow",
    "SavedView",
    "SchemaRelease",
    "ServiceLease",
    "SharedBuild",
    "SourceFactsRow",
    "SourceLook",
    "TrailEvent",
    "TrainingExample",
    "WebhookDelivery",
    "WhatIf",
    "WhatIfOutputRow",
]
