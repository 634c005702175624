"""How a citation is named."""

import pytest

from wherefrom.errors import InvalidRequest
from wherefrom.records.lineage import CitationAddress


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("17", "17/1"),
        ("17/3", "17/3"),
        (" 17/-2 ", "17/-2"),
        ("audits/17", "17/1"),
        ("/audits/17#citation-2", "17/2"),
        ("https://host:8443/some/where/audits/17#citation--1", "17/-1"),
        ("http://127.0.0.1:8077/audits/17?state=done&page=2#citation-4", "17/4"),
    ],
)
def test_a_citation_is_named_by_numbers_or_by_its_address(text: str, address: str) -> None:
    """An audit alone means its first citation."""
    assert str(CitationAddress.parse(text)) == address


@pytest.mark.parametrize(
    "text", ["", "x", "17/0", "17/x", "-1", "1" * 19, "http://host/bundles/17", "17#citation-0"]
)
def test_what_names_none_is_refused(text: str) -> None:
    """With what to give."""
    with pytest.raises(InvalidRequest, match="give AUDIT/RANK, such as 17/1"):
        CitationAddress.parse(text)
