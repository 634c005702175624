"""Whether the blocks and the kinds of layers that citations name matter to the outputs: their adapter is scaled to zero, beside random parts and those of other outputs.

    python -m benchmarks.deep_bank.parts --work DIR [--json]

The outputs are all queries of the deep bank; the bundle is the one of the form `adapter` in the work folder, made there if it is missing. What is measured
is in `wherefrom.evaluation.parts`.
"""

import argparse
from pathlib import Path
from typing import Any, Literal

from benchmarks.deep_bank.material import RECIPE
from benchmarks.deep_bank.scores import Bench, asked_queries
from benchmarks.program import command, run
from wherefrom.attribution.attributor import LanguageAttributor
from wherefrom.attribution.models.adapted import AdapterReader
from wherefrom.attribution.offline import attribute_all, prepare_all
from wherefrom.attribution.progress import silent
from wherefrom.errors import ConfigurationError
from wherefrom.evaluation.parts import check_parts, named_outputs

_SIDES: tuple[Literal["block", "linear"], ...] = ("block", "linear")


def main() -> None:
    """Attribute, scale to zero, report."""
    parser = command(__doc__, threads=1)
    parser.add_argument("--work", type=Path, required=True, help="folder of the adapter and of its bundle")
    run(parser, measure, table=table)


def measure(arguments: argparse.Namespace, _folder: Path) -> dict[str, Any]:
    """Figures for blocks and for kinds of layers."""
    bundle = Bench(arguments.work).bundle("adapter")
    if not isinstance(bundle.reader, AdapterReader):
        raise ConfigurationError(f"{bundle.path} is not a bundle of the form `adapter`")
    attributor = LanguageAttributor(bundle)
    prepared = prepare_all(attributor, asked_queries(), max_tokens=RECIPE.max_tokens, over_long="truncate")
    answers = attribute_all(attributor, prepared, top_k=1, opponents=0, progress=silent)
    rows = [one.row for one in prepared]
    found: dict[str, Any] = {"queries": len(rows)}
    for by in _SIDES:
        outputs = named_outputs(rows, [one.citations for one in answers], by)
        checked = check_parts(bundle.language.model, bundle.reader.adapted, outputs, by)
        mean = sum(len(one.parts) for one in outputs) / len(outputs)
        found[by] = checked.to_json() | {"parts_named": mean}
    return found


def table(result: dict[str, Any]) -> list[str]:
    """Lines for people."""
    lines = [f"{result['queries']} outputs; changes are of the mean loss, nats per token"]
    for by in _SIDES:
        one = result[by]
        ratios = [
            f"{one[name]['value']:.2f} ({one[name]['interval'][0]:.2f} to {one[name]['interval'][1]:.2f})"
            for name in ("ratio_to_random", "ratio_to_others")
        ]
        lines.append(
            f"{by:<7}{one['outputs']:>4} name parts, {one['parts_named']:.1f} each; "
            f"named {one['named_nats']:.3f}, random {one['random_nats']:.3f}, other outputs' {one['others_nats']:.3f}; "
            f"ratio to random {ratios[0]}, to other outputs' {ratios[1]}; above random in {one['outputs_above_random']:.2f}"
        )
    return lines


if __name__ == "__main__":
    main()
