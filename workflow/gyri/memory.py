"""Out of memory on the accelerator: fewer images at once, until they fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from gyri.errors import DataError, Problem
from gyri.progress import log

Result = TypeVar("Result")


class Fitting:
    """Runs a function over images, as many at once as fit; what did not fit once is not tried again.

    Only for functions that treat every image by itself, as networks do outside of training.

    Args:
        title: what is done, for messages.
    """

    def __init__(self, title: str):
        self.title = title
        self.most: int | None = None

    def __call__(self, function: Callable[[int, int], Result], count: int, size: int) -> list[Result]:
        """Go through the images.

        Args:
            function: takes the first image and the one after the last.
            count: number of images.
            size: images at once, if they fit.

        Returns:
            The results, in order.

        Raises:
            DataError: not even a single image fits.
        """
        import torch

        found: list[Result] = []
        start = 0
        while start < count:
            stop = min(start + min(self.most or size, size), count)
            try:
                found.append(function(start, stop))
            except torch.OutOfMemoryError as error:
                reason = first_line(error)
            else:
                start = stop
                continue
            # after the except clause, whose traceback keeps what was computed so far
            self.most = halved(stop - start, self.title, reason)
        return found


def halved(images: int, title: str, reason: str) -> int:
    """Half as many images, after the memory that the failed attempt held was given back.

    Args:
        images: so many did not fit.
        title: what was done, for messages.
        reason: what torch said.

    Raises:
        DataError: it was a single image.
    """
    import torch

    torch.cuda.empty_cache()  # does nothing where CUDA was not started
    if images == 1:
        remedy = "lower the width or the levels of the network, take a smaller shape (or a larger spacing_mm), or a larger GPU; "
        remedy += "and see that nothing else uses this one"
        raise DataError(Problem(title, f"one image alone does not fit: {reason}", "memory for at least one image", remedy))
    log(f"{title}: {images} images do not fit into the memory of the device, {images // 2} at once from now on ({reason})")
    return images // 2


def first_line(error: Exception) -> str:
    """The first sentences of torch's message, without its advice on settings."""
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0].split(" If reserved")[0][:300]
