"""`wherefrom reproduce`: computes a citation again on this machine, from the bundle's folder and what the service has stored. Needs the `[engine]` extra.

The service computes nothing and queues nothing: whoever doubts a citation holds bundle and model, and needs the service for the stored scores alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypedDict

import typer

from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.bundle import Bundle
from wherefrom.attribution.bundles.hash_memory import HashMemory
from wherefrom.attribution.interface import OverLong, PreparedQuery
from wherefrom.attribution.reproducing import ask_again, check_engine, citation_of, compare, erased
from wherefrom.attribution.setup import OWN_ENGINE, settings_of_then, setup_of
from wherefrom.cli.build_options import Adapter, Threads
from wherefrom.cli.building import set_threads
from wherefrom.cli.offline import Json, KnownModel
from wherefrom.cli.options import UrlOption
from wherefrom.cli.output import ExitCode, print_json
from wherefrom.cli.placement_options import DeviceOption, DtypeOption, placement_of
from wherefrom.cli.signing import VerifyOption
from wherefrom.client import Service
from wherefrom.errors import BundleMismatch
from wherefrom.library import open_with_model
from wherefrom.records import AuditDetail, Query, QueryGroup
from wherefrom.records.lineage import CitationAddress, Reproduced, Reproduction
from wherefrom.settings import load_settings
from wherefrom.terminal import say


def reproduce(
    *,
    citation: Annotated[
        str, typer.Argument(help="AUDIT/RANK, such as 17/1, or the address of a citation on a page.")
    ],
    bundle: Annotated[Path, typer.Option(help="Folder of the bundle that the audit names.")],
    model: KnownModel = None,
    adapter: Adapter = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    threads: Threads = 0,
    url: UrlOption = None,
    verify: VerifyOption = False,
    as_json: Json = False,
) -> None:
    """Compute a citation again from its bundle, and say whether the same scores come out.

    The answer is same, different (with every score that lies farther apart than rounding explains) or erased. Everything is computed here;
    the service is only asked for what it has stored. Other versions of libraries than then are named.

    Exit code 1: other scores came out.

    Example: wherefrom reproduce 17/1 --bundle ./bundles/support
    """
    address = CitationAddress.parse(citation)
    with Service(url) as service:
        detail = service.audit(address.audit_id)
        members = [service.audit(one.audit_id) for one in detail.members]
    set_threads(threads)
    found = gone_of(detail, address, members=members)
    if found is None:
        hashes = HashMemory.of_machine(load_settings(), afresh=verify)
        placement = placement_of(device, dtype)
        opened = open_with_model(bundle, model, adapter, placement=placement, hashes=hashes)
        found = reproduced(opened, detail, address, members=members)
    if as_json:
        print_json([found])
    else:
        say_reproduced(found)
    if found.verdict is Reproduced.DIFFERENT:
        raise typer.Exit(ExitCode.REFUSED)


def gone_of(
    detail: AuditDetail, address: CitationAddress, *, members: Sequence[AuditDetail] = ()
) -> Reproduction | None:
    """What is said where a text that is needed was erased; None where all are there.

    Args:
        detail: the audit.
        address: the citation.
        members: of a group, the audits of its outputs, in order.

    Raises:
        NotFound: there is no such citation.
        ConfigurationError: another engine answered.
    """
    stored = citation_of(detail, address)
    check_engine(detail.computed_with, OWN_ENGINE)
    answered = (address, stored, str(detail.audit.bundle))
    if stored.erased_at is not None:
        return erased(*answered, then=detail.computed_with, gone="The text of the training example")
    if detail.erased_at is not None or not (detail.completion or members):
        return erased(*answered, then=detail.computed_with)
    if not all(one.completion for one in members):
        return erased(*answered, then=detail.computed_with, gone="The text of an output of the group")
    return None


def reproduced(
    opened: Bundle, detail: AuditDetail, address: CitationAddress, *, members: Sequence[AuditDetail] = ()
) -> Reproduction:
    """Compute one audit again and compare one of its citations.

    Args:
        opened: the bundle that the audit names.
        detail: the audit.
        address: the citation.
        members: of a group, the audits of its outputs, in order.

    Raises:
        BundleMismatch: the folder holds another bundle than the audit names.
        PermanentError: as of `Attributor.prepare`.
    """
    manifest = opened.manifest
    if manifest.name != detail.audit.bundle:
        raise BundleMismatch(
            f"audit {address.audit_id} was answered by bundle {detail.audit.bundle}, and {opened.path} holds {manifest.name}"
        )
    attributor = LanguageAttributor(opened)
    settings = settings_of_then(load_settings(), detail.computed_with)
    limits = _Limits(max_tokens=settings.max_tokens, over_long=settings.over_long)
    prepared: PreparedQuery
    if members:
        prepared = attributor.prepare_group(_group(detail, members, manifest.model.name), **limits)
    else:
        prepared = attributor.prepare(_query(detail, manifest.model.name), **limits)
    answer = ask_again(attributor, prepared, detail)
    return compare(
        address,
        citation_of(detail, address),
        answer,
        bundle=manifest.name,
        then=detail.computed_with,
        now=setup_of(attributor, settings),
    )


class _Limits(TypedDict):
    """What the settings of then let an output have."""

    max_tokens: int
    over_long: OverLong


def _group(detail: AuditDetail, members: Sequence[AuditDetail], explained: str) -> QueryGroup:
    """The group as the worker asked it; none of its outputs is important by itself."""
    against = enumerate(detail.against, start=1)
    return QueryGroup(
        key=str(detail.audit.audit_id),
        members=tuple(_query(one, explained).model_copy(update={"important": False}) for one in members),
        against=tuple(Query.from_record(f"acceptable answer {place}", one) for place, one in against),
    )


def _query(detail: AuditDetail, explained: str) -> Query:
    """The question as the worker asked it; token ids of another model than the bundle's were not used."""
    return Query(
        key=str(detail.audit.audit_id),
        turns=detail.turns,
        completion=detail.completion,
        plain_prompt=bool(detail.plain_prompt),
        spans=detail.spans,
        preferred=detail.preferred,
        token_ids=detail.token_ids if detail.audit.model == explained else None,
        important=any(one.ekfac_score is not None for one in (*detail.citations, *detail.opponents)),
    )


def say_reproduced(found: Reproduction) -> None:
    """The verdict for people."""
    say(
        f"{found.verdict.value}: citation {found.audit_id}/{found.rank} ({found.example_id}) of bundle {found.bundle}"
    )
    say(found.text)


def add_commands(app: typer.Typer) -> None:
    """Put the command under an app."""
    app.command("reproduce")(reproduce)
