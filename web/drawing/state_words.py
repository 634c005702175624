"""What each state of an audit means, in the words of the pages."""

from wherefrom.records import AuditState

#: What each state means, in the words of the pages.
STATE_MEANINGS = {
    AuditState.PENDING: "Stored and waiting for a worker.",
    AuditState.RUNNING: "A worker is computing the citations.",
    AuditState.DONE: "The citations are stored.",
    AuditState.ABSTAINED: "The engine answered, but its citations are not supported.",
    AuditState.REJECTED: "The output cannot be audited. The reason says what to change.",
    AuditState.DEAD: "Every attempt failed. An operator must look at it.",
}
#: An audit whose model no bundle explains is `rejected` in the database, but not for good.
WAITS_FOR_BUNDLE = "No bundle explains this model yet. When one is added, this audit runs by itself."
