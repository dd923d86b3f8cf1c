"""The page: one HTML file that stands alone."""

from __future__ import annotations

import base64
import io
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

import fewshot_course
from fewshot_course.evaluation import Difference, Interval
from fewshot_course.report import _charts
from fewshot_course.report._compare import HELD_OUT, SLOW_DRAWS, Choice, Comparison
from fewshot_course.report._copies import Copies
from fewshot_course.report._findings import Finding
from fewshot_course.report._methods import MAJORITY
from fewshot_course.report._model import Encoded, Model
from fewshot_course.report._read import Examples
from fewshot_course.report._style import STYLE

MOST_CLASSES = 12
_LEVELS = {"fix": "Repair first", "care": "Keep in mind", "note": "Note"}


@dataclass(frozen=True, eq=False)
class Content:
    """All that the page shows."""

    examples: Examples
    copies: Copies
    comparison: Comparison
    choice: Choice
    findings: list[Finding]
    left_out: list[str]
    model: Model
    model_path: Path
    seed: int
    n_draws: int


def render(content: Content) -> str:
    """Return the page."""
    title = f"Report on {content.examples.source.name}"
    sections = [
        _short(content),
        _data(content.examples),
        _findings(content.findings),
        _comparison(content),
        _why(content),
        _errors(content),
        _use(content),
        _protocol(content),
    ]
    safety = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{safety}">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{escape(title)}</h1>\n"
        + "\n".join(sections)
        + f"\n<footer class='soft'>Made by fewshot-course {escape(fewshot_course.__version__)}, "
        f"command <code>fewshot report</code>. No part of this page comes from the network."
        f"</footer>\n</main>\n</body>\n</html>\n"
    )


# ---------------------------------------------------------------------------- in short


def _short(c: Content) -> str:
    choice, score = c.choice, c.comparison.score(c.choice.name)
    if choice.learns:
        head = (
            f"<p>Use <span class='method'>{escape(choice.name)}</span>.</p>"
            f"<p>It is right on <strong>{_percent(score)}</strong> of the held-out examples, "
            f"after learning from {c.comparison.stages[-1].n_train} labelled ones. Always saying "
            f"the commonest class is right on {_percent(c.comparison.score(MAJORITY))}.</p>"
        )
    else:
        head = (
            "<p><span class='method'>Label more examples first.</span></p>"
            f"<p>No method is clearly better than always saying the commonest class. The simplest, "
            f"{escape(choice.name)}, is right on {_percent(score)} of the held-out examples; "
            f"the commonest class on {_percent(c.comparison.score(MAJORITY))}. It is saved so "
            f"that you can try it. Do not rely on it.</p>"
        )
    grave = [f for f in c.findings if f.level == "fix"]
    if grave:
        names = "; ".join(escape(f.title.lower()) for f in grave)
        head += (
            f"<p><strong>Before you trust any number here, repair this:</strong> {names}. "
            f'See <a href="#findings">what to look at first</a>.</p>'
        )
    return (
        f'<section class="short" aria-label="In short">{head}<p>{_labels_advice(c)}</p></section>'
    )


def _labels_advice(c: Content) -> str:
    gain = c.choice.gain
    if gain is None:
        return "You have too few examples for a learning curve. Label more, and run this again."
    stages = c.comparison.stages
    before = max(s.n_train for s in stages if 2 * s.n_train <= stages[-1].n_train)
    step = f"Going from {before} to {stages[-1].n_train} labelled examples brought {_points(gain)}"
    if gain.low > 0:
        return (
            f"{step}. The curve still rises: labelling more is likely to help, whatever the method."
        )
    return f"{step}. That is no clear gain: the curve is flat here, or too few examples show it."


# ---------------------------------------------------------------------------- data


