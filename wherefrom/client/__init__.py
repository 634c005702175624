"""The producer's and the auditor's client of a wherefrom service, over HTTP; needs no torch and no SQLAlchemy.

`Client` flags outputs through a spool on disk and reads audits; `Service` is its synchronous half, without a spool.
"""

from wherefrom.client.client import Client
from wherefrom.client.service import Service
from wherefrom.client.spool import RefusedRecord, SpoolStatus
from wherefrom.frames import to_pandas

__all__ = ["Client", "RefusedRecord", "Service", "SpoolStatus", "to_pandas"]
