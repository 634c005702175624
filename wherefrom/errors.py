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
    """A retry cannot help: the input, the bundle or the request is wrong."""

    code = "permanent"


class TransientError(WherefromError):
    """Something that wherefrom depends on is unavailable or full; a later retry may help."""

    code = "transient"


class InvalidRecord(PermanentError):
    """A flagged output, a corpus row or a query does not have the documented shape."""

    code = "invalid_record"


class UnknownSchema(PermanentError):
    """A record or message has a schema version that this release does not read."""

    code = "unknown_schema"


class EmptyCompletion(PermanentError):
    """The completion has no token, so there is nothing to explain."""

    code = "empty_completion"


class OutputTooLong(PermanentError):
    """The output has more tokens than the limit and the setting `over_long` is `reject`."""

    code = "output_too_long"


class GroupsUnsupported(PermanentError):
    """The engine answers for single outputs only, and the audit is of a group."""

    code = "groups_unsupported"


class ListsUnsupported(PermanentError):
    """The engine cannot score a list of training examples, so a what-if has no answer."""

    code = "lists_unsupported"


class BodyTooLarge(PermanentError):
    """A request body is larger than the setting `body_limit_bytes`."""

    code = "body_too_large"


class MalformedBody(PermanentError):
    """A request body is not UTF-8, not JSON, or nested too deeply."""

    code = "malformed_body"


class RequestAborted(PermanentError):
    """The sender closed the connection before the whole request had arrived. Nothing was stored."""

    code = "request_aborted"


class UnsupportedMediaType(PermanentError):
    """The content type of a request body is not the documented one."""

    code = "unsupported_media_type"


class InvalidRequest(PermanentError):
    """A query parameter, a header or the shape of a request is invalid. The message names it."""

    code = "invalid_request"


class UnstorableRecord(PermanentError):
    """The database refuses a value of this record, but stores other records."""

    code = "unstorable_record"


class ValueTooLong(PermanentError):
    """A value is longer than the database can hold or index. The message names the field."""

    code = "value_too_long"


class IdempotencyConflict(PermanentError):
    """The same idempotency key was used before with different content."""

    code = "idempotency_conflict"


class UnknownModel(PermanentError):
    """No active bundle explains the model that a flagged output names. The audit is queued again when such a bundle is added."""

    code = "unknown_model"


class UnknownBundle(PermanentError):
    """The named bundle does not exist, or its folder is not in `bundles_dir`."""

    code = "unknown_bundle"


class NotFound(PermanentError):
    """The requested audit, training example or review does not exist."""

    code = "not_found"


class Held(PermanentError):
    """A legal hold is on what was to be erased. Nothing was erased."""

    code = "held"


class Unauthorized(PermanentError):
    """The API key is missing, wrong, expired or revoked, or it lacks the scope."""

    code = "unauthorized"


class Forbidden(PermanentError):
    """The API key lacks the scope, the request comes from another web site, or it names an unknown host."""

    code = "forbidden"


class BeyondLimits(Forbidden):
    """The API key is limited to producers, models or review queues, and what was asked for lies beyond them."""

    code = "beyond_limits"


class TooManyAttempts(PermanentError):
    """Too many failed attempts to sign in. Wait a minute."""

    code = "too_many_attempts"


class TooManyRequests(PermanentError):
    """The API key asks faster than its limit. Wait as long as `Retry-After` says.

    Args:
        message: What is wrong.
        retry_after_s: Until it may ask again, seconds.
    """

    code = "too_many_requests"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QuotaSpent(TooManyRequests):
    """The API key did so much today as its quota allows. It may go on at 00:00 UTC."""

    code = "quota_spent"


class BundleCorrupt(PermanentError):
    """A file of a bundle is missing or its hash differs from the one in the manifest."""

    code = "bundle_corrupt"


class BundleUnsigned(PermanentError):
    """The setting `bundle_keys` asks for signed bundles, and none of its keys has signed this one. Nothing of it was parsed."""

    code = "bundle_unsigned"


class BundleMismatch(PermanentError):
    """A bundle was built for a different model, tokenizer, adapter or corpus."""

    code = "bundle_mismatch"


class BuildMismatch(PermanentError):
    """A worker of a build over many machines has another model or another release than the machine that planned the build. It takes no part of it."""

    code = "build_mismatch"


class BuildPartsDead(PermanentError):
    """Parts of a build over many machines cannot be read. The message names them, with code and reason. Those that are done are kept."""

    code = "build_parts_dead"


class UnsafeWeights(PermanentError):
    """A model folder has no safetensors weights (pickle weights are never loaded), or its configuration asks to run its own code."""

    code = "unsafe_weights"


class UnusableModel(PermanentError):
    """A model folder cannot be loaded as a causal language model, or its tokenizer has no usable chat template."""

    code = "unusable_model"


class NoChatTemplate(UnusableModel):
    """The input has messages, but the model's tokenizer has no chat template to render them."""

    code = "no_chat_template"


class TemplateRefused(UnusableModel):
    """The chat template rejects a conversation (the message quotes its error) or leaves out the text of the completion."""

    code = "template_refused"


