"""A self-test of a few seconds at the start of each GPU job: convolutions and their gradients against a reference in double precision.

Released versions of cuDNN have returned wrong numbers for convolutions in three dimensions, without any message.
Source: https://github.com/pytorch/pytorch/issues/163539 (bfloat16, cuDNN 9.8 to 9.14); https://github.com/pytorch/pytorch/issues/150700
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gyri.environment import check_versions, found_versions
from gyri.errors import DeviceError, Problem
from gyri.progress import log
from gyri.warned import note

if TYPE_CHECKING:
    import torch

OPERATIONS = ("output", "gradient of the input", "gradient of the weight", "gradient of the bias")


@dataclass(frozen=True)
class Case:
    """One convolution.

    Args:
        shape: (X, Y, Z) of its input, voxels.
        channels: before and after.
        kernel: edge, voxels.
        stride: steps between outputs.
        dilation: steps between the taps of the kernel.
        transposed: whether it enlarges.
        batch: images.
    """

    shape: tuple[int, int, int]
    channels: tuple[int, int] = (16, 32)
    kernel: int = 3
    stride: int = 1
    dilation: int = 1
    transposed: bool = False
    batch: int = 2

    @property
    def text(self) -> str:
        """In words."""
        kind = "conv_transpose3d" if self.transposed else "conv3d"
        size, channels = " x ".join(map(str, self.shape)), " to ".join(map(str, self.channels))
        return f"{kind}, {channels} channels, {size} voxels, kernel {self.kernel}, stride {self.stride}, dilation {self.dilation}"


CASES = (
    Case((16, 16, 16), (1, 16)),  # the first layer of a network
    Case((13, 15, 11)),  # odd edges
    Case((14, 12, 10), (32, 32)),
    Case((15, 13, 11), stride=2),
    Case((12, 14, 10), dilation=2),
    Case((10, 9, 7), (16, 5), kernel=1),
    Case((6, 7, 5), (32, 16), kernel=2, stride=2, transposed=True),
)
# Relative to the largest value, against double precision on the same, already rounded numbers; so only sums and results are rounded.
# float32: sums of up to 1e4 products err by 1e-6 (measured on a processor); TF32, which `deterministic: fast` allows, keeps 11 bits: 5e-4.
# bfloat16: a result keeps 8 bits, 4e-3, and partial sums may be rounded too: 1.4e-2 measured. Wrong kernels err by 0.1 to any size.
TOLERANCES = {"float32": 2e-3, "bfloat16": 4e-2}


def before_start(versions: Literal["strict", "warn"]) -> None:
    """What every job that computes with torch does first: compare versions in an image or on a GPU, and test the GPU.

    Args:
        versions: what a difference of versions does.

    Raises:
        ProvenanceError: other versions than the locked ones, and `versions` is strict.
        DeviceError: the GPU computes wrong numbers.
    """
    import torch

    cuda = torch.cuda.is_available()
    if cuda or os.environ.get("GYRI_IMAGE"):
        told = check_versions(versions)
        log(told)
        if told.startswith("WARNING"):
            note(told)
    if cuda:
        began = time.monotonic()
        self_test(torch.device("cuda"))
        log(f"self-test of {torch.cuda.get_device_name()} passed ({time.monotonic() - began:.1f} s)")


def self_test(device: torch.device, precisions: Sequence[str] = tuple(TOLERANCES), cases: Sequence[Case] = CASES) -> None:
    """Compare convolutions on a device with double precision on the processor.

    Args:
        device: which computes.
        precisions: float32, bfloat16.
        cases: what is computed.

    Raises:
        DeviceError: values that are wrong or no numbers.
    """
    problems = []
    for number, case in enumerate(cases):
        for precision in precisions:
            for operation, error in zip(OPERATIONS, errors(device, precision, case, number), strict=True):
                if not error <= TOLERANCES[precision]:  # also where it is no number
                    problems.append(_problem(device, precision, case, operation, error))
    if problems:
        raise DeviceError(problems)


def errors(device: torch.device, precision: str, case: Case, seed: int) -> list[float]:
    """Largest errors of one convolution, relative to the largest right value, in the order of `OPERATIONS`."""
    import torch

    kind = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
    draws = torch.Generator().manual_seed(seed)
    before, after = case.channels
    weights = (before, after) if case.transposed else (after, before)
    sizes = ((case.batch, before, *case.shape), (*weights, *[case.kernel] * 3), (after,))
    rounded = [torch.randn(size, generator=draws).to(kind) for size in sizes]
    exact = [tensor.double().requires_grad_() for tensor in rounded]
    wanted = _convolve(case, exact)
    direction = torch.randn(wanted.shape, generator=draws).to(kind)
    right = [wanted.detach(), *torch.autograd.grad(wanted, exact, direction.double())]
    layout = torch.channels_last_3d
    moved = [
        (tensor.to(device, memory_format=layout) if tensor.ndim == 5 else tensor.to(device)).requires_grad_() for tensor in rounded
    ]
    output = _convolve(case, moved)
    found = [output, *torch.autograd.grad(output, moved, direction.to(device, memory_format=layout))]
    return [
        float((one.detach().cpu().double() - other).abs().max() / other.abs().max())
        for one, other in zip(found, right, strict=True)
    ]


def _convolve(case: Case, parts: list[torch.Tensor]) -> torch.Tensor:
    from torch.nn import functional

    images, weight, bias = parts
    if case.transposed:
        return functional.conv_transpose3d(images, weight, bias, case.stride)
    padding = case.dilation * (case.kernel // 2)
    return functional.conv3d(images, weight, bias, case.stride, padding, case.dilation)


def _problem(device: torch.device, precision: str, case: Case, operation: str, error: float) -> Problem:
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "processor"
    versions = ", ".join(f"{key} {value}" for key, value in found_versions().items())
    where = f"self-test of {name}: {operation} in {precision}: {case.text}"
    got = f"an error of {error:.2g} of the largest value, with {versions}"
    remedy = "take precision: float32" if precision == "bfloat16" else "run on another GPU"
    remedy += ", or another version of torch and cuDNN; if only this node fails, tell its administrators"
    return Problem(where, got, f"at most {TOLERANCES[precision]:.0e}", remedy)
