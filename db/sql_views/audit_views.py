"""The views over audits, citations and sources; `db.sql_views.views` says what holds of all views."""

#: By name.
AUDIT_VIEWS: dict[str, str] = {
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
    o.members,
    o.erased_by
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
    c.alike,
    e.erased_at AS example_erased_at,
    e.erased_by AS example_erased_by
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
FROM (
    SELECT source, COUNT(*) AS examples
    FROM training_example
    WHERE id NOT IN (
        SELECT s.training_example_id
        FROM citation s
        JOIN training_example x ON x.id = s.training_example_id
        JOIN corpus k ON k.id = x.corpus_id
        JOIN audit a ON a.id = s.audit_id
        JOIN flagged_output o ON o.id = a.flagged_output_id
        WHERE o.channel = 'hypothetical'
            AND k.examples > 50000 -- catalogue.STORED_CORPUS_LIMIT
            AND NOT EXISTS (
                SELECT 1
                FROM citation r
                JOIN audit b ON b.id = r.audit_id
                JOIN flagged_output p ON p.id = b.flagged_output_id
                WHERE r.training_example_id = s.training_example_id AND p.channel <> 'hypothetical'
            )
    )
    GROUP BY source
) e
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
}
