"""What the routes need, in one object on the application, and who is calling.

Made by `web.app.create_app`; routes ask for it with `Depends(services_of)`. Nothing here opens a connection.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from fastapi import Request

from db.access.keys import UseNotes
from db.session import Database
from web.guard.admission import Lanes
from web.guard.proxied import Proxy
from web.guard.sessions import Signer
from web.guard.throttle import SignInLimit
from wherefrom.journal import Journal
from wherefrom.metrics import Metrics
from wherefrom.settings import Settings

#: Told which bundles got new pending audits, so that the process around it can send hints.
Notify = Callable[[Iterable[int]], None]


def notify_nobody(bundle_ids: Iterable[int]) -> None:
    """Send no hints; the sweeper finds pending audits by itself."""
    del bundle_ids


class QueueProbe(Protocol):
    """What the service asks Redis about; it never reads or writes a message."""

    def ping(self) -> None:
        """Return when Redis answers.

        Raises:
            QueueUnavailable: it does not.
        """

    def stream_entries(self) -> int:
        """Entries of the flagged stream that intake has not taken yet.

        Raises:
            QueueUnavailable: Redis does not answer.
        """

    def quarantined_entries(self) -> int:
        """Entries of the quarantine.

        Raises:
            QueueUnavailable: Redis does not answer.
        """

    def hints(self) -> int:
        """Hints on the queue of audits.

        Raises:
            QueueUnavailable: Redis does not answer.
        """


@dataclass(frozen=True)
class Services:
    """Everything that routes share; one per application."""

    settings: Settings
    database: Database
    metrics: Metrics
    queue: QueueProbe
    lanes: Lanes
    #: Signs and reads sessions; its secret is read when it is first asked for.
    signer: Callable[[], Signer]
    notify: Notify = notify_nobody
    #: Where reads of flagged texts are noted; None where they are not.
    journal: Journal | None = None
    key_uses: UseNotes = field(default_factory=UseNotes)
    #: Who signs people in before they come here; None where nobody is believed.
    proxy: Proxy | None = None
    sign_ins: SignInLimit = field(default_factory=SignInLimit)

    def close(self) -> None:
        """Finish what is written beside the database; the caller disposes of that."""
        if self.journal is not None:
            self.journal.close()


async def services_of(request: Request) -> Services:
    """The services of the application that serves this request.

    Asynchronous, though it waits for nothing: FastAPI hands every other dependency to a thread and back, for each request.
    """
    services: Services = request.app.state.services
    return services
