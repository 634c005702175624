"""Errors for which a retry cannot help."""

from wherefrom.errors.roots import PermanentError


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


class BundleTooNew(PermanentError):
    """A newer release made the bundle, and this one cannot open it. Processes of the newer release answer its audits."""

    code = "bundle_too_new"


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
