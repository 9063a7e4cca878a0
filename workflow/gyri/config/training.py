"""Settings of training: the loop, the augmentation, the input."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from gyri.config.base import NAME, Settings
from gyri.types import Task

Fraction = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Augmentation(Settings):
    """Random changes drawn per batch on the device; 0 switches a change off."""

    probability: Fraction = 0.5
    """Chance that a change is applied to an image, for each kind of change."""
    rotation_deg: NotNegative = 10.0
    """Largest rotation about each axis, in degrees."""
    scale: NotNegative = 0.1
    """Largest relative change of size (0.1: 0.9 to 1.1)."""
    translation: NotNegative = 0.05
    """Largest shift, as a fraction of the image edge."""
    elastic: NotNegative = 0.0
    """Standard deviation of the coarse displacement field, as a fraction of the image edge."""
    elastic_grid: Annotated[int, Field(ge=3)] = 5
    """Nodes per axis of the coarse displacement field."""
    mirror: list[Literal["x", "y", "z"]] = []
    """Axes along which an image may be mirrored (x swaps left and right)."""
    gamma: NotNegative = 0.0
    """Largest logarithm of the contrast exponent."""
    intensity_scale: NotNegative = 0.1
    """Largest relative change of contrast."""
    intensity_shift: NotNegative = 0.1
    """Largest shift of intensity, in standard deviations."""
    noise: NotNegative = 0.05
    """Largest standard deviation of added Gaussian noise, in standard deviations of the image."""


class Training(Settings):
    """Settings of the training loop."""

    epochs: Count = 30
    """Passes over the training images."""
    batch_size: Count = 4
    """Images per step."""
    micro_batch: Count | None = None
    """Images computed at once; a step adds their gradients up. None: as many as fit, the whole batch if it does."""
    optimizer: Annotated[str, Field(pattern=NAME)] = "adamw"
    """Optimizer by name."""
    learning_rate: Positive = 1e-3
    """Largest learning rate."""
    weight_decay: NotNegative = 1e-2
    """Decoupled weight decay."""
    schedule: Literal["one_cycle", "cosine", "constant"] = "one_cycle"
    """Learning rate over the steps."""
    loss: Annotated[str, Field(pattern=NAME)] | None = None
    """Loss by name; none takes the task's own (dice_cross_entropy, cross_entropy, mean_squared_error)."""
    class_weights: Literal["none", "balanced"] = "none"
    """Weigh classes by their inverse frequency in the training participants (classification)."""
    gradient_clip: Positive | None = 5.0
    """Largest norm of the gradient."""
    weight_average: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay per step of an exponential moving average of the weights, which is then what is evaluated; 0 switches it off."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 autocast where the processor computes in it natively, else float32."""
    patience: Count | None = None
    """Epochs without a better validation loss before training stops; none trains to the end."""
    validate_every: Count = 1
    """Epochs between validations."""
    deterministic: Literal["strict", "fast"] = "strict"
    """strict: same bytes on the same kind of device; fast: lets the libraries choose."""
    checkpoint_seconds: Positive = 60.0
    """Longest time between two checkpoints, in seconds."""


class Input(Settings):
    """What a network is shown of an image."""

    mode: Literal["image"] = "image"
    """image: the whole preprocessed volume (a plane where the images are 2D)."""


class Architecture(Settings):
    """One model of an experiment: a network or a baseline, with its own settings."""

    network: Annotated[str, Field(pattern=NAME)] | None = None
    """Name of the network or baseline; the model's own name where none is given."""
    arguments: dict[str, Any] = {}
    """Arguments of the network (see `python -m gyri models`)."""
    input: Input = Input()
    seeds: Count | None = None
    """Number of seeds; the experiment's where none is given."""
    training: dict[str, Any] = {}
    """Training settings that differ from the experiment's."""
    augmentation: dict[str, Any] | Literal["none"] = {}
    """Augmentation settings that differ from the experiment's, or `none`."""


class TrainSettings(Settings):
    """What the stage `train` is told of one model."""

    task: Task
    target: str
    """Column of the cohort: a target column, or the label image column (`label`, `label_<name>`) for segmentation."""
    classes: list[str] | None
    network: str
    arguments: dict[str, Any]
    input: Input
    training: Training
    augmentation: Augmentation | None
    seed: int
    """The configuration's seed; fold, model and seed index are added to it for every purpose."""
    threads: int


class PredictSettings(Settings):
    """What the stage `predict` is told."""

    network: str
    batch_size: int
    mirror: list[Literal["x", "y", "z"]]
    threads: int
