"""One visit: images in each contrast and the label maps that belong to them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gyri.config.datasets import SyntheticDataset
from gyri.seeds import generator
from gyri.synthetic.anatomy import Traits, draw_pose, in_template, rates, velocity
from gyri.synthetic.contrast import ideal, scanned
from gyri.synthetic.effects import SITES
from gyri.synthetic.fields import FIELD_GRID
from gyri.synthetic.grids import Floats, image_grid, sample
from gyri.synthetic.head import face_from, paint_head
from gyri.synthetic.people import Person, Visit
from gyri.synthetic.templates import Patch, Template

TISSUES = {1: "cerebrospinal fluid", 2: "grey matter", 3: "white matter"}


@dataclass(frozen=True)
class Scan:
    """What one visit gives; all on `image_grid(spacing)`.

    Args:
        images: contrast -> (X, Y, Z) int16.
        tissue: values of `TISSUES`, 0 outside of the skull's cavity, (X, Y, Z).
        region: values of `REGIONS`, (X, Y, Z).
        mask: 1 in the cavity of the skull, (X, Y, Z).
        shares: share of fluid, grey and white matter in each voxel, (3, X, Y, Z), from which the labels come.
    """

    images: dict[str, NDArray[np.int16]]
    tissue: NDArray[np.uint8]
    region: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    shares: Floats


def make_scan(person: Person, born: Traits, visit: Visit, template: Template, settings: SyntheticDataset) -> Scan:
    """Scan a person.

    Args:
        person: who.
        born: the person's traits.
        visit: when.
        template: the shared anatomy.
        settings: spacing, contrasts, effects, seed.
    """
    keys = ("synthetic", settings.seed, "scan", person.label, visit.label)
    field = velocity(born, rates(born, person.atrophy, visit.age, settings), template.causes)
    points = image_grid(settings.spacing_mm).points()
    places = in_template(points, field, born.log_scale, draw_pose(generator(*keys, "pose")))
    shares = np.stack([sample(part, template.grid, places) for part in template.tissue])
    detail = sample(template.detail, template.grid, places)
    head: dict[str, Floats] = {}
    if settings.head:
        depth = sample(template.depth, FIELD_GRID, places, "nearest")
        head = paint_head(places, depth, face_from(born.face), settings.spacing_mm)
        # where the brain is, there is no head: shares of a voxel never sum to more than one
        room = np.clip(1 - shares.sum(axis=0), 0, 1)
        total = sum(head.values())
        head = {name: part * np.minimum(1, room / np.maximum(total, 1e-6)) for name, part in head.items()}
    site = SITES[person.site]
    images: dict[str, NDArray[np.int16]] = {}
    for contrast in settings.contrasts:
        image = ideal(contrast, shares, detail, head, site, settings.site_effect)
        images[contrast] = scanned(image, settings.spacing_mm, site, settings.site_effect, generator(*keys, contrast))
    nothing = 1 - shares.sum(axis=0)
    tissue = np.concatenate([nothing[None], shares]).argmax(axis=0).astype(np.uint8)
    mask = (nothing < 0.5).astype(np.uint8)
    return Scan(images, tissue, label_regions(places, template.patches), mask, shares)


def label_regions(places: Floats, patches: list[Patch]) -> NDArray[np.uint8]:
    """Read the probability of each region at the given places; the largest names the voxel.

    Args:
        places: (3, X, Y, Z) in mm of the template.
        patches: the regions, and what has no region.

    Returns:
        Values of `REGIONS`, (X, Y, Z).
    """
    flat = places.reshape(3, -1)
    best = np.zeros(flat.shape[1], np.float32)
    total = np.zeros_like(best)
    found = np.zeros(flat.shape[1], np.uint8)
    for patch in patches:
        index = patch.grid.indices(flat)
        size = np.array(patch.grid.shape, np.float32)[:, None]
        near = np.flatnonzero(np.all((index > -1) & (index < size), axis=0))
        share = sample(patch.map, patch.grid, flat[:, near])
        total[near] += share
        ahead = share > best[near]
        best[near[ahead]] = share[ahead]
        found[near[ahead]] = patch.label
    found[1 - total > best] = 0
    return found.reshape(places.shape[1:])
