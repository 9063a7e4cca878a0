"""The index page: what ran, the headline of each experiment, and what it cost."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from markupsafe import Markup

from gyri import __version__
from gyri.progress import duration
from gyri.report.assemble import assets, facts, rendered, template, tidy
from gyri.report.chart import Axes, padded
from gyri.report.figures_index import gains
from gyri.report.figures_results import LEGEND, forest, legend_mark
from gyri.report.parts import Missing, Reportlet, Table, exact
from gyri.report.results import HEADLINE, axis_label, best_models, estimate, headline, metric, sentence, shared_digits, sizes
from gyri.report.source import Source
from gyri.report.svg import Drawing, shortened
from gyri.report.trust import STATES, checks
from gyri.report.what_ran import training_cost
from gyri.tables import rows_of


def index_page(sources: list[Source], title: str) -> str:
    """The HTML of the index."""
    parts = [
        _part("overview", "All experiments", OVERVIEW, lambda: overview(sources)),
        _part("cost", "Time against result", COST, lambda: cost(sources)),
        _part("gains", "Experiments beside each other", GAINS, lambda: gains(sources)),
    ]
    text = template("index.html.j2").render(
        title=title,
        cards=[_card(source) for source in sources],
        overview=parts[0],
        cost=parts[1],
        gains=parts[2],
        version=__version__,
        **assets(),
    )
    return tidy(text)


OVERVIEW = (
    "The best trained model or ensemble of each experiment beside its best baseline, on participants that no model saw. "
    "Checks count what deserves a look (!) or is wrong (✗); they are explained on the experiment's page."
)
GAINS = (
    "Each mark is one trained model or ensemble: how much of the way from the best baseline (0) to a perfect result (1) it goes, so that "
    "experiments with different metrics share one axis. The line is the interval (95\u00a0%) of the difference on the same participants. "
    "Alarming: a line that reaches 0, since nothing is then shown to be gained by training."
)
COST = (
    "Each mark is one model: wall time of all its trainings (folds and seeds) against its result and interval (95\u00a0%). "
    "Up and to the left is better where higher is better, down and to the left where lower is. Baselines are hollow."
)


def _part(name: str, title: str, caption: str, make: Any) -> dict[str, Any]:
    about = {"id": name, "title": title, "caption": caption, "missing": "", "skipped": False}
    try:
        return {**about, **rendered(make(), name, "gyri_")}
    except Missing as missing:
        return {**rendered(Reportlet(), name, "gyri_"), **about, "missing": str(missing)}


def _card(source: Source) -> dict[str, Any]:
    """One experiment: its answer in a sentence and a small forest plot."""
    name = source.settings.experiment
    card: dict[str, Any] = {
        "name": name,
        "link": f"{name}/report.html",
        "facts": facts(source),
        "pilot": source.pilot,
        "missing": "",
    }
    try:
        figure = forest(source)
        return {
            **card,
            "answer": sentence(source),
            "alt": figure.alt,
            "wide": figure.panels,
            "narrow": figure.narrow,
            "legend": figure.legend,
        }
    except Missing as missing:
        return {**card, "missing": str(missing)}


def overview(sources: list[Source]) -> Reportlet:
    """One row per experiment."""
    body, data = [], []
    for source in sources:
        name = source.settings.experiment
        link = Markup('<a href="{0}/report.html">{0}</a>').format(name)
        answers = [check.state for check in checks(source)]
        marks = (
            " ".join(f"{STATES[state][0]} {answers.count(state)}" for state in ("look", "bad") if answers.count(state)) or "✓ all"
        )
        folds = f"{len(source.settings.run_folds)} of {source.settings.folds}"
        about = Markup('{}<br><span class="about">{} of {}, {}</span>').format(
            link, source.settings.task, source.settings.target, source.settings.dataset
        )
        row: list[Any] = [about]
        try:
            best, baseline = best_models(source)
            digits = shared_digits(headline(source))
            row += [metric(HEADLINE[source.settings.task]).label, _cell(best, digits), _cell(baseline, digits)]
            chosen = best if best is not None else baseline
            row.append(
                Markup('<span class="nowrap">{}<br>{}</span>').format(*sizes(chosen).removeprefix("n = ").split(" of "))
                if chosen is not None
                else "n/a"
            )
            data += [{"experiment": name, **item} for item in rows_of(headline(source).drop(columns="kind"))]
        except Missing as missing:
            row += [f"not available: {missing}", "", "", ""]
        seconds = training_cost(source)["seconds"].sum()
        body.append([*row, folds, duration(seconds) if seconds else "n/a", marks])
    columns = ["Experiment", "Metric", "Best model", "Best baseline", "n", "Folds", "#Training time", "Checks"]
    return Reportlet(tables=[Table(columns, body, "All experiments", classes="sortable")], data=pd.DataFrame(data))


def _cell(row: pd.Series | None, digits: int) -> Markup | str:
    if row is None:
        return "none"
    text = estimate(row["value"], row["ci_low"], row["ci_high"], digits)
    number, _, interval = text.partition(" ")
    return Markup('{}<br><span class="number">{} {}</span>').format(row["label"], exact(row["value"], number), interval)


def cost(sources: list[Source]) -> Reportlet:
    """Result against training time, a panel per experiment."""
    panels, data = [], []
    for source in sources:
        try:
            rows = headline(source).merge(training_cost(source), on="model", how="inner")
        except Missing:
            continue
        if rows.empty:
            continue
        panels.append(_cost_panel(source, rows))
        data.append(rows.drop(columns="kind").assign(experiment=source.settings.experiment))
    if not panels:
        raise Missing("no experiment has both metrics.tsv and provenance-train.json")
    return Reportlet(
        alt="Result of each model against the wall time of its trainings, one panel per experiment.",
        panels=panels,
        legend=[(legend_mark(kind), words) for kind, words in LEGEND if kind in ("network", "baseline")],
        data=pd.concat(data),
        columns=3,
    )


def _cost_panel(source: Source, rows: pd.DataFrame) -> Markup:
    """Time on a logarithmic axis."""
    name = HEADLINE[source.settings.task]
    drawing = Drawing(360, 280)
    times = rows["seconds"].clip(lower=0.01).map(math.log10)
    x = (math.floor(times.min() - 0.05), max(math.ceil(times.max() + 0.05), math.floor(times.min() - 0.05) + 1))
    y = padded(rows[["value", "ci_low", "ci_high"]].to_numpy(float).ravel(), 0.08, metric(name).limits)
    axes = Axes(drawing, (60, 30, 346, 236), x, y)
    drawing.text(60, 16, source.settings.experiment, "t b")
    axes.left_axis(axis_label(name, source.settings.target, arrow=False))
    for power in range(int(x[0]), int(x[1]) + 1):
        drawing.line(axes.px(power), 236, axes.px(power), 240, "axis")
        drawing.text(axes.px(power), 253, _seconds(power), "t m q")
    drawing.line(60, 236, 346, 236, "axis")
    drawing.text(203, 271, "training time, all folds and seeds", "t m")
    taken: dict[bool, list[float]] = {True: [], False: []}
    for (_, row), at in zip(rows.iterrows(), times, strict=True):
        colour = source.colour(row["model"])
        value = estimate(row["value"], row["ci_low"], row["ci_high"])
        tip = f"{row['label']}: {value}, {duration(row['seconds'])} for {row['trainings']} trainings"
        if pd.notna(row["ci_low"]):
            drawing.line(axes.px(at), axes.py(row["ci_low"]), axes.px(at), axes.py(row["ci_high"]), f"interval {colour}", tip)
        if row["kind"] == "baseline":
            drawing.dot(axes.px(at), axes.py(row["value"]), 4.6, f"hollow {colour}", tip)
        else:
            drawing.rect(axes.px(at) - 4.6, axes.py(row["value"]) - 4.6, 9.2, 9.2, f"solid {colour}", tip)
        right = axes.px(at) < 240
        place = _free(axes.py(row["value"]) - 6, taken[right])
        drawing.text(
            axes.px(at) + (9 if right else -9), place, shortened(row["label"], 120), "t small halo" if right else "t e small halo"
        )
    return drawing.render("chart")


def _free(place: float, taken: list[float]) -> float:
    """The place of a label, moved down until it stands on no other."""
    while any(abs(place - other) < 11 for other in taken):
        place += 2
    taken.append(place)
    return place


def _seconds(power: int) -> str:
    return {-2: "10 ms", -1: "0.1 s", 0: "1 s", 1: "10 s", 2: "100 s", 3: "17 min", 4: "2.8 h", 5: "28 h", 6: "12 d"}.get(
        power, f"10^{power} s"
    )


def index_twin(sources: list[Source], title: str) -> dict[str, Any]:
    """The index for programs."""
    items = []
    for source in sources:
        settings = source.settings
        item: dict[str, Any] = {
            "experiment": settings.experiment,
            "dataset": settings.dataset,
            "task": settings.task,
            "target": settings.target,
            "pilot": source.pilot,
            "report": f"{settings.experiment}/report.html",
            "headline_metric": HEADLINE[settings.task],
            "training_seconds": round(float(training_cost(source)["seconds"].sum()), 3),
        }
        try:
            best, baseline = best_models(source)
            for key, row in (("best", best), ("best_baseline", baseline)):
                item[key] = None if row is None else _numbers(row)
        except Missing as missing:
            item["missing"] = str(missing)
        items.append(item)
    return {"title": title, "gyri": __version__, "experiments": items}


def _numbers(row: pd.Series) -> dict[str, Any]:
    names = ("value", "ci_low", "ci_high", "n", "n_groups")
    return {"model": row["model"], **{name: None if pd.isna(row[name]) else float(row[name]) for name in names}}
