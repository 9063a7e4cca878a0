"""From tissue to intensities: the law of each contrast, and what the scanner adds: shading, blur, noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gyri.synthetic import effects
from gyri.synthetic.effects import LOG_GAIN_SD, NOISE_SD, Site
from gyri.synthetic.grids import Floats

# intensity of pure fluid, grey and white matter, then of what the head is made of; T1w is on the scale of the template
LAWS: dict[str, dict[str, float]] = {
    "T1w": {"fluid": 0.27, "grey": 0.65, "white": 0.87, "bone": 0.08, "marrow": 0.5, "fat": 1.0, "muscle": 0.42, "skin": 0.55,
            "eye": 0.24, "air": 0.0},
    "T2w": {"fluid": 1.0, "grey": 0.6, "white": 0.42, "bone": 0.06, "marrow": 0.4, "fat": 0.7, "muscle": 0.2, "skin": 0.4,
            "eye": 0.95, "air": 0.0},
}  # fmt: skip
# how the texture that tissue does not explain enters: the T1 template's own, and weaker and reversed in T2w
DETAIL = {"T1w": 1.0, "T2w": -0.5}
# a site that makes grey matter brighter in T1w makes it darker in T2w
GREY_SIGN = {"T1w": 1.0, "T2w": -1.0}
SCALE = 1000.0


def ideal(contrast: str, tissue: Floats, detail: Floats, head: dict[str, Floats], site: Site, effect: float) -> Floats:
    """The noiseless image.

    Args:
        contrast: a key of `LAWS`.
        tissue: share of fluid, grey and white matter in each voxel, (3, X, Y, Z).
        detail: texture, (X, Y, Z).
        head: material -> share, (X, Y, Z).
        site: whose contrast it is.
        effect: multiplies what the site does.

    Returns:
        (X, Y, Z), white matter near 0.87 in T1w.
    """
    law = dict(LAWS[contrast])
    law["grey"] += GREY_SIGN[contrast] * effect * site.grey
    image = np.float32(DETAIL[contrast]) * detail
    for name, share in (*zip(("fluid", "grey", "white"), tissue, strict=True), *head.items()):
        if law[name]:
            image = image + np.float32(law[name]) * share
    return np.maximum(image, 0)


def scanned(image: Floats, spacing_mm: float, site: Site, effect: float, rng: np.random.Generator) -> NDArray[np.int16]:
    """What the scanner of a site makes of an ideal image: blur, shading, gain, then noise of a magnitude image (Rician).

    Source: Gudbjartsson & Patz 1995 (doi:10.1002/mrm.1910340618) for the noise.

    Args:
        image: (X, Y, Z).
        spacing_mm: voxel edge.
        site: the site.
        effect: multiplies what the site does; 0 makes all sites alike.
        rng: draws the shading and the noise of this scan.

    Returns:
        (X, Y, Z) int16.
    """
    from scipy.ndimage import gaussian_filter

    blur = max(0.0, effect * site.blur_mm) / (2 * np.sqrt(2 * np.log(2))) / spacing_mm
    if blur > 0:
        image = gaussian_filter(image, blur)
    log_gain = effect * site.log_gain + LOG_GAIN_SD * rng.standard_normal()
    noise = NOISE_SD * np.exp(effect * site.log_noise) * rng.standard_normal((2, *image.shape), dtype=np.float32)
    shaded = image * shading(image.shape, np.array(site.bias) * effect, rng)
    magnitude = np.sqrt((shaded + noise[0]) ** 2 + noise[1] ** 2) * np.float32(SCALE * np.exp(log_gain))
    return np.clip(np.rint(magnitude), 0, np.iinfo(np.int16).max).astype(np.int16)


def shading(shape: tuple[int, ...], slopes: NDArray[np.float64], rng: np.random.Generator) -> Floats:
    """A smooth multiplicative field around 1: the exponential of low cosines.

    Args:
        shape: (X, Y, Z).
        slopes: the scanner's own change from one end to the other along each axis, halved, as a fraction.
        rng: draws what differs from scan to scan.
    """
    terms = effects.BIAS_SD * rng.standard_normal((3, 3, 3))
    terms[0, 0, 0] = 0
    waves = [np.cos(np.pi * np.arange(3)[:, None] * (np.arange(size) + 0.5) / size) for size in shape]
    # the first cosine falls from one end to the other
    for axis, at in enumerate(((1, 0, 0), (0, 1, 0), (0, 0, 1))):
        terms[at] -= slopes[axis]
    partial = np.einsum("abc,cz->abz", terms, waves[2])
    partial = np.einsum("abz,by->ayz", partial, waves[1])
    return np.exp(np.einsum("ayz,ax->xyz", partial, waves[0])).astype(np.float32)
