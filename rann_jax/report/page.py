"""The pages of a run and of a cross-validation, section by section."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from rann_jax import metrics
from rann_jax.report import fusion_table, markup, mistakes, plots
from rann_jax.report.collect import CrossValidation, Run
from rann_jax.report.markup import Html
from rann_jax.report.plots import Line
from rann_jax.saved.cells import SPLIT
from rann_jax.saved.predictions import Predictions
from rann_jax.tasks import F1_THRESHOLD, HEADLINE

MAX_CLASSES = 60  # drawn at once; more would be illegible
MAX_CURVES = 40  # drawn at once; Matplotlib is limited to less than 2^16 pixels
WORST = 12
SCORES = ("accuracy", "mAP", "macro_f1", "mAUC")


@dataclasses.dataclass
class Page:
    """Html parts and the pictures in them, collected in the order of the page."""

    parts: list[Html] = dataclasses.field(default_factory=list)
    pictures: list[bytes] = dataclasses.field(default_factory=list)

    def section(self, title: str, *parts: Html | Figure) -> None:
        """Add a section; figures become pictures."""
        self.parts.append(markup.section(title, *(self._html(part, title) for part in parts)))

    def html(self, title: str) -> bytes:
        """Return the whole page."""
        return markup.page(title, *self.parts)

    def png(self) -> bytes | None:
        """Return all pictures, one below the other; None if there are none."""
        return plots.stacked(self.pictures) if self.pictures else None

    def _html(self, part: Html | Figure, title: str) -> Html:
        if not isinstance(part, Figure):
            return part
        self.pictures.append(plots.png(part))
        return markup.picture(self.pictures[-1], title)


def of_run(run: Run, command: str, draws: int) -> Page:
    """Return the page with scores, curves, and for each split its confusions, classes and worst mistakes.

    Args:
      run: the run, finished or not.
      command: the command line that makes the page.
      draws: number of bootstrap draws; 0 leaves intervals out.
    """
    page = Page()
    if run.predictions:
        page.section("Scores", markup.table([_scores(n, p, draws) for n, p in run.predictions.items()]))
    else:
        page.section(
            "Scores", markup.paragraph("No predictions yet: they are written at the end of training.")
        )
    _curves(page, {run.name: [run]})
    for split, scored in run.predictions.items():
        _classes(page, scored, f"split {split}")
        _mistakes(page, mistakes.worst(run, split, WORST), f"split {split}")
    _data(page, run.predictions)
    _origin(page, {run.name: run.environment}, command)
    page.section("Config", markup.folded("every key", markup.code(run.config.to_json_best_effort(indent=2))))
    return page


def of_cross_validation(whole: CrossValidation, command: str) -> Page:
    """Return the page with both tables, curves of every feature, and details of the best feature.

    The details are its confusions, classes and worst mistakes.
    """
    page = Page()
    some = next(iter(whole.pooled.values()))
    measure = HEADLINE[some.task]
    folds = [run.name.rpartition("/")[2] for run in next(iter(whole.runs.values()))]
    page.section(
        "Features", markup.paragraph(f"Pooled over {', '.join(folds)}."), markup.table(whole.features)
    )
    if whole.fusion:
        test = "McNemar's exact test"
        if "p_corrected" in whole.fusion[0]:
            test = "a test by the signs of groups of clips"
        explained = (
            f"Every subset of the features under every rule, on {len(some.ids)} clips; p is of {test} "
            "against the best single feature (chosen on the same clips); conflict is the mean of Dempster's "
            "k."
        )
        rows = markup.folded("the whole table", markup.table(whole.fusion))
        drawn = fusion_table.fusion_map(whole.fusion, measure, "pooled folds")
        page.section("Fusion", markup.paragraph(explained), drawn, rows)
    _curves(page, whole.runs)
    best = max(whole.features, key=lambda row: row[measure])["feature"]
    _per_feature(page, whole.pooled)
    _classes(page, whole.pooled[best], f"{best}, the feature of the greatest {measure}")
    scored = [run for run in whole.runs[best] if SPLIT in run.predictions]
    found = [mistake for run in scored for mistake in mistakes.worst(run, SPLIT, WORST)]
    found.sort(key=lambda mistake: -mistake.error)
    _mistakes(page, found[:WORST], f"{best}, pooled folds")
    _data(page, {"pooled folds": some})
    runs = [run for runs in whole.runs.values() for run in runs]
    environments = {"cross-validation": whole.environment, **{run.name: run.environment for run in runs}}
    _origin(page, environments, command)
    return page


def _scores(name: str, scored: Predictions, draws: int) -> dict[str, Any]:
    (measures,) = fusion_table.single_rows({name: scored}, draws).values()
    return {"split": name, "clips": len(scored.ids), "step": scored.step, **measures}


def _curves(page: Page, runs: Mapping[str, Sequence[Run]]) -> None:
    """Add the curves: loss, scores and, for a single run, training metrics and speed.

    Each metric of a single run has its own colour; otherwise each group of runs has.
    """
    single = len(runs) == 1 and all(len(group) == 1 for group in runs.values())
    panels: dict[str, list[Line]] = {}
    for group, members in runs.items():
        for name, curve in ((name, curve) for run in members for name, curve in run.curves.items()):
            kind = name.rpartition("/")[2]
            title = name if not single or kind not in SCORES else "scores"
            if kind in (*SCORES, "d_prime", "loss") or (
                single and (name.startswith("train/") or name == "time/clips_per_second")
            ):
                panels.setdefault(title, []).append(Line(name if single else group, *curve))
    if panels:
        text = f"Only the first {MAX_CURVES} of {len(panels)} are drawn." if len(panels) > MAX_CURVES else ""
        drawn = plots.curves(dict(itertools.islice(panels.items(), MAX_CURVES)))
        page.section("Curves", markup.paragraph(text) if text else Html(""), drawn)
    else:
        page.section("Curves", markup.paragraph("metrics.jsonl holds nothing to draw."))


def _per_feature(page: Page, pooled: Mapping[str, Predictions]) -> None:
    """Add the average precision of class x feature, which shows the best feature for each class."""
    labels = next(iter(pooled.values())).labels
    if len(pooled) < 2 or len(labels) > MAX_CLASSES:
        return
    precision = [metrics.average_precision(p.targets, p.probabilities) for p in pooled.values()]
    drawn = plots.heat_map(np.stack(precision, axis=1), list(labels), list(pooled), "average precision")
    page.section("Classes by feature", drawn)


def _classes(page: Page, scored: Predictions, where: str) -> None:
    """Add the confusion matrix (unless clips may have several labels), and AP and F1 of each class."""
    labels, targets, probs = scored.labels.tolist(), scored.targets, scored.probabilities
    threshold = F1_THRESHOLD[scored.task]
    if scored.task == "classification":
        chosen, counts = confusions(targets, probs.argmax(axis=1))
        drawn = plots.confusion(counts, [labels[c] for c in chosen], "clips, true x predicted")
        page.section(f"Confusions: {where}", _left_out(len(labels), "the most often confused"), drawn)
    else:
        text = "Clips may have several labels, so there is no confusion matrix."
        page.section(f"Confusions: {where}", markup.paragraph(text))
    values = {
        "average precision": metrics.average_precision(targets, probs),
        "F1": metrics.f1(targets, probs, threshold),
    }
    order = np.lexsort((values["F1"], values["average precision"]))  # NaN is sorted last
    rows = [
        {
            "class": labels[c],
            "clips": int(targets[:, c].sum()),
            **{k: float(v[c]) for k, v in values.items()},
        }
        for c in order
    ]
    drawn = plots.bars(
        {k: v[order[:MAX_CLASSES]] for k, v in values.items()},
        [labels[c] for c in order[:MAX_CLASSES]],
        "lowest average precision first",
    )
    undefined = [labels[c] for c in metrics.undefined_classes(targets)]
    text = f"Classes without clips, left out of every mean: {', '.join(undefined)}." if undefined else ""
    notes = (
        _left_out(len(labels), "those of the lowest average precision"),
        markup.paragraph(text) if text else Html(""),
    )
    page.section(f"Classes: {where}", *notes, drawn, markup.folded("in numbers", markup.table(rows)))


def confusions(targets: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the at most MAX_CLASSES most confused classes (K,), and clip counts (K, K), true x predicted.

    Args:
      targets: (n, C) multi-hot.
      predicted: (n,) classes.
    """
    classes = targets.shape[1]
    right = targets[np.arange(len(targets)), predicted]
    found = np.bincount(predicted, minlength=classes) + targets.sum(axis=0, dtype=np.int64)
    wrong = found - 2 * np.bincount(predicted[right > 0], minlength=classes)
    chosen = np.sort(np.argsort(-wrong, kind="stable")[:MAX_CLASSES])
    counts = targets[:, chosen].astype(np.int64).T @ (predicted[:, None] == chosen)
    return chosen, counts


