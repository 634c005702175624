"""The views over what people do at the desk: review queues, verdicts, fix lists, what-ifs, comparisons of bundles; `db.sql_views.views` says what holds of all views."""

#: By name.
DESK_VIEWS: dict[str, str] = {
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
    "v_trail": """
SELECT
    t.id AS event_id,
    t.at,
    t.kind,
    t.subject,
    t.actor,
    t.payload,
    t.sequence,
    t.prev_hash,
    t.row_hash
FROM trail_event t
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
    "v_findings": """
SELECT
    f.id AS finding_id,
    f.title,
    b.name AS bundle,
    f.merged_into,
    f.outputs,
    f.newest_at,
    f.created_at,
    f.counted_at
FROM finding f
JOIN bundle b ON b.id = f.bundle_id
""",
    "v_finding_words": """
SELECT
    w.finding_id,
    w.place,
    w.word,
    COUNT(*) AS outputs
FROM finding_word w
GROUP BY w.finding_id, w.place, w.word
""",
    "v_finding_outputs": """
SELECT
    COALESCE(f.merged_into, f.id) AS finding_id,
    f.id AS part_id,
    p.audit_id,
    a.flagged_output_id AS output_id,
    o.model,
    o.reason AS flag_reason,
    a.top_source,
    a.created_at,
    p.placed_at
FROM finding_output p
JOIN finding f ON f.id = p.finding_id
JOIN audit a ON a.id = p.audit_id
JOIN flagged_output o ON o.id = a.flagged_output_id
""",
    "v_comparisons": """
SELECT
    b.name AS bundle,
    o.name AS other_bundle,
    p.flagged_output_id AS output_id,
    p.audit_id,
    p.other_audit_id,
    p.stayed,
    p.gone,
    p.came,
    p.moved,
    p.top_changed,
    c.computed_at
FROM compared_output p
JOIN bundle_comparison c ON c.id = p.comparison_id
JOIN bundle b ON b.id = c.bundle_id
JOIN bundle o ON o.id = c.other_bundle_id
""",
}
