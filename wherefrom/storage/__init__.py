"""Files under names, in a folder or in object storage: one interface for both."""

from wherefrom.storage.opening import is_url, open_store
from wherefrom.storage.store import Store

__all__ = ["Store", "is_url", "open_store"]
