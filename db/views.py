"""Read-only SQL views: the public interface for people with a SQL client. docs/sql.md describes every column.

One text serves both engines. Columns may be added; a column that is here keeps its name and meaning. `db.migrate` makes the views
again after every migration, so they are no part of a revision.

A view is replaced, never taken away: GRANTs on it and views of the user's own that read it survive. PostgreSQL replaces a view only by
one with the same columns in the same order and further ones behind them, so the order of a view that is there is kept.
While the tables change, each view stands as an empty one with the same columns that reads none of them.
"""

import re

from sqlalchemy import Connection, inspect, text

VIEWS: dict[str, str] = {
    "v_audits": """
SELECT
    a.id AS audit_id,
    a.flagged_output_id AS output_id,
    a.state,
    a.code,
    a.reason,
    o.model,
    b.name AS bundle,
    o.reason AS flag_reason,
    o.severity,
    o.channel,
    o.producer,
    o.idempotency_key,
    t.completion,
    o.occurred_at,
    o.received_at,
    o.erased_at,
    a.attempt,
    a.truncated,
    a.tokens,
    a.loss_nats,
    a.candidates,
    a.seconds,
    a.top_source,
    a.top_score,
    a.created_at,
    a.claimed_at,
    a.finished_at,
    a.conformal_p,
    a.novelty_p,
    a.weak,
    a.noise_level,
    a.noise_best,
    o.members
FROM audit a
JOIN flagged_output o ON o.id = a.flagged_output_id
LEFT JOIN flagged_text t ON t.flagged_output_id = o.id
LEFT JOIN bundle b ON b.id = a.bundle_id
WHERE o.channel <> 'hypothetical'
""",
    "v_citations": """
SELECT
    c.audit_id,
    a.flagged_output_id AS output_id,
    c.rank,
    CASE WHEN c.rank > 0 THEN 'proponent' ELSE 'opponent' END AS side,
    e.id AS training_example_id,
    e.example_id,
    c.source,
    e.prompt,
    e.completion,
    e.text_sha256,
    k.sha256 AS corpus_sha256,
    c.tier,
    c.score,
    c.retrieval_score,
    c.influence_score,
    c.influence_magnitude,
    c.bm25_score,
    c.similarity_score,
    c.encoder_score,
    c.effect_nats,
    c.effect_basis,
    c.confidence,
    c.measured_effect_nats,
    c.measured_low_nats,
    c.measured_high_nats,
    b.name AS bundle,
    o.model,
    o.reason AS flag_reason,
    o.severity,
    a.state,
    a.finished_at,
    c.ekfac_score,
    c.effect_score,
    c.duplicates,
    c.spans,
    c.overlaps AS verbatim_overlaps,
    c.modules,
    c.sign_determined,
    c.member_influence,
    c.alike
FROM citation c
JOIN training_example e ON e.id = c.training_example_id
JOIN corpus k ON k.id = e.corpus_id
JOIN audit a ON a.id = c.audit_id
JOIN flagged_output o ON o.id = a.flagged_output_id
JOIN bundle b ON b.id = a.bundle_id
WHERE o.channel <> 'hypothetical'
""",
    "v_sources": """
SELECT
    e.source,
    e.examples,
    COALESCE(c.citations, 0) AS citations,
    COALESCE(c.opponents, 0) AS opponents,
    COALESCE(c.first_citations, 0) AS first_citations,
    COALESCE(c.audits, 0) AS audits
FROM (SELECT source, COUNT(*) AS examples FROM training_example GROUP BY source) e
LEFT JOIN (
    SELECT
        source,
        SUM(CASE WHEN rank > 0 THEN 1 ELSE 0 END) AS citations,
        SUM(CASE WHEN rank < 0 THEN 1 ELSE 0 END) AS opponents,
        SUM(CASE WHEN rank = 1 THEN 1 ELSE 0 END) AS first_citations,
        COUNT(DISTINCT CASE WHEN rank > 0 THEN audit_id END) AS audits
    FROM citation
    WHERE audit_id NOT IN (
        SELECT a.id FROM audit a JOIN flagged_output o ON o.id = a.flagged_output_id WHERE o.channel = 'hypothetical'
    )
    GROUP BY source
) c ON c.source = e.source
""",
    "v_hypotheticals": """
SELECT
    a.id AS audit_id,
    o.id AS output_id,
    o.hypothetical_of AS of_output_id,
    o.producer AS asked_by,
    a.state,
    o.model,
    b.name AS bundle,
    t.completion,
    t.preferred,
    a.top_source,
    a.created_at,
    a.finished_at
FROM audit a
JOIN flagged_output o ON o.id = a.flagged_output_id
LEFT JOIN flagged_text t ON t.flagged_output_id = o.id
LEFT JOIN bundle b ON b.id = a.bundle_id
WHERE o.channel = 'hypothetical'
""",
    "v_review_queues": """
SELECT
    q.id AS queue_id,
    q.name AS queue,
    q.rule,
    q.work_order,
    q.reviewers,
    q.dedupe,
    q.blind,
    p.name AS created_by,
    q.created_at,
    q.filled_at,
    q.closed_at
FROM review_queue q
LEFT JOIN person p ON p.id = q.created_by
""",
    "v_review_items": """
SELECT
    i.id AS item_id,
    i.queue_id,
    q.name AS queue,
    i.audit_id,
    i.state,
    i.assigned,
    i.finished,
    i.added_at,
    p.name AS person,
    s.assigned_at,
    s.finished_at
FROM review_item i
JOIN review_queue q ON q.id = i.queue_id
LEFT JOIN review_assignment s ON s.item_id = i.id
LEFT JOIN person p ON p.id = s.person_id
""",
    "v_reviews": """
SELECT
    r.id AS review_id,
    r.audit_id,
    r.rank,
    r.training_example_id,
    r.verdict,
    r.comment,
    r.range_part,
    r.range_start,
    r.range_end,
    r.reviewer,
    r.via,
    r.blind,
    q.name AS queue,
    r.created_at,
    r.undoes_id,
    CASE WHEN u.id IS NULL THEN 0 ELSE 1 END AS undone,
    CASE WHEN r.verdict IS NOT NULL AND u.id IS NULL AND NOT EXISTS (
        SELECT 1 FROM review l LEFT JOIN review v ON v.undoes_id = l.id
        WHERE l.id > r.id AND l.audit_id = r.audit_id AND l.person_id = r.person_id AND l.blind = r.blind
            AND COALESCE(l.training_example_id, 0) = COALESCE(r.training_example_id, 0)
            AND l.verdict IS NOT NULL AND v.id IS NULL
    ) THEN 1 ELSE 0 END AS stands
FROM review r
LEFT JOIN review u ON u.undoes_id = r.id
LEFT JOIN review_item i ON i.id = r.item_id
LEFT JOIN review_queue q ON q.id = i.queue_id
""",
    "v_fix_lists": """
SELECT
    l.id AS list_id,
    l.name AS fix_list,
    l.note,
    p.name AS owner,
    l.created_at,
    l.closed_at
FROM fix_list l
JOIN person p ON p.id = l.owner_id
""",
    "v_fix_rows": """
SELECT
    r.list_id,
    l.name AS fix_list,
    r.training_example_id,
    t.example_id,
    t.source,
    r.action,
    e.reason,
    p.name AS decided_by,
    e.via,
    e.created_at AS decided_at,
    t.prompt,
    t.completion,
    t.text_sha256,
    k.sha256 AS corpus_sha256
FROM fix_list_row r
JOIN fix_list l ON l.id = r.list_id
JOIN fix_list_entry e ON e.id = r.entry_id
JOIN person p ON p.id = e.person_id
JOIN training_example t ON t.id = r.training_example_id
JOIN corpus k ON k.id = t.corpus_id
""",
    "v_fix_history": """
SELECT
    e.id AS entry_id,
    e.list_id,
    l.name AS fix_list,
    e.event,
    e.action,
    e.reason,
    e.num_rows,
    e.source,
    p.name AS person,
    e.via,
    e.created_at
FROM fix_list_entry e
JOIN fix_list l ON l.id = e.list_id
JOIN person p ON p.id = e.person_id
""",
    "v_what_if": """
SELECT
    w.id AS what_if_id,
    l.name AS fix_list,
    b.name AS bundle,
    w.state,
    o.audit_id,
    o.score,
    o.z,
    o.chance,
    o.effect_nats,
    o.low_nats,
    o.high_nats,
    w.basis,
    o.code,
    w.requested_by,
    w.created_at,
    w.finished_at
FROM what_if w
JOIN fix_list l ON l.id = w.list_id
JOIN bundle b ON b.id = w.bundle_id
JOIN what_if_output o ON o.what_if_id = w.id
""",
}

