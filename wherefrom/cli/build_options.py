"""Options of `wherefrom build`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class FormChoice(StrEnum):
    """Which signals of the model are compared."""

    AUTO = "auto"
    FORWARD = "forward"
    ACTIVATION = "activation"
    ADAPTER = "adapter"
    ADAPTER_FORWARD = "adapter-forward"


class SimilarityChoice(StrEnum):
    """Which states similarity compares."""

    HIDDEN = "hidden"
    ADAPTER = "adapter"


class BlocksChoice(StrEnum):
    """Which blocks are read in the directions of an adapter."""

    AUTO = "auto"
    ALL = "all"


class FeaturesChoice(StrEnum):
    """What is kept of each training example to score it with."""

    AUTO = "auto"
    EXACT = "exact"
    COMPACT = "compact"
    NONE = "none"


class IndexChoice(StrEnum):
    """What makes the vector indexes."""

    AUTO = "auto"
    HNSW = "hnsw"
    FAISS = "faiss"
    MILVUS = "milvus"


Threads = Annotated[int, typer.Option(help="Number of torch threads; 0 lets torch decide.")]
Adapter = Annotated[Path | None, typer.Option(help="Folder of a PEFT adapter trained on that model.")]
CorpusPath = Annotated[
    Path,
    typer.Option(
        help="Training corpus: .jsonl, .json, .csv, .tsv (also .gz, .zst), .parquet, or a folder of them or of `datasets`."
    ),
]
NewFolder = Annotated[Path, typer.Option(help="Folder of the new bundle; must not exist.")]
ModelName = Annotated[
    str | None, typer.Option(help="Revision name that producers send; default: the folders' names.")
]
Candidates = Annotated[int | None, typer.Option(min=1, help="Candidates scored exactly per query.")]
LongestExample = Annotated[
    int, typer.Option(min=8, help="Longest training example in tokens; longer ones are cut.")
]
SkipBadRows = Annotated[bool, typer.Option("--skip-bad", help="Skip bad rows and print how many.")]
FormOption = Annotated[
    FormChoice,
    typer.Option(
        help="What is compared. auto: adapter with a LoRA adapter, else forward for up to 8 layers, activation for more. adapter: in the directions of a LoRA adapter. adapter-forward: the same, without a backward pass for outputs."
    ),
]
SimilarityOption = Annotated[
    SimilarityChoice | None,
    typer.Option(
        help="The states that similarity compares. hidden: a hidden state. adapter: what the adapter saw in the layers that are read (forms adapter and adapter-forward)."
    ),
]
BlocksOption = Annotated[
    BlocksChoice,
    typer.Option(
        help="The blocks that the forms adapter and adapter-forward read. auto: the upper half, where the adapter adapts 12 blocks or more. all: every adapted block."
    ),
]
IndexOption = Annotated[
    IndexChoice,
    typer.Option(
        "--index",
        help="What searches the corpus. hnsw: a graph in memory. faiss: an inverted file on disk, for tens of millions of examples. milvus: the server of WHEREFROM_MILVUS_URI. auto: hnsw, or faiss where the graphs would exceed WHEREFROM_INDEX_MEMORY_SHARE.",
    ),
]
FeaturesOption = Annotated[
    FeaturesChoice,
    typer.Option(
        "--features",
        help="What is kept of each training example to score it with. exact: all of it. compact: a fourteenth of that with a LoRA adapter, a third otherwise, with a little less quality. none: nothing; every audit reads its candidates through the model again, which takes tens of seconds on a CPU. auto: exact up to 100,000 examples, compact up to 10 million, none beyond.",
    ),
]
FinalOption = Annotated[
    bool,
    typer.Option(
        "--final/--no-final",
        help="Whether the form adapter also reads gradients at the final weights: a better order, for a second pass over the model.",
    ),
]
Midpoint = Annotated[
    bool,
    typer.Option(
        "--midpoint",
        help="Also read the model half-way to the weights before the fine-tune: more accurate, at twice the cost.",
    ),
]
FullTier = Annotated[
    bool, typer.Option("--full-tier", help="Also fit EK-FAC over all linear layers, for important audits.")
]
StartFolder = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the weights before a full fine-tune, for --midpoint. An adapter needs none."
    ),
]
Encoder = Annotated[
    Path | None,
    typer.Option(
        help="Folder of a sentence encoder (safetensors) that finds paraphrases. The bundle gets a copy."
    ),
]


EncoderWeight = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        help="Weight of the encoder in the order shown; default: 3 (beside influence 1, BM25 3, similarity 2; form adapter: influence 1, final gradients .75, BM25 .6). A large weight finds facts, a small one finds bad sources.",
    ),
]


LearningCheck = Annotated[
    bool,
    typer.Option(
        "--learning-check/--no-learning-check",
        help="Measure on a sample whether the model has learned the corpus. If it has not, no citation is supported.",
    ),
]
