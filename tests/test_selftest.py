"""The self-test of a device: right numbers pass, wrong ones stop the job and are named, whatever is wrong about them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gyri import environment, selftest
from gyri.device import choose_precision
from gyri.errors import DeviceError, ProvenanceError
from gyri.selftest import CASES, OPERATIONS, TOLERANCES, Case, before_start, errors, self_test

CPU = torch.device("cpu")
THIN = Case((2, 2, 2))  # thinner than the kernel: oneDNN's native bfloat16 gives wrong weight gradients there (torch 2.13.0)
native = choose_precision("auto", CPU) == "bfloat16"
CONVOLVE = functional.conv3d


def test_this_processor_passes_in_seconds() -> None:
    self_test(CPU)  # once to warm up
    began = time.process_time()
    self_test(CPU)
    assert time.process_time() - began < 5


def test_tolerances_leave_room_for_rounding_and_none_for_wrong_numbers() -> None:
    for precision, tolerance in TOLERANCES.items():
        found = [error for number, case in enumerate(CASES) for error in errors(CPU, precision, case, number)]
        assert 0 < max(found) < tolerance / 2 and tolerance < 0.1


@pytest.mark.skipif(not native, reason="this processor does not compute in bfloat16")
def test_the_known_bug_of_processors_is_found() -> None:
    """The networks go around it (`settle_precision`), and the cases of the self-test are larger; here it is looked for."""
    self_test(CPU, ("float32",), (THIN,))
    with pytest.raises(DeviceError, match="gradient of the weight in bfloat16"):
        self_test(CPU, ("bfloat16",), (THIN,))


class WrongGradient(torch.autograd.Function):
    """The identity, with a gradient that is wrong in one place."""

    @staticmethod
    def forward(context: Any, tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        gradient[(0,) * gradient.ndim] += gradient.abs().max() / 2
        return gradient


def wrong_output(images: Tensor, weight: Tensor, bias: Tensor, *rest: Any) -> Tensor:
    return CONVOLVE(images, weight, bias, *rest) * 1.1


def no_number(images: Tensor, weight: Tensor, bias: Tensor, *rest: Any) -> Tensor:
    found = CONVOLVE(images, weight, bias, *rest)
    return found if found.dtype == torch.float64 else found * torch.nan


def wrong_input(images: Tensor, weight: Tensor, bias: Tensor, *rest: Any) -> Tensor:
    return CONVOLVE(WrongGradient.apply(images), weight, bias, *rest)


def wrong_weight(images: Tensor, weight: Tensor, bias: Tensor, *rest: Any) -> Tensor:
    return CONVOLVE(images, WrongGradient.apply(weight), bias, *rest)


def wrong_bias(images: Tensor, weight: Tensor, bias: Tensor, *rest: Any) -> Tensor:
    return CONVOLVE(images, weight, WrongGradient.apply(bias), *rest)


BROKEN = {
    "output": wrong_output,
    "gradient of the input": wrong_input,
    "gradient of the weight": wrong_weight,
    "gradient of the bias": wrong_bias,
}


@pytest.mark.parametrize("precision", TOLERANCES)
@pytest.mark.parametrize(("operation", "convolve"), BROKEN.items())
def test_each_broken_operation_is_found_and_named(
    monkeypatch: pytest.MonkeyPatch, precision: str, operation: str, convolve: Callable[..., Tensor]
) -> None:
    kind = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]

    def sometimes(images: Tensor, *rest: Any) -> Tensor:
        return (convolve if images.dtype == kind else CONVOLVE)(images, *rest)

    monkeypatch.setattr(functional, "conv3d", sometimes)
    case = Case((5, 4, 6), stride=2)
    with pytest.raises(DeviceError) as caught:
        self_test(CPU, tuple(TOLERANCES), (case,))
    text = str(caught.value)
    assert f"{operation} in {precision}: conv3d, 16 to 32 channels, 5 x 4 x 6 voxels, kernel 3, stride 2" in text
    assert f"torch {torch.__version__}" in text and "remedy" in text
    named = {problem.where.split(": ")[1] for problem in caught.value.problems}
    assert all(item.endswith(precision) for item in named)


def test_what_is_no_number_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functional, "conv3d", no_number)
    with pytest.raises(DeviceError, match="an error of nan"):
        self_test(CPU, ("float32",), (Case((4, 4, 4)),))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A machine that seems to have a GPU; gives what was done at the start of a job."""
    done: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "made up")
    monkeypatch.setattr(selftest, "self_test", lambda device: done.append(f"self-test on {device.type}"))
    monkeypatch.setattr(selftest, "check_versions", lambda mode: done.append(f"versions {mode}") or "as locked")
    return done


def test_a_gpu_job_begins_with_versions_and_the_self_test(gpu: list[str], capsys: Any) -> None:
    before_start("warn")
    assert gpu == ["versions warn", "self-test on cuda"]
    assert "as locked" in capsys.readouterr().err


def test_without_gpu_and_image_a_job_begins_at_once(monkeypatch: pytest.MonkeyPatch, gpu: list[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("GYRI_IMAGE", raising=False)
    before_start("strict")
    assert gpu == []
    monkeypatch.setenv("GYRI_IMAGE", "torch")
    before_start("strict")
    assert gpu == ["versions strict"]


def test_other_versions_than_locked_stop_the_job_before_the_test(monkeypatch: pytest.MonkeyPatch, gpu: list[str]) -> None:
    monkeypatch.setattr(selftest, "check_versions", environment.check_versions)
    monkeypatch.setattr(environment, "expected_versions", lambda: {"torch": "0.0.1", "cudnn": "9.99.0"})
    with pytest.raises(ProvenanceError, match=r"version of torch(.|\n)*0\.0\.1"):
        before_start("strict")
    assert gpu == []
    before_start("warn")
    assert gpu == ["self-test on cuda"]


def test_every_operation_has_a_case_that_breaks_it() -> None:
    assert set(BROKEN) == set(OPERATIONS)
