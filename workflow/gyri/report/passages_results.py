"""Methods text of evaluation, tests, saliency and software."""

from __future__ import annotations

from typing import Any

from gyri.report.parts import Missing
from gyri.report.results import metric
from gyri.report.software import software
from gyri.report.source import Source
from gyri.report.told import Told, counted, first, listed, number, percent, records

CITED = {
    "auroc": "[@hanley1982]",
    "balanced_accuracy": "[@brodersen2010]",
    "brier": "[@stephenson2008]",
    "calibration_slope": "[@vancalster2019]",
    "error_slope_corrected": "[@cole2018]",
    "dice": "[@dice1945]",
    "surface_dice": "[@nikolov2021]",
    "hd95": "[@huttenlocher1993]",
}
PACKAGES = {
    "torch": "PyTorch {} [@paszke2019]",
    "numpy": "NumPy {} [@harris2020]",
    "scipy": "SciPy {} [@virtanen2020]",
    "pandas": "pandas {} [@mckinney2010]",
    "scikit-learn": "scikit-learn {} [@pedregosa2011]",
    "nibabel": "NiBabel {} [@brett2024]",
    "nilearn": "nilearn {} [@abraham2014]",
    "SimpleITK": "SimpleITK {} [@lowekamp2013]",
}
METHODS = {
    "gradient": "gradients [@simonyan2014]",
    "occlusion": "occlusion [@zeiler2014]",
    "class_activation": "gradient-weighted class activation [@selvaraju2017]",
}


def evaluation(source: Source) -> list[str]:
    """What was measured, and with which intervals."""
    told = first(source, "evaluate")
    names = _measured(source)
    cited = [f"{metric(name).label}{' ' + CITED[name] if name in CITED else ''}" for name in names]
    lines = ["All numbers are of test participants that the model in question never saw."]
    if cited:
        lines.append(f"Metrics: {'; '.join(cited)} [@maierhein2024].")
    lines.append(
        f"{percent(told('evaluation.confidence'))} intervals come from resampling whole groups, never images"
        f" ({number(told('evaluation.resamples'))} bootstrap resamples, seed {number(told('evaluation.seed'))}): BCa [@efron1987], or studentized"
        " for means over images, with corrections for few groups [@davison1997; @hesterberg2015]."
    )
    task = told("task")
    if task == "classification":
        lines.append(
            "Ranking metrics were averaged over folds, since scores of different models cannot be pooled; other metrics are of all images."
        )
        lines.append(
            f"Sensitivity is given at a specificity of {number(told('evaluation.specificity'))}, and specificity at a sensitivity of"
            f" {number(told('evaluation.sensitivity'))}, both at thresholds fitted on validation participants."
        )
        if told("classes", None):
            lines.append(f"Classes: {listed(told('classes'))}; of two the last is the positive one.")
    elif task == "regression":
        lines.append(
            "Correlations were averaged over folds; other metrics are of all images. Bias corrections were fitted on validation participants."
        )
    else:
        sizes = listed(told("evaluation.minimum_component_mm3", []), "or")
        lines.append(
            f"Surfaces within {number(told('evaluation.surface_tolerance_mm'))} mm of each other counted as the same. Post-processing (largest"
            f" component; components of at least {sizes} mm³; holes filled) was chosen on validation participants, and results are given"
            " with and without it."
        )
    return lines + _counted(source, told)


def _measured(source: Source) -> list[str]:
    try:
        table = source.metrics
    except Missing:
        return []
    rows = table[(table["fold"] == "all") & (table["role"] == "test")]
    return list(dict.fromkeys(rows["metric"]))


def _counted(source: Source, told: Told) -> list[str]:
    """What was predicted and against which models."""
    lines = [f"What was predicted: {told('target')}."]
    names = told("baselines", [])
    if names:
        lines.append(f"Models counted as baselines: {listed(names)}.")
    averages = told("ensembles", {}) or {}
    if averages:
        parts = (f"{source.label(name)} of {listed(members)}" for name, members in averages.items())
        lines.append(f"Models counted as ensembles: {'; '.join(parts)}.")
    return lines


