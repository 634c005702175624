"""Measures a GPU: parity with the CPU, tokens per second of each form, then a large bank with its table, saved as it goes.

    python -m benchmarks.gpu --work DIR [--device cuda] [--model DIR] [--minutes 6] [--models 512] [--together 32] [--json]
    python -m benchmarks.gpu --work DIR --device cpu --small      a trial on the tiny model, without a GPU

Run again with the same --work it goes on: finished scores and models are kept. The bank trains in float32 (on a GPU its products in TF32); forms are scored in the
numbers that --dtype says.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.deep_bank.table import lines_of
from benchmarks.gpu.bank import BankWork, bank_table, score_methods
from benchmarks.gpu.parity import compare, speed
from benchmarks.gpu.subject import demo_subject, small_subject, write_outputs
from benchmarks.program import command, report, run
from wherefrom.atomic import write_json
from wherefrom.attribution.models.placement import Placement, device_name

#: Seconds at the end that the table may take.
_TABLE_S = 15.0


def main() -> None:
    """Measure and print."""
    parser = command(__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder of what is finished")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--dtype", default="auto", help="numbers of the forms: auto, float32 or bfloat16")
    parser.add_argument("--model", type=Path, help="folder of SmolLM2-135M-Instruct; default: the cache")
    parser.add_argument("--minutes", type=float, default=6.0, help="time for everything together")
    parser.add_argument("--models", type=int, default=512, help="models of the bank at most")
    parser.add_argument("--together", type=int, default=32, help="models that are trained in one pass")
    parser.add_argument("--small", action="store_true", help="the tiny model and few rows, for a trial")
    run(parser, measure, table=lines)


def measure(arguments: argparse.Namespace, _work: Path) -> dict[str, Any]:
    """All three parts; what is finished stands in `gpu.json` of the work folder at once."""
    until = time.monotonic() + 60.0 * arguments.minutes - _TABLE_S
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    placement = Placement.resolve(arguments.device, arguments.dtype)
    subject = small_subject(work) if arguments.small else demo_subject(arguments.model)
    gpu = device_name(placement.device)
    report([f"device: {placement}" + (f" ({gpu})" if gpu else "")])
    result: dict[str, Any] = {"device": str(placement), "gpu": gpu, "small": arguments.small}

    def keep(**more: Any) -> None:
        result.update(more)
        write_json(work / "gpu.json", result)

    keep(parity=compare(subject, placement))
    report(_parity_lines(result["parity"]))
    keep(tokens_per_second=speed(subject, placement))
    report(_speed_lines(result["tokens_per_second"]))
    outputs = write_outputs(subject, work, placement)
    scores = score_methods(subject, outputs, work, placement)
    in_float32 = Placement(placement.device, torch.float32)
    if placement.device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    bank = BankWork.open(subject, outputs, work / "bank", in_float32)
    bank.train(together=arguments.together, until=until, most=arguments.models)
    keep(bank=bank_table(subject, scores, outputs, work / "bank"))
    return result


def lines(result: dict[str, Any]) -> list[str]:
    """The bank's table; the other parts were printed when they were finished."""
    bank = result["bank"]
    if not bank["figures"]:
        return [f"{bank['models']} models: too few for a table"]
    head = f"{bank['models']} models on halves of the corpus, {bank['seconds_per_model']:.2f} s each"
    return [head, *lines_of(bank["figures"])]


def _parity_lines(parity: dict[str, Any]) -> list[str]:
    found = ["parity with the CPU in float32, least cosine of a row:"]
    for dtype, by_form in parity.items():
        if dtype == "passed":
            continue
        for form, parts in by_form.items():
            cells = ", ".join(f"{name} {one['least']:.5f}" for name, one in parts.items())
            found.append(f"  {dtype:<9} {form:<15} {cells}")
    return [*found, f"  floors {'held' if parity['passed'] else 'MISSED'}"]


def _speed_lines(speeds: dict[str, float]) -> list[str]:
    bare = speeds["bare forward pass"]
    return [f"{name:<18} {one:>10.0f} tokens/s  {bare / one:.2f}x" for name, one in speeds.items()]


if __name__ == "__main__":
    main()
