"""Who was studied and how the folds divide them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from markupsafe import Markup

from gyri.report.chart import PANEL, Axes, padded, panel, plain, strip, thinning, thinning_note
from gyri.report.parts import Missing, Reportlet, Table
from gyri.report.source import Source
from gyri.report.svg import Drawing, shortened, text_width

ROLES = ("train", "validation", "test", "locked")
FIRST = ("age", "sex", "site", "diagnosis")
MOST_COLUMNS, MOST_CATEGORIES = 8, 12
NEGLIGIBLE = 0.1
"""Standardized mean difference that is commonly called negligible. Source: Austin 2009, doi 10.1002/sim.3697."""


def cohort_table(source: Source) -> Reportlet:
    """Images, participants and groups of each role in each fold."""
    images, splits = source.kept, source.splits
    rows, data = [], []
    for fold in sorted(splits["fold"].unique(), key=lambda name: (name == "locked", len(name), name)):
        part = splits[splits["fold"] == fold]
        cells: list[object] = [f"{fold}" + ("" if fold == "locked" or int(fold) in source.settings.run_folds else " (not run)")]
        for role in ROLES[:3] if fold != "locked" else ROLES[3:]:
            people = part[part["role"] == role]
            count = int(images["participant_id"].isin(set(people["participant_id"])).sum())
            cells.append(f"{count} / {len(people)} / {people['group'].nunique()}")
            data.append([fold, role, count, len(people), people["group"].nunique()])
        rows.append(cells if len(cells) == 4 else [*cells, "", ""])
    table = Table(["Fold", "#Train", "#Validation", "#Test"], rows, "Images, participants and groups by fold and role")
    total = f"{len(images)} images / {images['participant_id'].nunique()} participants / {images['group'].nunique()} groups"
    frame = pd.DataFrame(data, columns=["fold", "role", "images", "participants", "groups"])
    return Reportlet(tables=[table], data=frame, notes=[f"Cells read images / participants / groups. All together: {total}."])


def described_columns(source: Source) -> list[str]:
    """Columns worth showing: the target, then age, sex, site, diagnosis, then others that vary."""
    table = source.kept
    skip = ("image_id", "participant_id", "group", "session_id", "mask")
    names = [name for name in table.columns if name not in skip and not name.startswith(("image_", "label", "sha256"))]
    names = [
        name
        for name in names
        if table[name].dropna().nunique() > 1 and (_numeric(table[name]) or table[name].nunique() <= MOST_CATEGORIES)
    ]
    first = [source.settings.target, *FIRST]
    return sorted(names, key=lambda name: (first.index(name) if name in first else len(first), names.index(name)))[:MOST_COLUMNS]


def distributions(source: Source) -> Reportlet:
    """Each variable in each test fold and over all."""
    table, splits = source.kept, source.splits
    names = described_columns(source)
    if not names:
        raise Missing("the cohort has no column that varies, besides the images")
    tests = splits[splits["role"] == "test"]
    folds = sorted(tests["fold"].unique(), key=lambda name: (len(name), name))
    rows = [("all", table)]
    rows += [
        (f"fold {fold}", table[table["participant_id"].isin(set(tests.loc[tests["fold"] == fold, "participant_id"]))])
        for fold in folds
    ]
    every = thinning(2 * len(table) * sum(_numeric(table[name]) for name in names))
    panels = [_numeric_panel(name, rows, every) if _numeric(table[name]) else _category_panel(name, rows) for name in names]
    kept = ["image_id", "participant_id", "group", *names]
    data = table[kept].merge(
        tests[["participant_id", "fold"]].rename(columns={"fold": "test_fold"}), on="participant_id", how="left"
    )
    return Reportlet(
        alt=f"Distribution of {', '.join(names)} over all {len(table)} images and in each of {len(folds)} test folds.",
        panels=panels,
        data=data,
        notes=thinning_note(every),
        columns=2,
    )


def balance(source: Source) -> Reportlet:
    """Standardized differences between each test fold and the rest."""
    table = source.of_dataset("balance.tsv")
    missing = [name for name in ("fold", "role", "column", "value", "n", "mean", "sd", "smd") if name not in table]
    if missing:
        raise Missing(f"balance.tsv has no column {', '.join(missing)}")
    rows = table[(table["role"] == "test") & ~table["column"].isin(["groups", "participants", "images"])].copy()
    if rows.empty:
        raise Missing("balance.tsv describes no column")
    values = rows["value"].map(lambda value: "" if pd.isna(value) else str(value))
    different = values.groupby(rows["column"]).agg(lambda found: sorted(set(found)))
    # of two values the second is the mirror of the first
    mirrored = [
        len(different[column]) == 2 and value == different[column][1] for column, value in zip(rows["column"], values, strict=True)
    ]
    rows["mirrored"] = mirrored
    rows["name"] = [column + (f" = {value}" if value else "") for column, value in zip(rows["column"], values, strict=True)]
    return Reportlet(
        alt="Standardized mean difference of each variable between each test fold and the rest of the cohort.",
        panels=[_love_plot(rows[~rows["mirrored"]], 900)],
        narrow=[_love_plot(rows[~rows["mirrored"]], 380)],
        tables=[_balance_table(rows)],
        data=table,
        columns=1,
    )


def _numeric(values: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(values) and values.nunique() > 6


def _frame(name: str, rows: list[tuple[str, pd.DataFrame]], x: tuple[float, float]) -> tuple[Drawing, Axes, float]:
    step = 34.0
    drawing, axes = panel(name, x, (0, 1), size=(PANEL[0] + 60, 30 + step * len(rows) + 48), left=72)
    for index, (label, part) in enumerate(rows):
        middle = axes.area[1] + step * (index + 0.5)
        drawing.text(64, middle - 2, label, "t e b" if index == 0 else "t e")
        drawing.text(64, middle + 11, f"n = {len(part)}", "t e q small")
    return drawing, axes, step


def _numeric_panel(name: str, rows: list[tuple[str, pd.DataFrame]], every: int) -> Markup:
    """One strip with a box per fold."""
    drawing, axes, step = _frame(name, rows, padded(rows[0][1][name].to_numpy(float), 0.04))
    axes.bottom_axis(name, grid=True)
    for index, (_, part) in enumerate(rows):
        values = part[name].to_numpy(float)
        tips = [f"{image}: {value:.4g}" for image, value in zip(part["image_id"], values, strict=True)]
        strip(axes, axes.area[1] + step * (index + 0.5), 11, values, "c1" if index else "ce", tips, every)
        if np.isnan(values).any():
            drawing.text(axes.area[2], axes.area[1] + step * index + 8, f"{int(np.isnan(values).sum())} missing", "t e q small")
    return drawing.render("chart")


def _category_panel(name: str, rows: list[tuple[str, pd.DataFrame]]) -> Markup:
    """One bar of shares per fold, with counts."""
    every = [_text(value) for value in rows[0][1][name]]
    values = sorted(set(every))
    drawing, axes, step = _frame(name, rows, (0, 100))
    axes.bottom_axis("share of images (%)", count=4)
    for index, (_, part) in enumerate(rows):
        found = [_text(value) for value in part[name]]
        at, top = 0.0, axes.area[1] + step * index + 5
        for rank, value in enumerate(values):
            count = found.count(value)
            share = 100 * count / max(len(found), 1)
            left, right = axes.px(at), axes.px(at + share)
            drawing.rect(
                left, top, right - left - 1, step - 10, f"bar f{rank % 6 + 1}", f"{value}: {count} of {len(found)} ({share:.0f} %)"
            )
            wanted = f"{value}: {count}" if index == 0 else str(count)
            if right - left > 7.2 * len(wanted):
                drawing.text((left + right) / 2, top + step / 2 - 1, wanted, "t m inside")
            elif right - left > 22:
                drawing.text((left + right) / 2, top + step / 2 - 1, str(count), "t m inside")
            at += share
    return drawing.render("chart")


def _text(value: object) -> str:
    if value is None or value == "" or (isinstance(value, float) and np.isnan(value)):
        return "n/a"
    return plain(value) if isinstance(value, float) else str(value)


def _love_plot(rows: pd.DataFrame, width: float) -> Markup:
    """A row per variable, a dot per test fold, and the band that is commonly called negligible."""
    names = list(dict.fromkeys(rows["name"]))[:24]
    shown = rows[rows["name"].isin(names)]
    step, left = 26.0, min(max(text_width(name) for name in names) + 22, width * 0.3)
    largest = float(np.nanmax(np.abs(shown["smd"].to_numpy(float)), initial=0.3)) * 1.08
    drawing = Drawing(width, 30 + step * len(names) + 46)
    axes = Axes(drawing, (left, 12, width - 10, 12 + step * len(names)), (-largest, largest), (0, 1))
    drawing.rect(axes.px(-NEGLIGIBLE), 12, axes.px(NEGLIGIBLE) - axes.px(-NEGLIGIBLE), step * len(names), "band")
    words = "standardized mean difference" + (", test fold against the rest (band: ±0.1)" if width > 500 else "")
    axes.bottom_axis(words, count=7 if width > 500 else 4, grid=True)
    drawing.line(axes.px(0), 12, axes.px(0), 12 + step * len(names), "axis")
    for index, name in enumerate(names):
        middle = 12 + step * (index + 0.5)
        drawing.text(left - 10, middle + 4, shortened(name, left - 16), "t e", tip=name)
        for _, row in shown[shown["name"] == name].iterrows():
            if pd.notna(row["smd"]):
                drawing.dot(axes.px(row["smd"]), middle, 4, "point strong c1", f"fold {row['fold']}: {row['smd']:.2f}")
    return drawing.render("chart")


def _balance_table(rows: pd.DataFrame) -> Table:
    folds = sorted(rows["fold"].unique(), key=lambda name: (len(name), name))
    body = []
    for name, part in rows.groupby("name", sort=False):
        cells: list[object] = [name]
        for fold in folds:
            found = part[part["fold"] == fold]
            cells.append(_balance_cell(found.iloc[0]) if len(found) else "")
        body.append(cells)
    return Table(["Variable", *[f"#test fold {fold}" for fold in folds]], body, "Balance of the test folds", classes="folded")


def _balance_cell(row: pd.Series) -> str:
    if pd.notna(row["mean"]):
        spread = f" ± {row['sd']:.3g}" if pd.notna(row["sd"]) else ""
        return f"{row['mean']:.4g}{spread} (n = {row['n']:.0f})"
    share = f" ({100 * row['fraction']:.0f} %)" if "fraction" in row and pd.notna(row["fraction"]) else ""
    return f"{row['n']:.0f}{share}"
