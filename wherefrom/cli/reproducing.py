"""`wherefrom reproduce`: computes a citation again on this machine, from the bundle's folder and what the service has stored. Needs the `[engine]` extra.

The service computes nothing and queues nothing: whoever doubts a citation holds bundle and model, and needs the service for the stored scores alone.
"""

from pathlib import Path
from typing import Annotated

import typer

from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.bundles.bundle import Bundle
from wherefrom.attribution.bundles.hash_memory import HashMemory
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
from wherefrom.errors import BundleMismatch, InvalidRequest
from wherefrom.library import open_with_model
from wherefrom.records import AuditDetail, Query
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
    set_threads(threads)
    found = gone_of(detail, address)
    if found is None:
        hashes = HashMemory.of_machine(load_settings(), afresh=verify)
        placement = placement_of(device, dtype)
        opened = open_with_model(bundle, model, adapter, placement=placement, hashes=hashes)
        found = reproduced(opened, detail, address)
    if as_json:
        print_json([found])
    else:
        say_reproduced(found)
    if found.verdict is Reproduced.DIFFERENT:
        raise typer.Exit(ExitCode.REFUSED)


def gone_of(detail: AuditDetail, address: CitationAddress) -> Reproduction | None:
    """What is said where the output's text was erased; None where it is there.

    Raises:
        NotFound: there is no such citation.
        InvalidRequest: the audit is of a group, whose members' records the service does not hand out.
        ConfigurationError: another engine answered.
    """
    stored = citation_of(detail, address)
    if detail.members:
        raise InvalidRequest(
            f"audit {address.audit_id} is of a group of outputs; run `python -m worker reproduce {address}` where the service runs"
        )
    check_engine(detail.computed_with, OWN_ENGINE)
    answered = (address, stored, str(detail.audit.bundle))
    if stored.erased_at is not None:
        return erased(*answered, then=detail.computed_with, gone="The text of the training example")
    return None if detail.completion else erased(*answered, then=detail.computed_with)


def reproduced(opened: Bundle, detail: AuditDetail, address: CitationAddress) -> Reproduction:
    """Compute one audit again and compare one of its citations.

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
    prepared = attributor.prepare(
        _query(detail, manifest.model.name), max_tokens=settings.max_tokens, over_long=settings.over_long
    )
    answer = ask_again(attributor, prepared, detail)
    return compare(
        address,
        citation_of(detail, address),
        answer,
        bundle=manifest.name,
        then=detail.computed_with,
        now=setup_of(attributor, settings),
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
