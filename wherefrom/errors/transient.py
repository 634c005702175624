"""Errors that may be gone at the next try."""

from wherefrom.errors.roots import TransientError


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