#: The newest table that a view reads. Where an older schema lacks it, the view is empty.
_NEEDS = {
    "v_reviews": "review_row",
    "v_review_queues": "review_queue",
    "v_review_items": "review_assignment",
    "v_fix_lists": "fix_list_row",
    "v_fix_rows": "fix_list_row",
    "v_fix_history": "fix_list_row",
    "v_what_if": "what_if_output",
}

_TABLE = re.compile(r"(?:FROM|JOIN) (\w+) (\w)\b")
_COLUMN = re.compile(r"^    (\w)\.(\w+)(?: AS (\w+))?(,?)$", re.MULTILINE)

_COLUMNS_OF_VIEW = text(
    """
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type
FROM pg_attribute a
JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relname = :view AND c.relkind = 'v' AND a.attnum > 0 AND NOT a.attisdropped AND pg_table_is_visible(c.oid)
ORDER BY a.attnum
"""
)


def free_tables(connection: Connection) -> None:
    """Make the views let go of the tables, so that these can be changed; in the caller's transaction."""
    for view in VIEWS:
        if columns := _columns_of(connection, view):
            empty = ", ".join(f'CAST(NULL AS {kind}) AS "{name}"' for name, kind in columns.items())
            _replace(connection, view, f"SELECT {empty} WHERE 1 = 0")


