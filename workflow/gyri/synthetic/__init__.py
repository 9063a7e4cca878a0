"""The embedded default: a cohort made from the MNI152 templates inside nilearn, written as a BIDS dataset.

Every participant is a smooth invertible deformation of real anatomy with known causes; docs/synthetic.md has the numbers.
"""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gyri import __version__
from gyri.config.datasets import ReadSettings, SyntheticDataset
from gyri.errors import ConfigError, Problem
from gyri.io import sha256_file
from gyri.layout import Layout
from gyri.progress import track
from gyri.synthetic.anatomy import traits
from gyri.synthetic.bids_out import write_rows, write_scan, write_tables
from gyri.synthetic.people import Person, people
from gyri.synthetic.scan import make_scan
from gyri.synthetic.templates import Template, load_template


def run(settings: ReadSettings, layout: Layout, dataset: str, threads: int) -> dict[str, Any]:
    """Make the cohort.

    Args:
        settings: its `source` must be a synthetic dataset.
        layout: where results lie.
        dataset: name of the dataset.
        threads: scans made at the same time; they do not change a byte.

    Returns:
        Facts for the provenance.

    Raises:
        ConfigError: the dataset is of another format.
    """
    source = settings.source
    if not isinstance(source, SyntheticDataset):
        remedy = "leave this stage out: only the format `synthetic` makes its own images"
        raise ConfigError(Problem(f"datasets.{dataset}.format", source.format, "synthetic", remedy))
    manifest = layout.dataset(dataset, "synthetic.tsv")
    manifest.unlink(missing_ok=True)
    persons = people(source)
    final = layout.dataset(dataset, "bids")
    final.parent.mkdir(parents=True, exist_ok=True)
    # made beside its place and moved there whole: files of an earlier cohort cannot stay behind
    work = final.with_name(".partial-bids")
    shutil.rmtree(work, ignore_errors=True)
    try:
        write_cohort(work, persons, source, threads)
        if final.exists():
            shutil.rmtree(final)
        work.rename(final)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    files = sorted(path for path in final.rglob("*") if path.is_file())
    rows = [(path.relative_to(final).as_posix(), path.stat().st_size, sha256_file(path)) for path in files]
    write_rows(manifest, ["path", "bytes", "sha256"], rows)
    return {
        "participants": len(persons),
        "groups": len({person.family for person in persons}),
        "sessions": sum(len(person.visits) for person in persons),
        "files": len(files),
    }


def write_cohort(root: Path, persons: list[Person], settings: SyntheticDataset, threads: int) -> None:
    """Write tables, images and labels of all persons below `root`."""
    write_tables(root, persons, settings, __version__)
    template = load_template(settings.spacing_mm)
    with ThreadPoolExecutor(threads) as pool:
        jobs = [pool.submit(_write_person, root, person, template, settings) for person in persons]
        try:
            for job in track(jobs, "synthetic cohort", len(jobs)):
                job.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _write_person(root: Path, person: Person, template: Template, settings: SyntheticDataset) -> None:
    born = traits(person, settings)
    for visit in person.visits:
        write_scan(root, person, visit, make_scan(person, born, visit, template, settings), settings.spacing_mm)
