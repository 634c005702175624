"""Files under names, in a folder or in object storage: one interface for both."""

from wherefrom.storage.opening import check_store_url, is_url, open_store
from wherefrom.storage.store import Store, check_name

__all__ = ["Store", "check_name", "check_store_url", "is_url", "open_store"]
