"""What is chosen for a build, as the options of every command that builds."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from inspect import Parameter

from wherefrom.attribution.corpus.rows import ReadAs
from wherefrom.cli.build_options import (
    Adapter,
    BlocksChoice,
    BlocksOption,
    Candidates,
    Encoder,
    EncoderWeight,
    FeaturesChoice,
    FeaturesOption,
    FinalOption,
    FormChoice,
    FormOption,
    FullTier,
    IndexChoice,
    IndexOption,
    LearningCheck,
    LongestExample,
    Midpoint,
    ModelName,
    SimilarityOption,
    SkipBadRows,
    StartFolder,
    Threads,
)
from wherefrom.cli.corpus_options import (
    FormatOption,
    JoinOption,
    SplitOption,
    TemplateArgsOption,
    TemplateOption,
    TurnsOption,
)
from wherefrom.cli.placement_options import DeviceOption, DtypeOption


@dataclass(frozen=True, kw_only=True)
class BuildChoice:
    """One field per option, in the order of the help."""

    adapter: Adapter = None
    form: FormOption = FormChoice.AUTO
    similarity: SimilarityOption = None
    blocks: BlocksOption = BlocksChoice.AUTO
    final: FinalOption = True
    features: FeaturesOption = FeaturesChoice.AUTO
    model_name: ModelName = None
    candidates: Candidates = None
    max_tokens: LongestExample = 1024
    skip_bad: SkipBadRows = False
    turns: TurnsOption = ReadAs.turns
    dialect: FormatOption = None
    split: SplitOption = None
    midpoint: Midpoint = False
    full_tier: FullTier = False
    start: StartFolder = None
    encoder: Encoder = None
    encoder_weight: EncoderWeight = None
    chat_template: TemplateOption = None
    template_args: TemplateArgsOption = None
    join: JoinOption = ""
    index: IndexOption = IndexChoice.AUTO
    learning_check: LearningCheck = True
    device: DeviceOption = None
    dtype: DtypeOption = None
    threads: Threads = 0


def takes_choice(command: Callable[..., None]) -> Callable[..., None]:
    """A command with one option per field of `BuildChoice`, in the place of its argument `choice`."""
    signature = inspect.signature(command)
    names = [one.name for one in fields(BuildChoice)]

    @wraps(command)
    def with_options(**given: object) -> None:
        chosen = {name: given.pop(name) for name in names if name in given}
        command(**given, choice=BuildChoice(**chosen))  # type: ignore[arg-type]  # typer has checked them

    parameters: list[Parameter] = []
    for one in signature.parameters.values():
        own = inspect.signature(BuildChoice).parameters.values() if one.name == "choice" else [one]
        parameters += own
    with_options.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # read by `inspect.signature`
    return with_options