def _data(e: Examples) -> str:
    facts = [
        ("Kind", {"texts": "texts", "vectors": "rows of numbers", "images": "images"}[e.kind]),
        ("Examples", f"{len(e.y):,}"),
        ("With a label", f"{len(e.known):,} in {len(e.class_names)} classes"),
        ("Without a label", f"{len(e.unknown):,}"),
    ]
    if isinstance(e.X, list):
        lengths = [len(text.split()) for text in e.X]
        facts.append(
            (
                "Words in a text",
                f"{min(lengths)} to {max(lengths)}, median {np.median(lengths):.0f}",
            )
        )
    elif e.kind == "vectors":
        facts.append(("Features", f"{e.X.shape[1]}: {escape(_some(e.columns, 8))}"))
    else:
        facts.append(("Size", " × ".join(map(str, e.X.shape[1:])) + " (height × width)"))
    rows = "".join(f"<tr><th scope='row'>{k}</th><td>{v}</td></tr>" for k, v in facts)
    return (
        f"<section><h2>Your data</h2>{_scroll(f'<table class=facts>{rows}</table>', 'Summary')}"
        f"{_counts(e)}<h3>A few of them</h3>{_samples(e)}</section>"
    )


def _counts(e: Examples) -> str:
    counts = e.counts
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="number">{n:,}</td>'
        f'<td class="bars"><span class="bar" style="width:{100 * n / counts.max():.0f}%"></span>'
        f"</td></tr>"
        for name, n in zip(e.class_names, counts, strict=True)
    )
    table = _scroll(
        "<table><caption>Labelled examples of each class</caption><thead><tr>"
        '<th scope="col">class</th><th scope="col" class="number">examples</th>'
        f'<td aria-hidden="true"></td></tr></thead><tbody>{rows}</tbody></table>',
        "Labelled examples of each class",
    )
    if len(counts) <= MOST_CLASSES:
        return table
    words = f"All {len(counts)} classes: {counts.min()} to {counts.max()} labelled examples each"
    return f"<details><summary>{words}</summary>{table}</details>"


def _samples(e: Examples) -> str:
    shown = range(min(len(e.class_names), MOST_CLASSES))
    of_class = {c: np.flatnonzero(e.y == c) for c in shown}
    names = [escape(e.class_names[c]) for c in shown]
    if e.kind == "images":
        rows = [
            f"<tr><th scope='row'>{name}</th><td>"
            f"{_strip(e.take(of_class[c][:6]), f'{len(of_class[c][:6])} examples of {name}')}"
            f"</td></tr>"
            for c, name in zip(shown, names, strict=True)
        ]
    elif e.kind == "texts":
        rows = [
            f"<tr><th scope='row'>{name}</th><td>"
            + "<br>".join(escape(_cut(text)) for text in e.take(of_class[c][:2]))
            + "</td></tr>"
            for c, name in zip(shown, names, strict=True)
        ]
    else:
        head = "".join(f"<th scope='col' class='number'>{escape(n)}</th>" for n in e.columns[:8])
        rows = [f"<tr><th scope='col'>class</th>{head}</tr>"] + [
            f"<tr><th scope='row'>{name}</th>"
            + "".join(f"<td class='number'>{v:.4g}</td>" for v in e.take(of_class[c][:1])[0][:8])
            + "</tr>"
            for c, name in zip(shown, names, strict=True)
        ]
    more = len(e.class_names) - len(shown)
    note = f"<p class='soft'>{more} more classes are not shown.</p>" if more else ""
    return _scroll(f"<table><tbody>{''.join(rows)}</tbody></table>", "A few examples") + note


