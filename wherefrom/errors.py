"""Every error that wherefrom raises on purpose, with the stable code that is stored and documented.

Two classes decide what the queue does: a `PermanentError` is never tried again (the audit is `rejected`),
a `TransientError` is tried again later with backoff (and is `dead` when its attempts are spent). Anything else is
a bug: the audit is `dead` at once and the traceback is logged. Messages carry ids, positions and sizes, never the
text of a model's output, and never what looks like a secret: libraries quote URLs in their own errors.
"""

from typing import ClassVar

from wherefrom.masking import mask


class WherefromError(Exception):
    """Root of all errors of wherefrom."""

    code: ClassVar[str] = "error"

    def __str__(self) -> str:
        """The message without secrets."""
        return mask(super().__str__())


class PermanentError(WherefromError):
    """Trying again cannot help: the input, the bundle or the request is wrong."""

    code = "permanent"


class TransientError(WherefromError):
    """Something outside is away or full; trying again later may help."""

    code = "transient"


class InvalidRecord(PermanentError):
    """A flagged output, a corpus row or a query does not have the documented shape."""

    code = "invalid_record"


class UnknownSchema(PermanentError):
    """A record or message carries a schema version that this release does not read."""

    code = "unknown_schema"


class EmptyCompletion(PermanentError):
    """The completion has no token, so there is nothing to explain."""

    code = "empty_completion"


class OutputTooLong(PermanentError):
    """The output has more tokens than the limit and the setting `over_long` is `reject`."""

    code = "output_too_long"


class BodyTooLarge(PermanentError):
    """A request body is larger than the setting `body_limit_bytes`."""

    code = "body_too_large"


class MalformedBody(PermanentError):
    """A request body is not UTF-8, not JSON, or nested too deeply."""

    code = "malformed_body"


class RequestAborted(PermanentError):
    """The sender went away before its request had arrived; nothing was stored."""

    code = "request_aborted"


class UnsupportedMediaType(PermanentError):
    """A request body is sent under another content type than the documented one."""

    code = "unsupported_media_type"


class InvalidRequest(PermanentError):
    """A query parameter, a header or the shape of a request cannot be used; the text names it."""

    code = "invalid_request"


class UnstorableRecord(PermanentError):
    """The database refuses a value of the record, and of no other one."""

    code = "unstorable_record"


class ValueTooLong(PermanentError):
    """A value is longer than the database can hold or index; the text names the field."""

    code = "value_too_long"


class IdempotencyConflict(PermanentError):
    """The same idempotency key was used before with different content."""

    code = "idempotency_conflict"


class UnknownModel(PermanentError):
    """No active bundle explains the model that a flagged output names; it is queued again when one is added."""

    code = "unknown_model"


class UnknownBundle(PermanentError):
    """The named bundle does not exist, or its folder is not where the service looks."""

    code = "unknown_bundle"


class NotFound(PermanentError):
    """The audit, training example or review that was asked for does not exist."""

    code = "not_found"


class Unauthorized(PermanentError):
    """The API key is missing, wrong, expired or revoked, or it lacks the scope."""

    code = "unauthorized"


class Forbidden(PermanentError):
    """The API key lacks the scope, or the request comes from another web site or names an unknown host."""

    code = "forbidden"


class BundleCorrupt(PermanentError):
    """A file of a bundle does not have the hash that the manifest states, or is missing."""

    code = "bundle_corrupt"


class BundleMismatch(PermanentError):
    """A bundle was built for another model, tokenizer, adapter or corpus than the one given."""

    code = "bundle_mismatch"


class UnsafeWeights(PermanentError):
    """A model folder holds no safetensors weights (pickle weights are never loaded), or asks to run its own code."""

    code = "unsafe_weights"


class UnusableModel(PermanentError):
    """A model folder cannot be loaded as a causal language model, or its tokenizer has no usable chat template."""

    code = "unusable_model"


class NoChatTemplate(UnusableModel):
    """Messages were given, and the model's tokenizer has no chat template to render them with."""

    code = "no_chat_template"


class TemplateRefused(UnusableModel):
    """The chat template raises an error for a conversation (its own sentence is in the text), or leaves the completion's text out."""

    code = "template_refused"


class TemplateNotPrefix(PermanentError):
    """The rendered prompt is no token prefix of the rendered row, so completion tokens cannot be told apart."""

    code = "template_not_prefix"


class DuplicateExample(PermanentError):
    """Two rows of a corpus have the same id."""

    code = "duplicate_example"


class EmptyCorpus(PermanentError):
    """A corpus has no rows that can be used."""

    code = "empty_corpus"


class ConfigurationError(PermanentError):
    """A setting or an argument has a value that cannot be used."""

    code = "configuration"


class SchemaTooNew(PermanentError):
    """A newer release made the database's schema, and this release is not declared to work with it."""

    code = "schema_too_new"


class MeasuringUnavailable(PermanentError):
    """Effects cannot be measured here: a setting that says how the audited model was trained is missing or does not fit."""

    code = "measuring_unavailable"


class DatabaseUnavailable(TransientError):
    """The database does not answer, or it refuses the transaction for a reason that is not the record's."""

    code = "database_unavailable"


class DatabaseReadOnly(DatabaseUnavailable):
    """The database answers but takes no writes: it is a standby, or set to read-only."""

    code = "database_read_only"


class QueueUnavailable(TransientError):
    """Redis does not answer."""

    code = "queue_unavailable"


class QueueFull(QueueUnavailable):
    """Redis has reached its `maxmemory` and refuses what adds to it."""

    code = "queue_full"


class QuarantineFull(TransientError):
    """The quarantine of stream entries is full; intake pauses until an operator replays or drops some."""

    code = "quarantine_full"


class TooBusy(TransientError):
    """The service has as many requests in work as it takes."""

    code = "too_busy"


class ServiceUnavailable(TransientError):
    """The wherefrom service does not answer, or it answered with a server error."""

    code = "service_unavailable"

    def __init__(
        self, message: str, *, status: int | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        #: HTTP status of the answer; None where there was no answer.
        self.status = status
        #: How long the service asked to wait; None where it did not say.
        self.retry_after_s = retry_after_s


class OutOfMemory(TransientError):
    """The batch did not fit into memory."""

    code = "out_of_memory"


class DiskFull(TransientError):
    """A file could not be written because the disk is full."""

    code = "disk_full"


class SpoolFull(TransientError):
    """The client's spool file has reached its limit; the record was not taken."""

    code = "spool_full"


class SpoolUnavailable(TransientError):
    """The client's spool file cannot be opened or written, or is no spool; the record was not taken."""

    code = "spool_unavailable"


#: Codes that are stored with an audit but are not raised as errors.
ATTEMPTS_EXHAUSTED = "attempts_exhausted"
LEASE_EXPIRED = "lease_expired"
INTERNAL_ERROR = "internal_error"
NO_SUPPORT = "no_support"
OUTPUT_ERASED = "output_erased"

#: What each code of the list above means, for the documentation and the page.
STORED_CODES = {
    ATTEMPTS_EXHAUSTED: "Every attempt failed with a transient error; the last one is in the reason.",
    LEASE_EXPIRED: "A worker died or hung too often while it held this audit.",
    INTERNAL_ERROR: "A bug in wherefrom: the worker's log has the traceback under the audit's id.",
    OUTPUT_ERASED: "The output's text was erased before the audit was answered, so there is nothing to explain.",
    NO_SUPPORT: "The audit was answered, but its citations are not supported: outputs whose cause is not in the corpus get citations as good as these, or the model has not learned the bundle's corpus.",
}
