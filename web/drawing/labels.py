"""What the pages call the fields of their forms, so that a message names a field as whoever reads it sees it.

The API, its documentation and the command line use the names of parameters. A message speaks of them too, in backticks; a page puts the label in their place.
"""

import re

#: Labels by the name of the parameter, wherever it stands.
_LABELS = {
    # filters of the list of audits
    "state": "State",
    "unseen": "Since my last visit",
    "text": "Text",
    "flag_reason": "Reason",
    "source": "Cites source",
    "model": "Model",
    "severity": "Severity",
    "fdr": "False discoveries",
    "sort": "Order",
    "since": "Received from",
    "until": "Received to",
    "in_prompt": "Prompt has",
    "in_output": "Output has",
    "in_cited": "Cited text has",
    "top_source": "First citation from",
    "example": "Cites example",
    "bundle": "Bundle",
    "code": "Code",
    "channel": "Channel",
    "verdict": "Verdict",
    "assignee": "Assigned to",
    "in_queue": "In queue",
    "finding": "Finding",
    "support": "Support",
    "score_min": "Score from",
    "score_max": "Score to",
    "confidence_min": "Confidence from",
    "confidence_max": "Confidence to",
    "effect_min": "Effect from",
    "effect_max": "Effect to",
    # forms
    "action": "Decision",
    "actor": "Who",
    "audit": "Audit",
    "audit_ids": "Numbers of audits",
    "comment": "Comment",
    "completion": "What if it had said this?",
    "days": "Days",
    "example_id": "Id in the corpus",
    "format": "Format",
    "give": "Verdict",
    "into": "Put this finding into",
    "key": "API key",
    "kind": "What",
    "label": "Label",
    "least_outputs": "Cited by at least",
    "list": "Fix list",
    "most": "How many",
    "name": "Name",
    "note": "What it is for",
    "order": "Order",
    "other": "After",
    "person": "Person",
    "preferred": "Acceptable answer",
    "producer": "Producer",
    "queue": "Queue",
    "quote": "Words of the flagged answer",
    "rank": "About",
    "reason": "Reason",
    "reviewers": "People per audit",
    "rows": "One row for each",
    "subject": "To what",
    "title": "Title",
    "under": "Bundle",
    "view_name": "Name of the view",
}
#: Labels of pages that call a field otherwise, by the beginning of their path.
_OF_PAGES = {
    "/trail": {"since": "From", "until": "Until"},
    "/compare": {"bundle": "Before"},
    "/bulk": {"comment": "Why"},
    "/examples": {"text": "Words of its prompt or answer", "source": "Source"},
    "/erasing": {"flag_reason": "Reason of the flag"},
    "/fix-lists": {"flag_reason": "Reason of the outputs"},
}
_NAMED = re.compile(r"`(\w+)`")


def label_of(name: str, path: str = "/") -> str:
    """What a page calls the field of a parameter; the name without its underscores where none does."""
    for start, labels in _OF_PAGES.items():
        if path.startswith(start) and name in labels:
            return labels[name]
    return _LABELS.get(name, name.replace("_", " "))


def with_labels(message: str, path: str = "/") -> str:
    """The message with the labels of a page in the place of the names of its parameters; other words in backticks stay."""
    return _NAMED.sub(
        lambda found: f"“{label_of(found[1], path)}”" if found[1] in _LABELS else found[0], message
    )


def named_in(message: str) -> frozenset[str]:
    """The words in backticks of a message, among them the names of parameters."""
    return frozenset(_NAMED.findall(message))
