"""The files that a bundle is measured by: banks, outputs with known causes, controls, results of benchmarks."""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wherefrom.attribution.bundles.manifest import hash_file, hash_folder
from wherefrom.attribution.corpus import read_jsonl
from wherefrom.errors import ConfigurationError, InvalidRecord
from wherefrom.evaluation.truth import BankTruth
from wherefrom.json_text import read_json
from wherefrom.records import sha256_of_json
from wherefrom.retraining.bank import load_bank
from wherefrom.retraining.bank_content import BankContent


@dataclass(frozen=True)
class MaterialFiles:
    """What was given; None where it was not."""

    bank: Path | None = None
    bank_queries: Path | None = None
    #: Name of the queries' losses in the banks.
    bank_losses: str | None = None
    bank_repeat: Path | None = None
    known: Path | None = None
    controls: Path | None = None
    stress: Path | None = None
    overhead: Path | None = None

    def check(self) -> None:
        """Refuse what cannot be used together, and files that are not there.

        Raises:
            ConfigurationError: says which option lacks another.
            InvalidRecord: a file does not exist.
        """
        for name, file in self.named().items():
            if not file.exists():
                raise InvalidRecord(f"--{name.replace('_', '-')} {file}: file not found")
        if (self.bank is None) != (self.bank_queries is None):
            raise ConfigurationError("--bank and --bank-queries belong together: give both or neither")
        if self.bank_repeat is not None and self.bank is None:
            raise ConfigurationError("--bank-repeat needs --bank: give both")

    def named(self) -> dict[str, Path]:
        """The given files by the name of their option."""
        fields = ("bank", "bank_queries", "bank_repeat", "known", "controls", "stress", "overhead")
        return {name: file for name in fields if (file := getattr(self, name)) is not None}

    def command(self, bundle: str) -> str:
        """The command that measured, with names of files instead of their paths."""
        words = [f"--{name.replace('_', '-')} {file.name}" for name, file in self.named().items()]
        return " ".join([f"wherefrom evaluate --bundle {bundle}", *words])

    def as_json(self) -> dict[str, dict[str, Any]]:
        """Name and SHA-256 of each, for the card."""
        return {
            name: {"file": file.name, "sha256": content_hash(file)} for name, file in self.named().items()
        }


def content_hash(path: Path) -> str:
    """SHA-256 of a file, or over the hashes of all files of a folder.

    Raises:
        InvalidRecord: there is neither.
    """
    if path.is_dir():
        return sha256_of_json({name: entry.sha256 for name, entry in hash_folder(path).items()})
    if not path.is_file():
        raise InvalidRecord(f"{path}: file not found")
    return hash_file(path).sha256


def read_bank(path: Path, losses: str) -> tuple[BankTruth, BankContent]:
    """Losses of one file of queries, and what the bank was made with.

    Raises:
        InvalidRecord, ConfigurationError: there is no bank, or it did not measure these queries.
    """
    bank = load_bank(path)
    return BankTruth(bank.kept, bank.losses(losses)), bank.content


def read_gold(file: Path, rows: Mapping[str, int]) -> list[list[int]]:
    """Corpus rows of the known causes of each output; empty where a row names none.

    Args:
        file: JSONL with `gold`, ids of training examples.
        rows: corpus row by id.

    Raises:
        InvalidRecord: `gold` is no list, or names an id that the corpus does not have; the text names the line.
    """
    found = []
    for place, content in read_jsonl(file):
        named = content.get("gold") or []
        if not isinstance(named, list):
            raise InvalidRecord(f"{place}: `gold` must be a list of ids of training examples")
        unknown = [one for one in named if str(one) not in rows]
        if unknown:
            raise InvalidRecord(
                f"{place}: `gold` names {unknown[0]!r}, which is not an id of the bundle's corpus"
            )
        found.append([rows[str(one)] for one in named])
    return found


def read_control_groups(file: Path) -> list[str]:
    """What controls are resampled by; a row without `group` stands alone."""
    named = [content.get("group") for _, content in read_jsonl(file)]
    return [f"row {index}" if one is None else f"group {one}" for index, one in enumerate(named)]


def read_result(file: Path, *, holds: str) -> dict[str, Any]:
    """The JSON line that a benchmark ends with: the last line of the file.

    Args:
        file: the line alone, or the whole output of the benchmark.
        holds: a key with an object that the result must have.

    Raises:
        InvalidRecord: there is no such line.
    """
    try:
        text = file.read_text(encoding="utf-8").strip()
        content = read_json(text if text.startswith("{") and "\n{" not in text else text.splitlines()[-1])
    except (OSError, ValueError, IndexError) as error:
        raise InvalidRecord(f"{file}: does not end with a JSON line of a benchmark: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get(holds), dict):
        raise InvalidRecord(f"{file}: not a result of the expected benchmark (no object {holds!r})")
    return content


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
        "load_1min": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())