def _left_out(classes: int, which: str) -> Html:
    if classes <= MAX_CLASSES:
        return Html("")
    return markup.paragraph(f"Only {MAX_CLASSES} of {classes} classes are drawn: {which}.")


def _mistakes(page: Page, found: Sequence[mistakes.Mistake], where: str) -> None:
    title = f"Worst mistakes: {where}"
    if not found:
        page.section(title, markup.paragraph("None."))
        return
    rows = [{"clip": m.id, "is": ", ".join(m.labels), "said": m.said, "error": m.error} for m in found]
    waves = mistakes.sounds(found)
    if found[0].run.predictions[found[0].split].task == "tagging":
        text = "The error is the distance of a class's probability from the truth, 0 or 1."
    else:
        text = "The error is the probability of the wrong class, as shown, less that of the right one."
    explained = markup.paragraph(text)
    if any(wave is not None and len(wave) for wave in waves):
        page.section(title, explained, mistakes.spectrograms(found, waves), markup.table(rows))
    else:
        text = "No spectrograms: the prepared copy of this run's data is no longer where its config says."
        page.section(title, explained, markup.paragraph(text), markup.table(rows))


def _data(page: Page, splits: Mapping[str, Predictions]) -> None:
    rows = [
        {
            "split": name,
            "task": scored.task,
            "clips": len(scored.ids),
            "classes": len(scored.labels),
            "fingerprint": scored.fingerprint,
        }
        for name, scored in splits.items()
    ]
    if rows:
        page.section("Data", markup.table(rows))


def _origin(page: Page, environments: Mapping[str, Mapping[str, str]], command: str) -> None:
    """Add the commands of the runs and of the page, then versions and devices, once if all runs agree."""
    launched = {name: values.get("command", "") for name, values in environments.items()}
    lines = [f"{name}: {text or 'not recorded'}" for name, text in launched.items()]
    page.section("Commands", markup.code("\n".join([*lines, f"this page: {command}"])))
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for name, values in environments.items():
        groups.setdefault(tuple((k, v) for k, v in values.items() if k != "command"), []).append(name)
    parts: list[Html] = []
    for group, names in groups.items():
        parts.append(markup.paragraph(", ".join(names) + ("" if group else ": not recorded")))
        parts.append(markup.table([{"name": k, "value": v} for k, v in group]))
    page.section("Environment of the last launch", *parts)
