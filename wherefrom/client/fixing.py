"""Fix lists and culprits as methods of `Service`."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypedDict, Unpack

from wherefrom.client.answers import read_answer
from wherefrom.client.filters import AuditFilters
from wherefrom.client.posting import Posts, plain
from wherefrom.export_rows import Row
from wherefrom.frames import Records, Stream, to_pandas
from wherefrom.records import (
    Culprits,
    FixAction,
    FixChanged,
    FixEntry,
    FixListSummary,
    FixRow,
    FoundExample,
    GroupMeasurementRecord,
    Page,
    SourceDetail,
    WhatIfOutput,
    WhatIfRecord,
)

if TYPE_CHECKING:
    import pandas as pd


class CulpritBoard(Culprits):
    """The culprits of a selection, as a table too."""

    def to_pandas(self) -> "pd.DataFrame":
        """A table with one row per training example; see `wherefrom.frames.to_pandas`."""
        return to_pandas(self.items)


class NamedRows(TypedDict, total=False):
    """Training examples that are named one by one, by their source, or as culprits; in one of these ways."""

    #: The database's numbers.
    training_example_ids: Sequence[int]
    #: All stored training examples of this source.
    source: str | None
    #: The culprits of the audits that pass this filter; `{}` takes every audit.
    culprits: AuditFilters | None
    #: How many culprits, 20 unless said.
    most: int
    #: Culprits are cited by at least so many of these audits.
    least_outputs: int


class FixService(Posts):
    """What is to change in the training data, as methods. Reading needs the scope `read`, writing `review` as well.

    `reviewer` is who decides where the service asks for no keys; with a key it is the person behind it, and is left out.
    """

    def culprits(
        self,
        *,
        most: int = 50,
        least_outputs: int = 1,
        **filters: Unpack[AuditFilters],
    ) -> CulpritBoard:
        """The training examples that a selection of audits names, strongest first.

        Args:
            most: How many, 1 to 1,000.
            least_outputs: Those that fewer audits cite are left out.
            **filters: The selection; every audit where none is given.
        """
        parameters = {**filters, "most": most, "least_outputs": least_outputs}
        return read_answer(self._connection.get("/v1/culprits", parameters), CulpritBoard)

    def source(self, source: str) -> SourceDetail:
        """How often one source is blamed, when, and by which of its examples; `NotFound` where there is none."""
        return read_answer(self._connection.get("/v1/source", {"source": source}), SourceDetail)

    def search_examples(self, text: str, *, source: str | None = None) -> Stream[FoundExample]:
        """Stored training examples whose text contains these words, the newest first; pages are fetched while the caller reads."""
        parameters = {"text": text, "source": source}
        return self._pages("/v1/examples/search", Page[FoundExample], parameters)

    def fix_lists(self) -> Records[FixListSummary]:
        """All fix lists with what they hold, open ones first."""
        return self._list("/v1/fix-lists", Page[FixListSummary])

    def fix_list(self, list_id: int) -> FixListSummary:
        """One fix list; `NotFound` where there is none."""
        return read_answer(self._connection.get(f"/v1/fix-lists/{list_id:d}"), FixListSummary)

    def make_fix_list(self, name: str, *, note: str = "", reviewer: str | None = None) -> FixListSummary:
        """Make a fix list; it belongs to whoever makes it.

        Args:
            name: Unique for ever.
            note: What it is for.
            reviewer: See the class.

        Raises:
            InvalidRequest: the name is taken or cannot be used.
        """
        return self._send("/v1/fix-lists", {"name": name, "note": note}, FixListSummary, reviewer=reviewer)

    def put_on_fix_list(
        self,
        list_id: int,
        *,
        action: FixAction | str | None = FixAction.REMOVE,
        reason: str = "",
        dry_run: bool = False,
        reviewer: str | None = None,
        **rows: Unpack[NamedRows],
    ) -> FixChanged:
        """Put training examples on a list, change what was decided, or take them off.

        Args:
            list_id: The list.
            action: What is to become of them; None takes them off.
            reason: Why.
            dry_run: Only say how many there are.
            reviewer: See the class.
            **rows: Which ones; see `NamedRows`.

        Raises:
            NotFound: there is no such list or training example.
            InvalidRequest: the list is closed, or the rows are named in no way or in two.
        """
        body = {
            **rows,
            "action": None if action is None else FixAction(action).value,
            "reason": reason,
            "dry_run": dry_run,
        }
        if rows.get("culprits") is not None:
            body["culprits"] = plain(rows["culprits"] or {})
        return self._send(f"/v1/fix-lists/{list_id:d}/rows", body, FixChanged, reviewer=reviewer)

    def fix_rows(self, list_id: int, *, action: FixAction | str | None = None) -> Stream[FixRow]:
        """The rows of a list, each training example once; pages are fetched while the caller reads."""
        wanted = {"action": None if action is None else FixAction(action).value}
        return self._pages_after(
            f"/v1/fix-lists/{list_id:d}/rows",
            Page[FixRow],
            wanted,
            lambda one: one.training_example_id,
        )

    def export_fix_rows(self, list_id: int, *, action: FixAction | str | None = None) -> bytes:
        """The rows of a list as JSON lines, for whoever retrains; the service's trail notes it."""
        wanted = None if action is None else FixAction(action).value
        return self._connection.get(f"/v1/fix-lists/{list_id:d}/rows.jsonl", {"action": wanted})

    def cleaned_corpus(self, list_id: int, *, corpus: str | None = None) -> Stream[Row]:
        """The rows of a stored corpus that a list neither removes nor fixes, as they come; the service's trail notes it.

        Args:
            list_id: The list.
            corpus: Hash of the corpus, where the rows of the list are of several.

        Raises:
            InvalidRequest: the corpus is not stored whole, or has to be named.
            ServiceUnavailable: the connection broke before the last row; what was read is not whole.
        """
        return self._rows(f"/v1/fix-lists/{list_id:d}/cleaned.jsonl", {"corpus": corpus})

    def fix_history(self, list_id: int) -> Records[FixEntry]:
        """Who put what on a list, when and why; the newest 200 entries, newest first."""
        return self._list(f"/v1/fix-lists/{list_id:d}/history", Page[FixEntry])

    def close_fix_list(self, list_id: int, *, reviewer: str | None = None) -> FixListSummary:
        """Let nothing on a list change any more."""
        return self._send(f"/v1/fix-lists/{list_id:d}/close", {}, FixListSummary, reviewer=reviewer)

    def give_fix_list(self, list_id: int, owner: int, *, reviewer: str | None = None) -> FixListSummary:
        """Give a list to another owner, by their number."""
        return self._send(
            f"/v1/fix-lists/{list_id:d}/owner", {"owner": owner}, FixListSummary, reviewer=reviewer
        )

    def ask_what_if(
        self, list_id: int, *, most: int = 200, **filters: Unpack[AuditFilters]
    ) -> Records[WhatIfRecord]:
        """Ask what leaving a list out would do to outputs; one what-if per bundle that answered them. Needs the scope `measure`.

        Args:
            list_id: The list; its rows to remove and to fix are left out.
            most: How many of the newest outputs.
            **filters: Which outputs; all answered ones where none is given.

        Raises:
            InvalidRequest: nothing leaves, or no answered output matches.
        """
        body = plain(filters) | {"most": most}
        return Records(self._send(f"/v1/fix-lists/{list_id:d}/what-ifs", body, Page[WhatIfRecord]).items)

    def what_ifs(self, list_id: int) -> Records[WhatIfRecord]:
        """The newest what-ifs of a list."""
        return self._list(f"/v1/fix-lists/{list_id:d}/what-ifs", Page[WhatIfRecord])

    def what_if(self, what_if_id: int) -> WhatIfRecord:
        """One what-if, where it stands; `NotFound` where there is none."""
        return read_answer(self._connection.get(f"/v1/what-ifs/{what_if_id:d}"), WhatIfRecord)

    def what_if_outputs(self, what_if_id: int) -> Records[WhatIfOutput]:
        """The outputs of a what-if, the highest score above chance first."""
        return self._list(f"/v1/what-ifs/{what_if_id:d}/outputs", Page[WhatIfOutput])

    def measure_list(self, what_if_id: int, audit_ids: Iterable[int]) -> Records[GroupMeasurementRecord]:
        """Have the whole list of a what-if measured on some of its outputs, at most 20; `Service.group_measurement` reads each again. Needs the scope `measure`.

        Raises:
            NotFound: there is no such what-if.
            InvalidRequest: none of the audits is of an output of it.
            MeasuringUnavailable: the service has no recipe; the text says what to set.
        """
        body = {"audits": list(audit_ids)}
        path = f"/v1/what-ifs/{what_if_id:d}/measure"
        return Records(self._send(path, body, Page[GroupMeasurementRecord]).items)
