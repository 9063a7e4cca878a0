"""An invented head around the brain: skull, scalp, eyes, face and neck from smooth solids, different in each person.

Nothing here is anybody's: it is there because whole heads are what scanners give, and because a face is what privacy is about.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gyri.synthetic.grids import Floats

MATERIALS = ("bone", "marrow", "fat", "muscle", "skin", "eye", "air")


@dataclass(frozen=True)
class Face:
    """A person's own measures in mm.

    Args:
        skull: thickness of the bone.
        scalp: thickness of the skin and fat over it.
        nose: length added to the nose.
        nose_width: width added to the nose.
        jaw: length added to the chin.
        cheeks: width added to the face.
        eyes: distance added between the eyes (half of it).
        ears: size added to the ears.
    """

    skull: float
    scalp: float
    nose: float
    nose_width: float
    jaw: float
    cheeks: float
    eyes: float
    ears: float


def face_from(traits: NDArray[np.float64]) -> Face:
    """Measures from standard normal traits, (8,); extremes are held back at 2.5 standard deviations."""
    mean = np.array([6.0, 5.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    spread = np.array([0.4, 0.4, 2.0, 1.0, 2.0, 1.5, 1.0, 1.0])
    return Face(*(mean + spread * np.clip(traits, -2.5, 2.5)).tolist())


class Canvas:
    """Volumes painted over each other, later ones on top.

    Args:
        points: (3, X, Y, Z) in mm of the template.
        edge: width of a solid's soft edge in mm.
    """

    def __init__(self, points: Floats, edge: float):
        self.x, self.y, self.z = np.abs(points[0]), points[1], points[2]
        self.edge = edge
        self.parts = {name: np.zeros(points.shape[1:], np.float32) for name in MATERIALS}

    def cover(self, material: str, inside: Floats) -> None:
        """Lay a material over what is there.

        Args:
            material: one of `MATERIALS`.
            inside: mm inside the solid, negative outside.
        """
        share = np.clip(0.5 + inside / self.edge, 0, 1)
        for name, part in self.parts.items():
            part *= 1 - share
            if name == material:
                part += share

    def ellipsoid(self, middle: tuple[float, float, float], radii: tuple[float, float, float]) -> Floats:
        """About how many mm a point is inside an ellipsoid (both halves at once: x is the distance from the midline)."""
        scaled = [(axis - at) / radius for axis, at, radius in zip((self.x, self.y, self.z), middle, radii, strict=True)]
        return (1 - np.sqrt(sum(part**2 for part in scaled))) * np.float32(min(radii))


def paint_head(points: Floats, depth: Floats, face: Face, spacing_mm: float) -> dict[str, Floats]:
    """Paint the head.

    Args:
        points: (3, X, Y, Z) in mm of the template.
        depth: mm inside the cavity of the skull, negative outside, (X, Y, Z).
        face: the person's measures.
        spacing_mm: voxel edge; edges are as soft as a voxel makes them.

    Returns:
        Material -> share of each voxel, (X, Y, Z); the cavity of the skull is left empty.
    """
    canvas = Canvas(points, max(spacing_mm, 2.0))
    _soft_parts(canvas, -depth, face)
    _bones(canvas, -depth, face)
    _hollows(canvas, face)
    outside = np.clip(0.5 - depth / canvas.edge, 0, 1)
    return {name: part * outside for name, part in canvas.parts.items()}


def _soft_parts(canvas: Canvas, out: Floats, face: Face) -> None:
    """Neck, cheeks, chin, ears, nose and scalp; skin lies on fat, fat on muscle."""
    neck = np.minimum(canvas.ellipsoid((0, -25, -110), (56, 60, 75)), -45 - canvas.z)
    cheeks = canvas.ellipsoid((0, 36, -58), (64 + face.cheeks, 54, 62))
    chin = canvas.ellipsoid((0, 66, -98), (32 + face.cheeks / 2, 24 + face.jaw / 2, 24 + face.jaw / 2))
    body = np.maximum(np.maximum(neck, cheeks), np.maximum(chin, face.skull + face.scalp - out))
    canvas.cover("skin", canvas.ellipsoid((83, -16, -26), (8, 14 + face.ears, 24 + face.ears)))
    canvas.cover("skin", body)
    canvas.cover("fat", body - 2)
    canvas.cover("muscle", np.maximum(np.maximum(neck, cheeks), chin) - 6)
    nose = canvas.ellipsoid((0, 88 + face.nose / 2, -50), (13 + face.nose_width, 18 + face.nose, 20))
    canvas.cover("skin", nose)


def _bones(canvas: Canvas, out: Floats, face: Face) -> None:
    """Skull with marrow in its middle, upper jaw, lower jaw, spine."""
    base = np.minimum(face.skull - out, canvas.z + 75)
    canvas.cover("bone", base)
    canvas.cover("marrow", np.minimum(base, out) - face.skull / 3)
    canvas.cover("bone", canvas.ellipsoid((0, 56, -62), (36, 24, 18)))
    lower = (0.0, 42 + face.jaw / 2, -92 - face.jaw / 3)
    arch = np.minimum(canvas.ellipsoid(lower, (48, 46, 16)), -canvas.ellipsoid(lower, (38, 34, 60)))
    canvas.cover("bone", np.minimum(arch, canvas.y - 5))
    canvas.cover("marrow", np.minimum(arch, canvas.y - 5) - 3)
    canvas.cover("marrow", canvas.ellipsoid((0, -38, -115), (20, 18, 45)))


def _hollows(canvas: Canvas, face: Face) -> None:
    """Air in nose, sinuses and throat; eyes in their fat."""
    canvas.cover("air", canvas.ellipsoid((0, 66, -54), (9, 26, 16)))
    canvas.cover("air", canvas.ellipsoid((26, 56, -60), (11, 14, 12)))
    canvas.cover("air", canvas.ellipsoid((0, 8, -85), (10, 10, 34)))
    canvas.cover("muscle", canvas.ellipsoid((0, 52, -80), (22, 26, 9)))
    eye = (32 + face.eyes / 2, 66.0, -36.0)
    canvas.cover("fat", canvas.ellipsoid((eye[0] - 2, 58.0, -36.0), (18, 20, 17)))
    canvas.cover("eye", canvas.ellipsoid(eye, (12.5, 12.5, 12.5)))
