"""The part of `Service` that reads the trail."""

from wherefrom.client.posting import Posts
from wherefrom.frames import Stream
from wherefrom.records import Page, TrailRecord


class TrailService(Posts):
    """Who did what, as a method. Needs a key with the scope `read`."""

    def trail(
        self,
        *,
        kind: str | None = None,
        subject: str | None = None,
        actor: str | None = None,
        since: str | None = None,
        until: str | None = None,
        page_size: int | None = None,
    ) -> Stream[TrailRecord]:
        """Events of the trail, the newest first; pages are fetched while the caller reads.

        Args:
            kind: What happened, exactly, for example ``text.read``.
            subject: To what, exactly: ``audit:7``.
            actor: Who did it, exactly: ``person:3``.
            since: At or after: a day, an ISO 8601 time, ``today``, or ``24h``.
            until: At or before; a day includes all of it.
            page_size: Events of one page; the service's default where it is None.
        """
        asked = {"kind": kind, "subject": subject, "actor": actor, "since": since, "until": until}
        return self._pages("/v1/trail", Page[TrailRecord], asked, page_size)
