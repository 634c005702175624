"""What the sweeper does about erasures: carries out what was asked for over HTTP, applies retention rules, cleans up, deletes bundles that must go."""

import redis

from db.erasure import cleaning, erasures, retention
from db.session import Database
from wherefrom.logs import get_logger
from wherefrom.settings import Settings
from worker.erasure.bundle_deletion import delete_unused
from worker.erasure.redis_erasing import CopiesInRedis

log = get_logger(__name__)


class Eraser:
    """Erases what is due; several at once are harmless."""

    def __init__(self, database: Database, client: redis.Redis, settings: Settings) -> None:
        self._database, self._settings = database, settings
        self._copies = CopiesInRedis(client, settings)
        self._told: set[str] = set()

    def step(self) -> None:
        """One round; a bounded number of outputs for each rule.

        Raises:
            DatabaseUnavailable, QueueUnavailable: the rest waits for the next round.
        """
        for erasure_id in erasures.waiting(self._database):
            found = erasures.carry_out(self._database, erasure_id, before=self._copies.erase)
            log.info("erasure_done", erasure_id=erasure_id, erased=found.erased, code=found.code)
        by_rule = retention.step(self._database, before=self._copies.erase)
        if by_rule:
            log.info("retention_applied", erased=by_rule)
        else:  # while a rule works off a backlog, once at its end is enough
            cleaning.clean(self._database)
        delete_unused(self._database, self._settings, told=self._told)
