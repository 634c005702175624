"""The codes that stand with audits and belong to no error."""

#: Codes that are stored with an audit but are not raised as errors.
ATTEMPTS_EXHAUSTED = "attempts_exhausted"
LEASE_EXPIRED = "lease_expired"
HANDED_BACK = "handed_back"
INTERNAL_ERROR = "internal_error"
NO_SUPPORT = "no_support"
OUTPUT_ERASED = "output_erased"

#: What each code of the list above means, for the documentation and the page.
STORED_CODES = {
    ATTEMPTS_EXHAUSTED: "Every attempt failed with a transient error. The reason holds the last one.",
    LEASE_EXPIRED: "A worker died or hung too often while it held this audit.",
    HANDED_BACK: "A worker that was told to end had claimed this audit, and put it back before work on it began. It waits for another worker; no attempt was spent.",
    INTERNAL_ERROR: "A bug in wherefrom. The worker's log has the traceback under the audit's id.",
    OUTPUT_ERASED: "The output's text was erased before the audit was answered.",
    NO_SUPPORT: "The audit was answered, but its citations are not supported. Either outputs without a cause in the corpus get equally good citations, or the model has not learned the bundle's corpus.",
}
