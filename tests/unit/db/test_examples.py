"""What is stored of a text that SQL cannot hold."""

import json

from hypothesis import given
from hypothesis import strategies as st

from db.storing.examples import storable_json, storable_text

_any_text = st.text(st.characters(codec=None, exclude_categories=()))


@given(_any_text)
def test_every_text_becomes_storable(text: str) -> None:
    """No NUL, encodable, and as long as before unless surrogates joined."""
    stored = storable_text(text)
    assert "\x00" not in stored
    stored.encode("utf-8")


@given(st.text(st.characters(exclude_characters="\x00", codec="utf-8")))
def test_storable_texts_stay_as_they_are(text: str) -> None:
    """Control and bidi characters included."""
    assert storable_text(text) == text


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | _any_text,
        lambda inner: st.lists(inner) | st.dictionaries(_any_text, inner),
    )
)
def test_every_value_becomes_json(value: object) -> None:
    """Strict JSON, as PostgreSQL wants it."""
    json.dumps(storable_json(value), allow_nan=False).encode("utf-8")