def comparisons(source: Source) -> list[str]:
    """Tests between models, against chance, and subgroups."""
    told = first(source, "evaluate")
    lines = [
        "Models were compared in pairs on the same participants by a bootstrap over groups, and over folds by the corrected resampled t-test"
        " [@nadeau2003], each with Holm's procedure over all pairs [@holm1979]."
    ]
    if told.on("evaluation.compare_mixed"):
        lines.append("Models were compared although some were trained under other versions or kinds of device.")
    if told.on("allow_changed_batch"):
        lines.append("Models were compared although lack of memory had changed the batches of some.")
    if told("task") != "segmentation":
        lines.append(
            f"Chance is what predictions reach when labels of whole groups are exchanged within fold and site"
            f" ({number(told('evaluation.permutations'))} exchanges [@winkler2015; @phipson2010])."
        )
    else:
        lines.append(
            f"How well the site is told from predicted volumes was compared with {number(told('evaluation.permutations'))} exchanges of sites"
            " [@winkler2015; @phipson2010]."
        )
    columns = told("evaluation.subgroups", [])
    more = f" and {listed(columns)}" if columns else ""
    edges = listed(told("evaluation.age_edges", []))
    return [
        *lines,
        f"Subgroups by sex, age (bands beginning at {edges}), site and diagnosis{more}, as far as the data have them, were described, not tested.",
    ]


def saliency(source: Source) -> list[str]:
    """Maps of what networks react to.

    Raises:
        Missing: none were made.
    """
    lines = []
    for model in source.networks:
        if not records(source, "explain", model=model):
            continue
        told = first(source, "explain", model=model)
        chosen = told("saliency.methods", [])
        methods = listed(METHODS.get(name, name) for name in chosen)
        lines.append(
            f"Saliency of {model} ({told('network')}): {methods}, for {counted(told('saliency.images'), 'test image')} per fold"
            f" (folds {listed(told('folds', []))}; seed {number(told('seed'))}), beside maps of networks with random weights [@adebayo2018]."
        )
        if "occlusion" in chosen:
            lines.append(
                f"Boxes of {number(told('saliency.patch_mm'))} mm were hidden every {number(told('saliency.stride_mm'))} mm."
            )
        if "gradient" in chosen and told.on("saliency.smooth_samples"):
            count, noise = number(told("saliency.smooth_samples")), number(told("saliency.smooth_noise"))
            lines.append(f"Gradients were averaged over {count} copies with noise of {noise} of the image's range [@smilkov2017].")
    if not lines:
        raise Missing("saliency maps")
    return lines


def programs(source: Source) -> list[str]:
    """Versions, environment, machine, commit."""
    found: dict[str, set[str]] = {}
    for record in source.provenance:
        if record.get("stage") not in (None, "report", "index"):
            for name, version in (record.get("versions") or {}).items():
                found.setdefault(name, set()).add(str(version))
    if not found:
        raise Missing("versions")
    said = [words.format(" and ".join(sorted(found[name]))) for name, words in PACKAGES.items() if name in found]
    gyri, python = (" and ".join(sorted(found.get(name, {"(version not available)"}))) for name in ("gyri", "python"))
    lines = [f"Everything was computed by gyri {gyri} with Python {python}" + (f", {listed(said)}." if said else ".")]
    if any(call.startswith("snakemake") for call in _values(source, "call")):
        version = f" {' and '.join(sorted(found['snakemake']))}" if "snakemake" in found else ""
        lines.append(f"Jobs were run by Snakemake{version} [@molder2021].")
    facts = software(source)
    names = [f"{item['kind']} {item['identity']}" for item in facts["environments"]]
    if facts["containers"] in (True, "partly"):
        lines.append(f"Jobs ran in Apptainer containers [@kurtzer2017] ({listed(names)}).")
    elif names:
        lines.append(f"Jobs ran in an environment without containers ({listed(names)}).")
    commits = _values(source, "commit")
    if commits:
        lines.append(f"Code: commit {listed(commits)}.")
    return [*lines, f"Processors: {listed(_values(source, 'host_kind') or ['not available'])}."]


def _values(source: Source, name: str) -> list[Any]:
    """Different values of a field over all jobs, without what was not recorded."""
    found = {str(record[name]) for record in source.provenance if record.get(name)}
    return sorted(found - {"not recorded"})
