"""The Redis of the tests: the product's own launcher, with a client beside it."""

from pathlib import Path

import redis

from worker.embedded import EmbeddedRedis


class RedisServer(EmbeddedRedis):
    """A real Redis that a test can stop, kill, start again on the same port, and empty."""

    def __init__(self, data_dir: Path, *, port: int = 0, append_only: bool = False) -> None:
        super().__init__(data_dir, port=port, append_only=append_only)

    def client(self) -> redis.Redis:
        """A new client; the caller closes it."""
        return redis.Redis.from_url(self.url, decode_responses=True)

    def flushall(self) -> None:
        """Remove everything from it, as an operator's mistake would."""
        with self.client() as client:
            client.flushall()
