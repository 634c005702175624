"""A GPU without a GPU: tensors that have a device, a shape and a dtype but no numbers, on which mixing devices is an error as it is on a real one.

It tells where code makes a tensor on the CPU that meets one on the GPU; it tells nothing about numbers, memory or speed. The device is torch's spare one, which is
registered for a whole process, so the checks run in a process of their own: `python -m tests.fake_gpu` prints what each one found, as JSON.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from unittest.mock import patch

import torch
import transformers
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from tests.tiny import micro_config, micro_language, random_row
from wherefrom.attribution import cores, kernel
from wherefrom.attribution.ekfac.factors import LayerFactors
from wherefrom.attribution.ekfac.gradients import LinearTaps, block_linears
from wherefrom.attribution.factors import Factors, pack
from wherefrom.attribution.models import signals
from wherefrom.attribution.models.adapted import AdapterReader, ForwardAdapterReader
from wherefrom.attribution.models.adjoint import Adjoint
from wherefrom.attribution.models.lora import AdaptedLinear
from wherefrom.attribution.models.model import LanguageModel
from wherefrom.attribution.models.signals import SignalReader, Signals
from wherefrom.attribution.query import contrast
from wherefrom.attribution.retrieval.core_projection import CoreProjection
from wherefrom.attribution.retrieval.projection import Projection
from wherefrom.attribution.whitening import Whitener

GPU = "fakegpu"
ROWS = (random_row(5, 4), random_row(9, 3, seed=2), random_row(3, 6, seed=3))
#: What each check is called.
Found = dict[str, list[str]]


def on_gpu(language: LanguageModel, dtype: torch.dtype) -> LanguageModel:
    """The micro model on the fake GPU, without numbers."""
    config = micro_config()
    config._attn_implementation = "eager"  # the other one looks at the mask's numbers
    model = transformers.LlamaForCausalLM(config).eval().requires_grad_(False)
    for module in model.modules():  # `model.to` cannot swap fake tensors
        for name, weight in list(module._parameters.items()):
            if weight is not None:
                module._parameters[name] = torch.nn.Parameter(weight.to(GPU, dtype), requires_grad=False)
        for name, buffer in list(module._buffers.items()):
            module._buffers[name] = buffer.to(GPU)
    return replace(language, model=model)


def said(values: Signals) -> list[str]:
    """Device and dtype of all parts of signals."""
    parts = (values.a, values.b, values.pooled, values.loss, values.context)
    return [describe(one) for one in parts if one is not None]


def describe(one: Tensor) -> str:
    """Device and dtype."""
    return f"{one.device.type} {str(one.dtype).removeprefix('torch.')}"


def adapted(language: LanguageModel) -> list[AdaptedLinear]:
    """An adapter of rank 4 on the queries of all blocks."""
    return [
        AdaptedLinear.of(
            name,
            torch.zeros(4, module.weight.shape[1], device=GPU),
            torch.zeros(len(module.weight), 4, device=GPU),
        )
        for name, module in language.model.named_modules()
        if name.endswith("q_proj")
    ]


def read(language: LanguageModel, form: str) -> Signals:
    """Signals of a form, by the split and the plain pass alike."""
    layers = adapted(language)
    if form == "adapter":
        return AdapterReader(language, layers, similarity_layer=2, similarity="adapter", context=True).read(
            ROWS
        )
    if form == "adapter-forward":
        numbers = sum(layer.rank for layer in layers)
        adjoint = Adjoint(torch.zeros(2 * language.hidden_size, numbers)).to(torch.device(GPU))
        return ForwardAdapterReader(language, layers, similarity_layer=2, adjoint=adjoint).read(ROWS)
    return SignalReader(language, form=form, layers=(1, 3), similarity_layer=2).read(ROWS)  # type: ignore[arg-type]  # a form that a case names as text


def signal_checks(language: LanguageModel) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    """Reading a model, in both passes, numbers and all forms."""
    for dtype in (torch.float32, torch.bfloat16):
        for split in (True, False):
            for form in ("forward", "activation", "adapter", "adapter-forward"):

                def work(dtype=dtype, split=split, form=form) -> list[str]:
                    with (
                        patch.object(SignalReader, "_probe", lambda _: split),
                        patch.object(AdapterReader, "_probe", lambda _: split),
                    ):
                        return said(read(on_gpu(language, dtype), form))

                yield f"signals {form} {'split' if split else 'plain'} {dtype}", work


def some_factors(*lengths: int, width: int = 6) -> Factors:
    """Factors of three groups on the fake GPU."""
    tokens = sum(lengths)
    return Factors(
        torch.zeros(tokens, 3, width, device=GPU), torch.zeros(tokens, 3, width, device=GPU), lengths
    )


def engine_checks(language: LanguageModel) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    """What is computed behind the model: everything stays on the GPU unless its contract says otherwise."""
    few, many = some_factors(2, 3), some_factors(4, 1, 5)

    def whiten() -> list[str]:
        whitener = Whitener(torch.zeros(3, 6, 6), torch.zeros(3, 6, 6)).to(torch.device(GPU))
        return [describe(one) for one in whitener.apply(torch.zeros(5, 3, 6), torch.zeros(5, 3, 6))]

    def kernels() -> list[str]:
        stored = pack(Factors(torch.zeros(10, 3, 6), torch.zeros(10, 3, 6), (4, 1, 5)))  # from the disk
        return [
            describe(one)
            for one in (
                kernel.kernel_scores(few, stored),
                kernel.token_kernel(few, stored.to(few.a.device).unpack()),
                kernel.kernel_norms(many),
                contrast(many, [True, False]).a,
            )
        ]

    def projections() -> list[str]:
        bases = torch.zeros(3, 6, 2)
        plain = Projection(bases, bases, torch.zeros(12, 4), torch.zeros(4)).to(torch.device(GPU))
        turned = CoreProjection(torch.zeros(108, 4), torch.zeros(4)).to(torch.device(GPU))
        norms = torch.zeros(2, device=GPU)
        return [
            describe(one)
            for one in (plain.apply(few, norms), turned.apply(few, norms), cores.sketches(few, turned))
        ]

    def curvature() -> list[str]:
        there, names, found = on_gpu(language, torch.bfloat16), block_linears(language), []

        def visit(_name: str, x: Tensor, g: Tensor, mask: Tensor) -> None:
            q_a, q_s = x.new_zeros(x.shape[-1], x.shape[-1]), g.new_zeros(g.shape[-1], g.shape[-1])
            found.append(LayerFactors(q_a, q_s, q_a.new_zeros(len(q_s), len(q_a))).rotate(x, g))
            found.append(mask.float())

        LinearTaps(there).run(ROWS, visit, names=names, draw=None)
        return [describe(one) for one in found]

    yield from {
        "whiten": whiten,
        "kernels": kernels,
        "projections": projections,
        "curvature": curvature,
    }.items()


_made_on_cpu = torch.tensor


def tensor(data: object, *, device: torch.device | str | None = None, **more: object) -> Tensor:
    """`torch.tensor` without its numbers, which torch would look at on its spare device."""
    made = _made_on_cpu(data, **more)  # type: ignore[arg-type]  # options of several types
    return torch.empty(made.shape, dtype=made.dtype, device=device)


def main() -> None:
    """Run every check; one that fails says how."""
    _setup_privateuseone_for_python_backend(GPU)
    found: Found = {}
    language = micro_language()
    with (
        FakeTensorMode(),
        patch.object(signals, "_check_readable", lambda _: None),
        patch.object(torch, "tensor", tensor),
    ):
        for name, work in (*signal_checks(language), *engine_checks(language)):
            try:
                found[name] = work()
            except RuntimeError as error:
                found[name] = [str(error)[:160]]
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(
        0
    )  # torch's threads now and then abort the interpreter while it takes itself apart, after the answer