class TemplateNotPrefix(PermanentError):
    """The rendered row does not begin with the tokens of the rendered prompt, so the completion's tokens cannot be identified."""

    code = "template_not_prefix"


class DuplicateExample(PermanentError):
    """Two rows of a corpus have the same id."""

    code = "duplicate_example"


class EmptyCorpus(PermanentError):
    """A corpus has no usable rows."""

    code = "empty_corpus"


class ConfigurationError(PermanentError):
    """A setting or an argument has an invalid value."""

    code = "configuration"


class FormatUnavailable(ConfigurationError):
    """A file of this format cannot be written: an extra is not installed where it would be written. The message names it."""

    code = "format_unavailable"


class SchemaTooNew(PermanentError):
    """A newer release created the database's schema, and the schema is not declared compatible with this release."""

    code = "schema_too_new"


class StorageRefused(PermanentError):
    """The object storage refuses: credentials are missing or wrong, or there is no such bucket. The message says which URL."""

    code = "storage_refused"


class NotStored(PermanentError):
    """The object storage answers, but it has no file of this name."""

    code = "not_stored"


class MeasuringUnavailable(PermanentError):
    """Effects cannot be measured: a setting about the training of the audited model is missing or does not match it."""

    code = "measuring_unavailable"


class WebhookGone(PermanentError):
    """The receiver of the webhook answered 410: it wants no more notices."""

    code = "webhook_gone"


class DatabaseUnavailable(TransientError):
    """The database does not answer, or it refuses the transaction for a reason unrelated to the record."""

    code = "database_unavailable"


class IndexUnavailable(TransientError):
    """The server that holds a bundle's vector indexes does not answer, or it refuses."""

    code = "index_unavailable"


class StorageUnavailable(TransientError):
    """The object storage does not answer, or a shared folder cannot be read."""

    code = "storage_unavailable"


class DatabaseReadOnly(DatabaseUnavailable):
    """The database answers but refuses writes: it is a standby, or it is set to read-only."""

    code = "database_read_only"


class ReadNotRecorded(TransientError):
    """A text was not shown, because the trail could not note that it is read."""

    code = "read_not_recorded"


class QueueUnavailable(TransientError):
    """Redis does not answer."""

    code = "queue_unavailable"


class QueueFull(QueueUnavailable):
    """Redis has reached its `maxmemory` and refuses writes."""

    code = "queue_full"


class QuarantineFull(TransientError):
    """The quarantine of stream entries is full. Intake pauses until an operator replays or drops some."""

    code = "quarantine_full"


class TooBusy(TransientError):
    """The service is at its limit of concurrent requests."""

    code = "too_busy"


class ServiceUnavailable(TransientError):
    """The wherefrom service does not answer, or it answers with a server error."""

    code = "service_unavailable"

    def __init__(
        self, message: str, *, status: int | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        #: HTTP status of the answer; None where there was no answer.
        self.status = status
        #: How long the service asked to wait; None where it did not say.
        self.retry_after_s = retry_after_s


class WebhookFailed(TransientError):
    """The receiver of the webhook does not answer, or it does not answer with 2xx."""

    code = "webhook_failed"


class WebhookAddressRefused(WebhookFailed):
    """The host of the webhook has no address that may be connected to: all are private, loopback or reserved. The setting `notify_private` allows them."""

    code = "webhook_address_refused"


class OutOfMemory(TransientError):
    """The batch did not fit in memory."""

    code = "out_of_memory"


class DiskFull(TransientError):
    """A file could not be written because the disk is full."""

    code = "disk_full"


class CacheFull(TransientError):
    """The bundles in use fill the cache (`bundle_cache_bytes`), and another one does not fit beside them."""

    code = "cache_full"


class BackupFailed(TransientError):
    """The database cannot be copied or brought back, or a file of a backup has changed. The message says why."""

    code = "backup_failed"


class SpoolFull(TransientError):
    """The client's spool file has reached its size limit. The record was not accepted."""

    code = "spool_full"


class SpoolUnavailable(TransientError):
    """The client's spool file cannot be opened or written, or is not a spool. The record was not accepted."""

    code = "spool_unavailable"


#: Codes that are stored with an audit but are not raised as errors.
ATTEMPTS_EXHAUSTED = "attempts_exhausted"
LEASE_EXPIRED = "lease_expired"
INTERNAL_ERROR = "internal_error"
NO_SUPPORT = "no_support"
OUTPUT_ERASED = "output_erased"

#: What each code of the list above means, for the documentation and the page.
STORED_CODES = {
    ATTEMPTS_EXHAUSTED: "Every attempt failed with a transient error. The reason holds the last one.",
    LEASE_EXPIRED: "A worker died or hung too often while it held this audit.",
    INTERNAL_ERROR: "A bug in wherefrom. The worker's log has the traceback under the audit's id.",
    OUTPUT_ERASED: "The output's text was erased before the audit was answered.",
    NO_SUPPORT: "The audit was answered, but its citations are not supported. Either outputs without a cause in the corpus get equally good citations, or the model has not learned the bundle's corpus.",
}
