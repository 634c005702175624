"""`doctor` names links to other machines that anybody between could read or answer."""

import pytest
from pydantic import SecretStr

from wherefrom.settings import Settings
from worker.checkup.doctor import _plain_links

HERE = ("redis://127.0.0.1:6379/0", "postgresql://localhost/w")


@pytest.mark.parametrize(
    ("redis_url", "database_url", "named"),
    [
        (*HERE, []),
        ("unix:///run/redis.sock", "sqlite:////tmp/w.db", []),
        ("redis://:p@redis.example:6379/0", HERE[1], ["redis link"]),
        ("rediss://:p@redis.example:6379/0", HERE[1], []),
        (HERE[0], "postgresql://u:p@db.example/w", ["database link"]),
        (HERE[0], "postgresql://u:p@db.example/w?sslmode=require", ["database link"]),
        (HERE[0], "postgresql+psycopg://u:p@db.example/w?sslmode=verify-full", []),
    ],
)
def test_a_link_in_the_clear_is_named(redis_url: str, database_url: str, named: list[str]) -> None:
    """`require` encrypts and checks nobody."""
    settings = Settings(redis_url=SecretStr(redis_url), database_url=SecretStr(database_url))
    assert [one.what for one in _plain_links(settings)] == named
