"""What the forms of the pages send: read with a bound, and only where it carries the token that we put into the form."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import Depends, Request

from db.access.keys import Scope
from web.body import read_body
from web.guard.caller import Caller
from web.guard.security import needs
from web.services import Services, services_of
from wherefrom.errors import Forbidden, InvalidRequest

#: Most characters of a number.
_NUMBER_CHARS = 20
#: Largest form, bytes, and most fields of it.
FORM_BYTES, FORM_FIELDS = 65_536, 500
#: Largest form that carries a whole answer, bytes: three stand for each byte of another script.
LONG_FORM_BYTES = 1_000_000
FORM_FIELD = "form_token"


@dataclass(frozen=True)
class Form:
    """The fields of a form, and who sent it."""

    caller: Caller
    fields: Mapping[str, list[str]]

    def text(self, name: str, *, most: int = 200) -> str:
        """The one value of a field without outer spaces; empty where it was not sent.

        Raises:
            InvalidRequest: it is longer than `most` characters, or the database cannot hold it.
        """
        value = self.fields.get(name, [""])[-1].replace("\r\n", "\n").strip()
        if len(value) > most:
            raise InvalidRequest(f"`{name}` has {len(value)} characters; write at most {most}")
        if "\x00" in value or any("\ud800" <= one <= "\udfff" for one in value):
            raise InvalidRequest(f"`{name}` contains a character that cannot be stored")
        return value

    def number(self, name: str) -> int | None:
        """A whole number of a field; None where the field is empty.

        Raises:
            InvalidRequest: it is no number.
        """
        value = self.text(name, most=_NUMBER_CHARS)
        if not value:
            return None
        if not _is_number(value.removeprefix("-")):
            raise InvalidRequest(f"`{name}` is not a number")
        return int(value)

    def numbers(self, name: str, *, most: int) -> list[int]:
        """The whole numbers of a field, with commas or spaces between them.

        Raises:
            InvalidRequest: one is no number, or the field is longer than `most` of them.
        """
        sent = self.text(name, most=_NUMBER_CHARS * most).replace(",", " ").split()
        if not all(map(_is_number, sent)):
            raise InvalidRequest(f"`{name}` holds something that is no number")
        return [int(one) for one in sent]

    def ticked(self, name: str) -> list[int]:
        """The numbers of the boxes of this name that are ticked; what is no number is passed over."""
        return [int(one) for one in self.fields.get(name, []) if _is_number(one)]

    def has(self, name: str) -> bool:
        """Whether a box was ticked."""
        return bool(self.text(name))


def _is_number(value: str) -> bool:
    return len(value) <= _NUMBER_CHARS and value.isascii() and value.isdecimal()


async def read_fields(request: Request, *, limit_bytes: int = FORM_BYTES) -> dict[str, list[str]]:
    """The fields of a form's body.

    Raises:
        InvalidRequest: it is no form, or has too many fields.
        BodyTooLarge: it is longer than `limit_bytes`.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    raw = await read_body(request, limit_bytes=limit_bytes)
    if raw and kind != "application/x-www-form-urlencoded":
        raise InvalidRequest("send the form as `application/x-www-form-urlencoded`")
    try:
        return parse_qs(
            raw.decode("ascii"), keep_blank_values=True, max_num_fields=FORM_FIELDS, errors="strict"
        )
    except ValueError as error:
        raise InvalidRequest("the form is not encoded as a browser would encode it") from error


def check_token(services: Services, fields: Mapping[str, list[str]], seed: str) -> None:
    """Refuse a form that we did not show to whoever sends it.

    Raises:
        Forbidden: the token is missing or another one.
    """
    token = fields.get(FORM_FIELD, [""])[-1]
    if not services.signer().is_form_token(token, seed):
        raise Forbidden("this form is no longer valid: open the page again, and send it from there")


@cache
def form_of(scope: Scope | None, *, limit_bytes: int = FORM_BYTES) -> Callable[..., Awaitable[Form]]:
    """The dependency that reads a form from a caller with this scope; None: from anybody who may ask at all."""

    async def read(
        request: Request,
        services: Annotated[Services, Depends(services_of)],
        caller: Annotated[Caller, Depends(needs(scope))],
    ) -> Form:
        fields = await read_fields(request, limit_bytes=limit_bytes)
        check_token(services, fields, caller.seed)
        return Form(caller, fields)

    return read


def local_path(wanted: str) -> str:
    """Where to go after signing in: a path of ours, never an address that leads elsewhere."""
    plain = wanted.isascii() and wanted.isprintable() and "\\" not in wanted
    return wanted if plain and wanted.startswith("/") and not wanted.startswith("//") else "/"
