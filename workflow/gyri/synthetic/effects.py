"""The generating effect sizes: every number that decides how strong a cause is and how much people differ otherwise.

They were chosen so that a linear model finds the task neither trivial nor impossible (benchmarks/synthetic_difficulty.py);
docs/synthetic.md repeats them with what they amount to in measured volumes. Volumes change by exp(rate), to first order.
"""

from __future__ import annotations

from dataclasses import dataclass

# Age. The templates are an average of young adults, so nothing has happened yet at this age.
YOUNG = 25.0
AGE_RANGE = (45.0, 85.0)
VENTRICLES_PER_DECADE = 0.2
CORTEX_PER_DECADE = -0.035

# Diagnosis: hippocampus, amygdala and the cortex around them shrink, fluid beside them grows.
MEDIAL_TEMPORAL_IN_PATIENTS = -0.75
# Fraction of the patients whose brain shows nothing of it: what no model can see.
WITHOUT_ATROPHY = 0.25

# Sex: half the difference of the logarithm of the head's linear size; added for M, subtracted for F.
SEX_HALF_LOG_SIZE = 0.008

# What people differ in for no known cause (standard deviations).
LOG_SIZE_SD = 0.006
LOG_AXIS_SD = 0.004
VENTRICLES_SD = 0.2
CORTEX_SD = 0.03
MEDIAL_TEMPORAL_SD = 0.12
# smooth random displacement: correlation length (sigma of the kernel) in mm -> standard deviation along each axis in mm
RANDOM_SHAPE = {24.0: 0.4, 9.0: 0.6}
# share of all of the above that a twin pair has in common (variance)
TWIN_CORRELATION = 0.9

# How the head lies in the scanner at each visit (standard deviations).
POSE_DEGREES = 0.3
POSE_MM = 0.3


@dataclass(frozen=True)
class Site:
    """How a scanner differs from the average one; `site_effect` multiplies every number.

    Args:
        log_gain: logarithm of the overall intensity.
        grey: added to the intensity of grey matter relative to white matter (which is 0.87).
        log_noise: logarithm of the noise.
        blur_mm: full width at half maximum of additional blur, mm.
        bias: left-right, back-front and bottom-top slope of the scanner's own shading, relative to the mean.
    """

    log_gain: float
    grey: float
    log_noise: float
    blur_mm: float
    bias: tuple[float, float, float]


SITES = (
    Site(-0.2, 0.02, 0.3, 0.0, (0.0, 0.03, 0.0)),
    Site(0.3, -0.02, -0.3, 3.0, (0.03, 0.0, -0.03)),
    Site(0.0, 0.04, 0.1, 2.0, (-0.05, -0.05, 0.0)),
    Site(-0.4, -0.02, 0.5, 3.0, (0.0, 0.0, 0.08)),
    Site(0.5, 0.0, -0.1, 5.0, (0.03, 0.05, 0.05)),
)
# shading that differs from scan to scan (standard deviation of each cosine term), and noise relative to white matter
BIAS_SD = 0.01
NOISE_SD = 0.025
LOG_GAIN_SD = 0.08
