"""Colours of overlays: even steps look evenly far apart, and the sign is told apart by everybody.

The ramps rise evenly in lightness, so they also read in grey; positive values go from red to yellow, negative ones from blue to cyan,
a pair that colour-blind readers can tell apart. Pictures carry their own dark ground, so they look alike on light and dark pages.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

STEPS = 256
LIGHTNESS = (0.45, 0.93)
POSITIVE = ((0.17, 0.12), (28.0, 100.0))
NEGATIVE = ((0.17, 0.08), (265.0, 200.0))
"""Chroma and hue in degrees at the weak and at the strong end."""


def ramp(chroma: tuple[float, float], hue: tuple[float, float]) -> NDArray[np.float64]:
    """Colours from weak to strong: (STEPS, 3) sRGB within [0, 1].

    Args:
        chroma: at both ends, in OKLab.
        hue: at both ends, in degrees.

    Source: Ottosson 2020, https://bottosson.github.io/posts/oklab/.
    """
    share = np.linspace(0, 1, STEPS)
    lightness = LIGHTNESS[0] + (LIGHTNESS[1] - LIGHTNESS[0]) * share
    strength = chroma[0] + (chroma[1] - chroma[0]) * share
    angle = np.deg2rad(hue[0] + (hue[1] - hue[0]) * share)
    a, b = strength * np.cos(angle), strength * np.sin(angle)
    cones = np.stack(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ]
    )
    to_linear = [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
    linear = np.clip(np.asarray(to_linear) @ cones**3, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055).T


RAMPS = ramp(*NEGATIVE), ramp(*POSITIVE)


def coloured(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Values within [-1, 1] as colours with opacity: weak ones let the picture show, strong ones cover it.

    Args:
        values: any shape; larger ones are cut off.

    Returns:
        The shape and 4: red, green, blue and opacity within [0, 1].
    """
    bounded = np.clip(values, -1, 1)
    steps = np.rint(np.abs(bounded) * (STEPS - 1)).astype(int)
    colours = np.where((bounded < 0)[..., None], RAMPS[0][steps], RAMPS[1][steps])
    return np.concatenate([colours, np.abs(bounded)[..., None]], axis=-1)


def overlaid(grey: NDArray[np.floating], values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """A grey picture with coloured values over it.

    Args:
        grey: (A, B) within [0, 1].
        values: (A, B) within [-1, 1]; NaN shows the picture alone.

    Returns:
        (A, B, 3).
    """
    colours = coloured(np.nan_to_num(values))
    opacity = colours[..., 3:]
    return np.rint(255 * ((1 - opacity) * grey[..., None] + opacity * colours[..., :3])).astype(np.uint8)
