"""The settings of vector indexes and of builds; `wherefrom.settings` reads them with all the others."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, Field, SecretStr

from wherefrom.notify_settings import empty_is_unset

_OptionalText = Annotated[str | None, empty_is_unset]
_OptionalSecret = Annotated[SecretStr | None, empty_is_unset]


@dataclass(frozen=True)
class MilvusServer:
    """Where the vectors of bundles with the driver `milvus` are."""

    #: `http://HOST:19530`, or a path that ends in `.db`: milvus-lite then keeps them on this machine.
    uri: str
    token: SecretStr | None = None


class IndexSettings(BaseModel):
    """What vector indexes may take, where they are if not in the bundle, and how long parts of builds may take."""

    index_memory_share: float = Field(
        default=0.25,
        gt=0,
        le=1,
        description="Share of this machine's memory that the HNSW graphs of a new bundle may take. Above it, `wherefrom build --index auto` takes the driver `faiss`.",
    )
    milvus_uri: _OptionalText = Field(
        default=None,
        description="Milvus server for bundles with the index driver `milvus`: `http://HOST:19530`, or a path ending in `.db` for milvus-lite on this machine.",
    )
    milvus_token: _OptionalSecret = Field(
        default=None, description="Token of the Milvus server: `USER:PASSWORD` or an API key."
    )

    build_time_limit_seconds: int = Field(
        default=7200, ge=1, description="Hard time limit of one part of a build over several machines."
    )

    def milvus_server(self) -> MilvusServer | None:
        """Where Milvus is; None where no setting says it."""
        return None if self.milvus_uri is None else MilvusServer(self.milvus_uri, self.milvus_token)
