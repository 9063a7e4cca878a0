"""Metrics, one module per task.

Each module declares its metrics in a literal `METRICS`: name -> how it is computed and read. The function of a metric has the
metric's name. Two kinds:

- `case`: the function gives one value per image (NaN where the image does not enter); the metric is their mean.
- `set`: the function gives one value for a set of images, for many weightings of these images at once: weights (R, n) -> values
  (R,). A weight of 2 counts as the same image twice, so one function serves the value itself (all weights 1), the bootstrap and the
  jackknife.

Keys of a declaration: `kind`; `range` (values that cannot be left, None where there is no bound); `better` ("higher", "lower",
"zero", "one"); `unit` ("" none, "target" that of the target, or the unit itself); `undefined` (when it has no value, in words); and where
they apply `ranking` (True: only the order of scores counts, so scores of different models must not be pooled), `studentized` (True:
a mean of continuous values, whose interval is studentized), `per_class` (True: also for each class against the rest), `enters`
("positives" or "negatives" where only these images count), `chance` (True: compared with exchanged labels), `operating_point` and
`corrected` (decisions or values are made with what was fitted on validation).
"""

HEADLINE = {"segmentation": "dice", "classification": "auroc", "regression": "mae"}
"""The metric that models are compared by."""
SUBGROUPS = {
    "segmentation": ("dice", "hd95"),
    "classification": ("auroc", "balanced_accuracy", "accuracy"),
    "regression": ("mae", "bias"),
}
"""Metrics that are given for every subgroup."""