def restore_views(connection: Connection) -> None:
    """Make all views over the tables as they are; a column that these do not have is NULL."""
    inspector = inspect(connection)
    for view, query in VIEWS.items():
        if view in _NEEDS and not inspector.has_table(_NEEDS[view]):
            continue  # where it was there, `free_tables` left it empty
        possible = _with_nulls(connection, query)
        present = _columns_of(connection, view) if connection.dialect.name == "postgresql" else {}
        _replace(connection, view, _in_order(connection, possible, present) if present else possible)


def drop_views(connection: Connection) -> None:
    """Drop all views."""
    for view in VIEWS:
        connection.execute(text(f"DROP VIEW IF EXISTS {view}"))


def _replace(connection: Connection, view: str, query: str) -> None:
    if connection.dialect.name == "sqlite":  # knows no OR REPLACE, and no GRANTs that a DROP would lose
        connection.execute(text(f"DROP VIEW IF EXISTS {view}"))
        connection.execute(text(f"CREATE VIEW {view} AS {query}"))
    else:
        connection.execute(text(f"CREATE OR REPLACE VIEW {view} AS {query}"))


def _columns_of(connection: Connection, view: str) -> dict[str, str]:
    """Types of a view's columns by name, in their order; empty where there is no such view."""
    if connection.dialect.name == "sqlite":
        listed = connection.execute(text("SELECT name FROM pragma_table_info(:view)"), {"view": view})
        return dict.fromkeys(listed.scalars(), "TEXT")
    return {row.name: row.type for row in connection.execute(_COLUMNS_OF_VIEW, {"view": view})}


def _with_nulls(connection: Connection, query: str) -> str:
    """The query with NULL for each column that its table does not have: the schema may be an older one."""
    tables = {alias: table for table, alias in _TABLE.findall(query)}
    inspector = inspect(connection)
    held = {
        alias: {column["name"] for column in inspector.get_columns(table)} for alias, table in tables.items()
    }

    def column(found: re.Match[str]) -> str:
        alias, name, called, comma = found.groups()
        if name in held.get(alias, {name}):
            return found.group()
        return f"    CAST(NULL AS text) AS {called or name}{comma}"

    return _COLUMN.sub(column, query)


def _in_order(connection: Connection, query: str, present: dict[str, str]) -> str:
    """The query with the columns of the view that is there, in their order and of their types, and its further ones behind them."""
    first = text(f"SELECT * FROM ({query}) q LIMIT 0")  # noqa: S608 - the query is one of this file's own
    given = list(connection.execute(first).keys())
    columns = [
        f'CAST({f"q.{name}" if name in given else "NULL"} AS {kind}) AS "{name}"'
        for name, kind in present.items()
    ]
    columns += [f"q.{name}" for name in given if name not in present]
    return f"SELECT {', '.join(columns)} FROM ({query}) q"  # noqa: S608 - as above
