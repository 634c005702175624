"""Texts that cannot be stored are refused with the name of their field."""

import pytest

from wherefrom.attribution.corpus.storable import check_texts
from wherefrom.errors import InvalidRecord


@pytest.mark.parametrize("value", ["x" * 11, ["a", {"b": "x" * 11}], {"x" * 11: 1}])
def test_a_text_beyond_all_bounds_is_refused(value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line instead of a validation error in the middle of a build; nested values too."""
    monkeypatch.setattr("wherefrom.attribution.corpus.storable.MAX_TEXT_CHARS", 10)
    with pytest.raises(InvalidRecord, match="field 'field' has 11 characters, the limit is 10"):
        check_texts({"field": value})