def _strip(images: np.ndarray, alt: str) -> str:
    """Return some images side by side, as one PNG inside the page."""
    padded = [np.pad(_rgb(x), ((1, 1), (1, 1), (0, 0)), constant_values=0.5) for x in images]
    row = np.concatenate(padded, axis=1)
    buffer = io.BytesIO()
    Image.fromarray(np.round(255 * row).astype(np.uint8)).save(buffer, "PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img class="strip" alt="{alt}" src="data:image/png;base64,{data}">'


def _rgb(x: np.ndarray) -> np.ndarray:
    """Return ``(h, w, 3)``: colour where there are three channels, else their mean in grey."""
    if x.ndim == 3 and x.shape[2] == 3:
        return x
    grey = x if x.ndim == 2 else x.mean(axis=2)
    return np.repeat(grey[..., None], 3, axis=2)


# ---------------------------------------------------------------------------- findings


def _findings(findings: Sequence[Finding]) -> str:
    boxes = "".join(
        f'<div class="finding {f.level}"><span class="level">{_LEVELS[f.level]}</span>'
        f"<h3>{escape(f.title)}</h3><p>{escape(f.text)}</p>"
        f"<p><strong>What to do:</strong> {escape(f.action)}</p></div>"
        for f in findings
    )
    none = "" if boxes else "<p>Nothing was found that a program can see.</p>"
    return (
        f'<section id="findings"><h2>What to look at first</h2>{none}{boxes}'
        "<p><strong>What no program can see:</strong> whether examples belong together because "
        "one person wrote them, one device took them, or one day brought them. If so, your new "
        "examples will differ more from these than these do from each other, and every score "
        "here is too good. Then split by person, device or day yourself.</p></section>"
    )


# ---------------------------------------------------------------------------- comparison


def _reference(c: Comparison) -> str:
    """Return the simplest method that learns."""
    return next(m.name for m in c.methods if m.name != MAJORITY and c.works(m.name))


def _comparison(content: Content) -> str:
    c, choice = content.comparison, content.choice
    working = [m for m in c.methods if c.works(m.name)]
    slow = any(m.slow for m in c.methods)
    fewer = f", those that train a network or a mixture {min(SLOW_DRAWS, content.n_draws)}"
    parts = [
        "<section><h2>Which method, and how good?</h2>",
        f"<p>Your labelled examples were split {content.n_draws} times at random. Each time "
        f"{c.n_test} of them were held out, about a third of each class; the methods learned from "
        f"the rest and were scored on the held-out ones. Nothing was chosen on those. Every method "
        f"had {content.n_draws} draws{fewer if slow else ''}.</p>",
    ]
    if len(c.stages) > 1:
        parts.append(_curve_figure(c, choice, [m.name for m in working]))
    parts.append(_score_table(c, choice))
    parts.append(_difference_figure(c, [m.name for m in working]))
    parts.append(_all_stages(c))
    for note in _failures(c) + content.left_out:
        parts.append(f"<p class='soft'>{escape(note)}</p>")
    return "".join(parts) + "</section>"


def _curve_figure(c: Comparison, choice: Choice, names: Sequence[str]) -> str:
    series = [
        _charts.Series(
            name,
            [c.score(name, i).mean if (name, i) in c.cells else None for i in range(len(c.stages))],
            name == choice.name,
        )
        for name in names
    ]
    ticks = [str(s.shots) if s.shots else f"{s.per_class:.3g}" for s in c.stages]
    chart = _charts.curves(
        series,
        [s.per_class for s in c.stages],
        ticks,
        "Mean accuracy on held-out examples against labelled examples a class, a line a method. "
        "The numbers stand in the table of all sizes below.",
    )
    return (
        f"<figure>{chart}<figcaption>Learning curves: mean accuracy on the held-out examples. "
        f"The thick line is the recommended method. The last point has all examples that are not "
        f"held out. The intervals stand in the tables.</figcaption></figure>"
    )


def _score_table(c: Comparison, choice: Choice) -> str:
    reference = _reference(c)
    rows = []
    for m in c.methods:
        cell = c.last(m.name)
        chosen = m.name == choice.name
        name = escape(m.name) + (" (recommended)" if chosen else "")
        if not c.works(m.name):
            rows.append(f"<tr><th scope='row'>{name}</th><td colspan='4'>failed</td></tr>")
            continue
        if m.name == reference:
            difference = "compared with"
        else:
            difference = _points(c.difference(m.name, reference), n=m.slow)
        balanced = c.interval(cell.balanced)
        rows.append(
            f"<tr{' class=chosen' if chosen else ''}><th scope='row'>{name}</th>"
            f"<td class='number'>{_lines(c.score(m.name))}</td>"
            f"<td class='number'>{100 * balanced.mean:.1f} %</td>"
            f"<td class='number'>{difference.replace(' [', '<br>[')}</td>"
            f"<td class='number'>{cell.seconds:.2g}</td></tr>"
        )
    caption = (
        f"All examples that are not held out: {c.stages[-1].n_train} to learn from, {c.n_test} "
        f"scored. Accuracy: mean and 95 % interval over n draws. The difference is taken draw by "
        f"draw; it is clear only where its interval leaves out 0. Simplest method first."
    )
    head = "".join(
        f'<th scope="col"{" class=number" if i else ""}>{title}</th>'
        for i, title in enumerate(
            (
                "method",
                "accuracy",
                "mean over<br>classes",
                f"against {escape(reference)}",
                "seconds",
            )
        )
    )
    what = "".join(f"<li>{escape(m.name)}: {escape(m.what)}</li>" for m in c.methods)
    explained = f"<details><summary>What each method does</summary><ul>{what}</ul></details>"
    table = _scroll(
        f"<table id='scores'><caption>{caption}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>",
        "Scores of all methods",
    )
    return table + explained


def _difference_figure(c: Comparison, names: Sequence[str]) -> str:
    reference = _reference(c)
    rows = []
    for name in names:
        if name != reference:
            d = c.difference(name, reference)
            rows.append((name, d.mean, d.low, d.high))
    chart = _charts.differences(
        rows, f"Difference in accuracy from {reference}, with intervals; the table has the numbers."
    )
    return (
        f"<figure>{chart}<figcaption>Points of accuracy more (right) or fewer (left) than "
        f"{escape(reference)}, on the same draws. An interval that crosses the dashed line at 0 "
        f"shows no clear difference.</figcaption></figure>"
    )


def _all_stages(c: Comparison) -> str:
    head = "".join(f'<th scope="col" class="number">{escape(s.title)}</th>' for s in c.stages)
    rows = "".join(
        f"<tr><th scope='row'>{escape(m.name)}</th>"
        + "".join(
            f"<td class='number'>{_lines(c.score(m.name, i))}</td>"
            if (m.name, i) in c.cells
            else "<td class='number'>not run</td>"
            for i in range(len(c.stages))
        )
        + "</tr>"
        for m in c.methods
        if c.works(m.name)
    )
    table = _scroll(
        "<table><caption>Accuracy by labelled examples a class: mean and 95 % interval over n "
        f'draws</caption><thead><tr><th scope="col">method</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table>",
        "Accuracy by labelled examples a class",
    )
    return f"<details><summary>All sizes, as a table</summary>{table}</details>"


def _failures(c: Comparison) -> list[str]:
    notes = []
    for m in c.methods:
        errors = [cell.error for (name, _), cell in c.cells.items() if name == m.name]
        if any(errors):
            notes.append(f"{m.name} failed and is left out: {next(filter(None, errors))}")
    return notes


# ---------------------------------------------------------------------------- reasons


def _why(content: Content) -> str:
    c, choice = content.comparison, content.choice
    name = escape(choice.name)
    points = [
        f"<li>The rule, fixed beforehand: take the simplest method that no other beats clearly. "
        f"That is {name}.</li>"
    ]
    for other, (winner, difference) in choice.beaten.items():
        points.append(
            f"<li>{escape(other)} is simpler, but {escape(winner)} is clearly better than that: "
            f"{_points(difference)}.</li>"
        )
    for other, difference in choice.rivals.items():
        points.append(
            f"<li>{escape(other)} has a higher mean, {_points(difference)}, but these draws cannot "
            f"tell the two apart.</li>"
        )
    if not choice.rivals:
        points.append("<li>No other method has a higher mean.</li>")
    majority = "clearly better" if choice.learns else "not clearly better"
    points.append(
        f"<li>Against the majority class it is {majority}: {_points(choice.over_majority)}.</li>"
    )
    changes = []
    if choice.rivals:
        best = max(choice.rivals, key=lambda other: choice.rivals[other].mean)
        changes.append(
            f"With more labelled examples the intervals shrink. If {escape(best)} then stays ahead "
            f"and its interval leaves out 0, take that."
        )
    if not len(content.examples.unknown):
        changes.append(
            "If you have examples of the same kind without labels, add them with an empty label: "
            "then the methods that use them are compared too."
        )
    changes.append(
        "If new examples differ from these (other people, another device, another time), hold out "
        "examples of that kind and compare again."
    )
    tried = len([m for m in c.methods if c.works(m.name) and m.name != MAJORITY])
    optimism = (
        f"A score chosen as the best of several is a little too good: the luck of the draws helps "
        f"to be chosen. Here {tried} methods were compared. To know what the model is worth, label "
        f"some new examples, and score them once."
    )
    smaller = (
        f"On the other hand the saved model learns from all {len(content.examples.known)} labelled "
        f"examples, more than any draw had, and may be a little better for it."
    )
    return (
        f"<section><h2>Why this method</h2><ul>{''.join(points)}</ul>"
        f"<h3>What would change it</h3><ul>{''.join(f'<li>{x}</li>' for x in changes)}</ul>"
        f"<h3>How far to trust the number</h3><p>{optimism}</p><p>{smaller}</p></section>"
    )


# ---------------------------------------------------------------------------- errors


def _errors(content: Content) -> str:
    c, e = content.comparison, content.examples
    predictions = c.last(content.choice.name).predictions
    truth = np.concatenate([d.test for d in c.draws[: len(predictions)]])
    y, predicted = e.y[truth], np.concatenate(predictions)
    table = np.zeros((len(e.class_names),) * 2, dtype=np.int64)
    np.add.at(table, (y, predicted), 1)
    found, right = table.sum(axis=1), table.diagonal()
    wrong = table - np.diag(right)
    order = np.argsort(right / found, kind="stable")
    rows = []
    for k in order[:MOST_CLASSES]:
        likely = int(wrong[k].argmax())
        most = (
            f"{escape(e.class_names[likely])} ({_share(wrong[k, likely], found[k])})"
            if wrong[k].any()
            else "nothing"
        )
        rows.append(
            f"<tr><th scope='row'>{escape(e.class_names[k])}</th>"
            f"<td class='number'>{_share(right[k], found[k])}</td><td>{most}</td></tr>"
        )
    more = len(order) - len(rows)
    note = f"<p class='soft'>The {more} classes that do best are not shown.</p>" if more else ""
    caption = (
        "All draws together, hardest class first. An example counts as often as it was held out, "
        "so these shares say where to look; they have no interval."
    )
    body = _scroll(
        f"<table><caption>{caption}</caption><thead><tr><th scope='col'>class</th>"
        "<th scope='col' class='number'>found</th><th scope='col'>most often taken for</th></tr>"
        f"</thead><tbody>{''.join(rows)}</tbody></table>",
        "Errors by class",
    )
    hard = _hardest(e, truth, y, predicted)
    name = escape(content.choice.name)
    return f"<section><h2>Where {name} errs</h2>{body}{note}{hard}</section>"


def _hardest(e: Examples, index: np.ndarray, y: np.ndarray, predicted: np.ndarray) -> str:
    """List examples that were wrong each time they were held out: a label may be wrong there."""
    seen, wrong = (np.bincount(i, minlength=len(e.y)) for i in (index, index[y != predicted]))
    always = np.flatnonzero((seen >= 2) & (wrong == seen))
    always = always[np.argsort(-seen[always], kind="stable")]
    if not len(always):
        return ""
    items = []
    for i in always[:6]:
        said = np.bincount(predicted[index == i]).argmax()
        what = f": “{escape(_cut(e.X[i]))}”" if isinstance(e.X, list) else ""
        items.append(
            f"<li>{escape(e.places[i])}{what} is labelled {escape(e.class_names[e.y[i]])}, "
            f"taken for {escape(e.class_names[said])}</li>"
        )
    more = f" (6 of {len(always)} are shown)" if len(always) > 6 else ""
    return (
        f"<h3>Wrong every time</h3><p>Look at these{more}: the label may be wrong, or the example "
        f"unusual.</p><ul>{''.join(items)}</ul>"
    )


# ---------------------------------------------------------------------------- use


def usage(content: Content) -> list[str]:
    """Return the three lines that use the saved model."""
    e, source = content.examples, content.examples.source
    load = f"model = load_model({content.model_path.as_posix()!r})"
    names, call = "load_model, read_examples", f"read_examples({source.as_posix()!r}).X[:3]"
    if isinstance(e.X, list):
        short = min(e.X, key=lambda text: (len(text) > 60, len(text) < 8, -len(text)))
        names, call = "load_model", f"[{short!r}]"
    elif e.kind == "vectors" and source.suffix.lower() == ".csv" and e.X.shape[1] <= 8:
        names, call = "load_model", repr([e.X[0].tolist()])
    elif source.is_dir():
        file = (source / e.places[0]).as_posix()
        names, call = "load_model, read_images", f"read_images([{file!r}])"
    return [
        f"from fewshot_course.report import {names}",
        load,
        f"print(model.predict({call}))",
    ]


def _use(content: Content) -> str:
    e, model = content.examples, content.model
    lines = escape("\n".join(usage(content)))
    size = content.model_path.name
    needs = ""
    if isinstance(model.features, Encoded):
        needs = (
            " It needs the pretrained encoder, which is not part of the file, and PyTorch or "
            "TensorFlow."
        )
    learned = f"{len(e.known)} labelled"
    if content.comparison.methods and any(
        m.unlabelled and m.name == content.choice.name for m in content.comparison.methods
    ):
        learned += f" and {len(e.unknown)} unlabelled"
    unit = {
        "texts": "a list of texts",
        "vectors": "rows of the same features in the same order",
        "images": "images of the same size, dark and bright as yours",
    }[e.kind]
    return (
        f"<section><h2>Use the model</h2><p>{escape(model.title)} was fitted to all {learned} "
        f"examples and saved in <code>{escape(size)}</code>. The file holds numbers and JSON "
        f"only; reading it runs no code.{needs} It takes {unit}.</p>"
        f'<pre id="use" tabindex="0" role="region" aria-label="Three lines of Python"><code>'
        f"{lines}</code></pre>"
        f"{_unlabelled(e, model)}</section>"
    )


def _unlabelled(e: Examples, model: Model) -> str:
    if not len(e.unknown):
        return ""
    index = e.unknown[:10]
    rows = []
    for i, said in zip(index, model.predict(e.take(index)), strict=True):
        place = escape(e.places[i])
        if isinstance(e.X, list):
            what = escape(_cut(e.X[i]))
        elif e.kind == "images":
            what = _strip(e.take([i]), f"unlabelled example, {place}")
        else:
            what = ""
        rows.append(f"<tr><th scope='row'>{place}</th><td>{what}</td><td>{escape(said)}</td></tr>")
    return _scroll(
        "<table><caption>What it says about your first unlabelled examples: look whether you agree"
        "</caption><thead><tr><th scope='col'>where</th><th scope='col'>example</th>"
        f"<th scope='col'>class</th></tr></thead><tbody>{''.join(rows)}</tbody></table>",
        "Predictions for unlabelled examples",
    )


# ---------------------------------------------------------------------------- protocol


def _protocol(content: Content) -> str:
    packages = f"Python {platform.python_version()}, NumPy {np.__version__}"
    items = [
        f"Each draw holds out a share of {HELD_OUT:.2f} of the different examples of each class, "
        f"at least one. Copies count as one example; one of each group takes part in a draw.",
        "All methods have the same draws. What a method measures on examples (means, scales, "
        "words) it measures on those it learns from.",
        "Settings of the methods are the course's, fixed beforehand. None was tuned on your data.",
        "Repeated draws share examples, so the usual interval over draws would be too narrow. "
        "These are widened by √(1 + n · scored / learned from), as Nadeau and Bengio propose "
        "(Inference for the generalization error, Machine Learning 52, 2003).",
        f"Seed {content.seed}, {content.n_draws} draws; {escape(packages)}. The same command "
        f"gives the same scores.",
    ]
    return (
        "<section><h2>How this was made</h2><ul>"
        + "".join(f"<li>{item}</li>" for item in items)
        + "</ul></section>"
    )


# ---------------------------------------------------------------------------- words


def _percent(interval: Interval) -> str:
    return interval.format()


def _points(difference: Difference, n: bool = True) -> str:
    text = difference.format()
    return text if n else text.partition(", n =")[0]


def _lines(interval: Interval) -> str:
    """Write an interval in two short lines."""
    return interval.format().replace(" [", "<br>[", 1)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %"


def _cut(text: str, most: int = 160) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _some(words: Iterable[str], most: int) -> str:
    listed = list(words)
    return ", ".join(listed[:most]) + (", …" if len(listed) > most else "")


def _scroll(table: str, name: str) -> str:
    """Let a wide table scroll by itself, with the keyboard too."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{name}">{table}</div>'
