"""What outputs are alike by: a small vector of each, erased with its text."""

from sqlalchemy import ForeignKey, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from db.models.columns import BIG, Base, key_reference


class OutputVector(Base):
    """The similarity vector of an output under one bundle; vectors of different bundles do not compare."""

    __tablename__ = "output_vector"

    flagged_output_id: Mapped[int] = mapped_column(
        BIG,
        ForeignKey("flagged_text.flagged_output_id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    )
    bundle_id: Mapped[int] = key_reference("bundle.id", index=True)
    #: int8, at most `MAX_VECTOR_BYTES`; only its direction means something.
    vector: Mapped[bytes] = mapped_column(LargeBinary)
