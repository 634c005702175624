"""What the web process journaled, brought to where the sealer would bring it."""

from db.models import TrailEvent
from db.session import Database
from tests.waiting import wait_until
from wherefrom.journal import journal_folder
from wherefrom.metrics import Metrics
from wherefrom.settings import Settings
from worker.sweeper.journal_mover import JournalMover


def moved_reads(settings: Settings, database: Database, *, least: int = 0) -> list[TrailEvent]:
    """The trail's events that came from a journal, after everything that is there was moved; waits for so many."""
    mover = JournalMover(database, journal_folder(settings), metrics=Metrics())

    def there() -> tuple[list[TrailEvent]] | None:
        mover.step()
        with database.reading() as session:
            found = session.query(TrailEvent).where(TrailEvent.journal_id.is_not(None))
            events = list(found.order_by(TrailEvent.id))
        return (events,) if len(events) >= least else None

    found = wait_until(there, message="reads in the trail")
    assert found is not None
    return found[0]
