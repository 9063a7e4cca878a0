"""Settings of a dataset: where its images are, who must not be split, and how each stage up to normalization treats it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gyri.config.base import Settings

Positive = Annotated[float, Field(gt=0)]
Shape = tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]]


class Audit(Settings):
    """Settings of the audit."""

    on_exclude: Literal["stop", "continue"] = "stop"
    """What to do when an image must be excluded: stop before anything is computed, or go on without it."""
    acknowledge: list[Literal["order_similarity", "same_person", "near_duplicates"]] = []
    """Cohort-level findings that were looked at and do not stop the run any more; the report still shows them."""
    spacing_mm: tuple[Positive, Positive] = (0.2, 10.0)
    """Smallest and largest voxel spacing that is plausible, in mm (not asked of PNG and TIFF)."""
    permutations: Annotated[int, Field(ge=99)] = 999
    """Permutations of the order test."""
    seed: int = 0
    """Seed of the order test."""


class Split(Settings):
    """Settings of the split, beyond `folds` and `run_folds`."""

    stratify: list[str] = []
    """Columns to balance over the folds: categorical ones as they are, continuous ones in bins; `site` may be one."""
    bins: Annotated[int, Field(ge=2)] = 4
    """Number of quantile bins of a continuous column."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Fraction of the groups outside the test fold that serve as validation."""
    locked: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Fraction of the groups that are locked away from every fold."""
    file: str | None = None
    """A predefined split: TSV with participant_id, fold, role (path relative to the configuration file's folder)."""
    leave_one_site_out: bool = False
    """Each site in turn is the test fold; `folds` must then be the number of sites."""
    seed: int = 0
    """Seed of the split."""


class Preprocess(Settings):
    """Settings of what is done to each image by itself, beyond `shape`."""

    spacing_mm: Positive | None = None
    """Resample to this isotropic spacing in mm; none keeps the grid."""
    crop: Literal["center", "foreground", "mask"] = "center"
    """What is centred before cropping or padding to `shape`: the grid, the foreground, or the mask."""
    label_interpolation: Literal["nearest", "labelwise"] = "nearest"
    """Nearest neighbour, or linear interpolation of each label and the largest wins."""
    scaling: Literal["robust", "zscore", "none"] = "robust"
    """Per-image intensity scaling. robust: median to 0, 5th-95th percentile range to 2, cut at +-5; zscore: mean and standard deviation."""
    scaling_region: Literal["image", "foreground", "mask"] = "image"
    """Voxels over which the scaling is computed."""
    n4: bool = False
    """N4 bias field correction (SimpleITK)."""
    registration: Literal["none", "mni152"] = "none"
    """Affine registration to the MNI152 T1 template (SimpleITK); predictions are carried back by the inverse."""
    apply_mask: bool = False
    """Set voxels outside the mask to zero."""


class Normalize(Settings):
    """Settings of what is fitted on the training participants of each fold."""

    method: Literal["global", "voxel", "pca", "zca", "none"] = "global"
    """global: one mean and standard deviation per channel; voxel: one per voxel; pca, zca: whitening of patches."""
    patch: Annotated[int, Field(ge=2)] = 5
    """Edge of the whitened patches in voxels (pca and zca)."""
    components: Annotated[int, Field(ge=1)] | None = None
    """Components kept by pca; all when none."""
    samples: Annotated[int, Field(ge=100)] = 20000
    """Patches drawn to fit pca and zca."""
    epsilon: Positive = 1e-5
    """Added to variances before dividing."""
    seed: int = 0
    """Seed of the drawn patches."""


class Dataset(Settings):
    """What every dataset has, whatever its format."""

    group: str | None = None
    """What must not be split: a column, or integer arithmetic on `number`, the first digits of the image id. Default: the participant."""
    site: str | None = None
    """Column that says where an image was acquired; `site` where it exists."""
    shape: Shape | None = None
    """Grid (X, Y, Z) in voxels that every image is cropped or padded to; none takes the largest image, rounded up to a multiple of 8."""
    folds: Annotated[int, Field(ge=2, le=100)] = 5
    """Number of outer folds."""
    run_folds: list[Annotated[int, Field(ge=0)]] | None = None
    """Folds to run now (a pilot); none runs all."""
    audit: Audit = Audit()
    split: Split = Split()
    preprocess: Preprocess = Preprocess()
    normalize: Normalize = Normalize()


class SyntheticDataset(Dataset):
    """A cohort made from the MNI152 templates inside nilearn; see docs/synthetic.md for the effect sizes."""

    format: Literal["synthetic"]
    participants: Annotated[int, Field(ge=4)] = 60
    """Number of persons (a twin pair counts as two)."""
    spacing_mm: Positive = 6.0
    """Voxel edge in mm."""
    seed: int = 1
    """Seed of the cohort."""
    contrasts: list[Literal["T1w", "T2w"]] = ["T1w"]
    """Contrasts to make; each is one channel."""
    age_effect: float = 1.0
    """Multiplies the effect of age; 0 removes it."""
    diagnosis_effect: float = 1.0
    """Multiplies the effect of diagnosis; 0 removes it."""
    sex_effect: float = 1.0
    """Multiplies the effect of sex; 0 removes it."""
    site_effect: float = 1.0
    """Multiplies the effect of the site; 0 removes it."""
    sites: Annotated[int, Field(ge=1, le=5)] = 2
    """Number of sites."""
    multi_session: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Fraction of the participants with two or three sessions."""
    twins: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Fraction of the participants who are twins, two in a group."""
    head: bool = True
    """Draw the invented skull and face around the brain."""


class BidsDataset(Dataset):
    """A BIDS dataset, raw or derivatives; participants.tsv and sessions.tsv are joined."""

    format: Literal["bids"]
    path: str
    """Folder of the dataset. Environment variables are expanded; a relative path starts at the configuration file."""
    images: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*$")], dict[str, str]] = {"t1w": {"suffix": "T1w"}}
    """Channel name -> BIDS entities that select its file (suffix, datatype, ses, acq, run, desc, space, ...)."""
    labels: dict[str, dict[str, str]] = {}
    """Label image name -> entities that select its file (usually in derivatives/)."""
    label_values: dict[str, dict[int, str]] = {}
    """Label image name -> {value: structure name}; where a BIDS dseg.tsv lies beside the images it is read instead."""
    mask: dict[str, str] | None = None
    """Entities that select the brain mask."""
    volume: Annotated[int, Field(ge=0)] | None = None
    """Volume to take from 4D images."""


class MsdDataset(Dataset):
    """A Medical Segmentation Decathlon folder with its dataset.json."""

    format: Literal["msd"]
    path: str
    """Folder that holds dataset.json. Environment variables are expanded; a relative path starts at the configuration file."""
    table: str | None = None
    """Optional TSV or CSV with further columns, joined on image_id."""


class TableDataset(Dataset):
    """Images named in a TSV or CSV table, with whatever columns it has."""

    format: Literal["table"]
    path: str
    """The table. Image paths in it are relative to its folder."""
    images: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*$")], str] = {"image": "image"}
    """Channel name -> column with the path of its file (NIfTI 2D/3D/4D, PNG or TIFF)."""
    labels: dict[str, str] = {}
    """Label image name -> column with its path; the name `label` is the default target of segmentation."""
    label_values: dict[str, dict[int, str]] = {}
    """Label image name -> {value: structure name}."""
    mask: str | None = None
    """Column with the path of a brain mask or field-of-view mask."""
    image_id: str = "image_id"
    """Column with the identifier of the image; made from the file name where the table has none."""
    participant: str = "participant_id"
    """Column with the participant; where the table has none, each image is its own participant and the audit says so."""
    session: str = "session_id"
    """Column with the session."""
    volume: Annotated[int, Field(ge=0)] | None = None
    """Volume to take from 4D images."""
    spacing_mm: tuple[Positive, Positive] | None = None
    """Pixel size of PNG and TIFF images in mm, which they do not hold themselves."""


AnyDataset = Annotated[
    SyntheticDataset | BidsDataset | MsdDataset | TableDataset,
    Field(discriminator="format"),
]


class ReadSettings(Settings):
    """What the stage `dataset` is told."""

    source: AnyDataset
    """The dataset with only the settings that reading needs; the rest are defaults."""


class NeededTarget(Settings):
    """A target that an experiment on the dataset needs, for the audit to look at."""

    experiment: str
    task: str
    column: str
    """Column of the cohort: a target column, or the label image column for segmentation."""
    classes: list[str] | None = None


class AuditSettings(Settings):
    """What the stage `audit` is told."""

    audit: Audit
    targets: list[NeededTarget]


class SplitSettings(Settings):
    """What the stage `split` is told."""

    split: Split
    folds: int


class PreprocessSettings(Settings):
    """What the stage `preprocess` is told; kept with every model, since new scans go the same way."""

    preprocess: Preprocess
    shape: Shape | None
    volume: int | None = None
    spacing_mm: tuple[float, float] | None = None


class NormalizeSettings(Settings):
    """What the stage `normalize` is told."""

    normalize: Normalize
