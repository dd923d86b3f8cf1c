"""The sections of the page about the methods: scores, reasons and errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fewshot_course.report import _charts
from fewshot_course.report._compare import RULE, SLOW_DRAWS, Choice, Comparison
from fewshot_course.report._methods import MAJORITY
from fewshot_course.report._parts import (
    MOST_CLASSES,
    Content,
    cut,
    escape,
    lines,
    points,
    scroll,
    seconds,
    share,
)
from fewshot_course.report._read import Examples


def _reference(c: Comparison) -> str:
    """Return the simplest method that learns."""
    return next(m.name for m in c.methods if m.name != MAJORITY and c.works(m.name))


def comparison(content: Content) -> str:
    c, choice = content.comparison, content.choice
    working = [m for m in c.methods if c.works(m.name)]
    slow = any(m.slow for m in c.methods)
    fewer = f", those that train a network or a mixture {min(SLOW_DRAWS, content.n_draws)}"
    parts = [
        "<section><h2>Which method, and how good?</h2>",
        f"<p>Your labelled examples were split {content.n_draws} times at random. Each time "
        f"{c.n_test} of them were held out, about a third of each class; the methods learned from "
        f"the rest and were scored on the held-out ones. Nothing was chosen on those. Every method "
        f"had {content.n_draws} draws{fewer if slow else ''}.{_criterion(c)}</p>",
    ]
    if len(c.stages) > 1:
        parts.append(_curve_figure(c, choice, [m.name for m in working]))
    parts.append(_score_table(c, choice))
    parts.append(_difference_figure(c, [m.name for m in working]))
    parts.append(_all_stages(c))
    for note in _failures(c) + content.left_out:
        parts.append(f"<p class='soft'>{escape(note)}</p>")
    return "".join(parts) + "</section>"


def _criterion(c: Comparison) -> str:
    if not c.balanced:
        return ""
    return (
        " Your classes are uneven, so the <em>mean over the classes</em> decides: the share that "
        "is right of each class, averaged. Whoever forgets a rare class cannot score well in it."
    )


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
        f"Mean score ({c.criterion}) on held-out examples against labelled examples a class, a "
        f"line a method. "
        "The numbers stand in the table of all sizes below.",
    )
    return (
        f"<figure>{chart}<figcaption>Learning curves: {c.criterion} on the held-out examples. "
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
            difference = points(c.difference(m.name, reference), n=m.slow)
        rows.append(
            f"<tr{' class=chosen' if chosen else ''}><th scope='row'>{name}</th>"
            f"<td class='number'>{lines(c.score(m.name, balanced=False))}</td>"
            f"<td class='number'>{lines(c.score(m.name, balanced=True))}</td>"
            f"<td class='number'>{difference.replace(' [', '<br>[')}</td>"
            f"<td class='number'>{seconds(cell.seconds)}</td></tr>"
        )
    encoded = any("(encoder)" in m.name for m in c.methods)
    encoder = ", without the encoder's, which reads each text once" if encoded else ""
    reading = (
        f"<p>The table has the last point of the curves: {c.stages[-1].n_train} examples to learn "
        f"from, {c.n_test} scored. Each score is the mean over n draws with its 95 % interval. The "
        f"difference is one of {c.criterion}, taken draw by draw; it is clear only where its "
        f"interval leaves out 0. The "
        f"seconds are those of one draw{encoder}. The simplest method stands first.</p>"
    )
    head = "".join(
        f'<th scope="col"{" class=number" if i else ""}>{title}</th>'
        for i, title in enumerate(
            (
                "method",
                "accuracy",
                "mean over<br>classes",
                f"against<br>{escape(reference)}",
                "seconds",
            )
        )
    )
    what = "".join(f"<li>{escape(m.name)}: {escape(m.what)}</li>" for m in c.methods)
    explained = f"<details><summary>What each method does</summary><ul>{what}</ul></details>"
    table = scroll(
        f"<table id='scores'><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>",
        "Scores of all methods",
    )
    return reading + table + explained


def _difference_figure(c: Comparison, names: Sequence[str]) -> str:
    reference = _reference(c)
    rows = []
    for name in names:
        if name not in (reference, MAJORITY):  # the majority class would stretch the axis
            d = c.difference(name, reference)
            rows.append((name, d.mean, d.low, d.high))
    if not rows:
        return ""
    chart = _charts.differences(
        rows,
        f"Difference in {c.criterion} from {reference}, with intervals; the table has the numbers.",
    )
    return (
        f"<figure>{chart}<figcaption>Points ({c.criterion}) more (right) or fewer (left) than "
        f"{escape(reference)}, on the same draws. An interval that crosses the dashed line at 0 "
        f"shows no clear difference.</figcaption></figure>"
    )


def _all_stages(c: Comparison) -> str:
    head = "".join(f'<th scope="col" class="number">{escape(s.title)}</th>' for s in c.stages)
    rows = "".join(
        f"<tr><th scope='row'>{escape(m.name)}</th>"
        + "".join(
            f"<td class='number'>{lines(c.score(m.name, i))}</td>"
            if (m.name, i) in c.cells
            else "<td class='number'>not run</td>"
            for i in range(len(c.stages))
        )
        + "</tr>"
        for m in c.methods
        if c.works(m.name)
    )
    table = scroll(
        f'<table><thead><tr><th scope="col">method</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table>",
        "Score by labelled examples a class",
    )
    reading = (
        f"<p>By labelled examples of each class: {c.criterion}, mean and 95 % interval over n "
        f"draws.</p>"
    )
    return f"<details><summary>All sizes, as a table</summary>{reading}{table}</details>"


def _failures(c: Comparison) -> list[str]:
    notes = []
    for m in c.methods:
        found = [cell.error for (name, _), cell in c.cells.items() if name == m.name]
        if any(found):
            notes.append(f"{m.name} failed and is left out: {next(filter(None, found))}")
    return notes


def why(content: Content) -> str:
    c, choice = content.comparison, content.choice
    name = escape(choice.name)
    reasons = [
        f"<li>The rule, fixed beforehand by a study on public data: {RULE} That is {name}.</li>",
        f"<li>What decides is the {c.criterion}. Against the majority class {name} has "
        f"{points(choice.over_majority)}.</li>",
    ]
    if choice.clear:
        others = [
            f"{escape(other)} ({points(difference, n=False)})"
            for other, difference in choice.clear.items()
            if other != choice.name
        ]
        if others:
            reasons.append(f"<li>Clearly better than it are also: {'; '.join(others)}.</li>")
    else:
        reasons.append(
            "<li>With these examples no method is shown to be better than the majority class. "
            "That does not say that none is: so few examples cannot tell.</li>"
        )
    if choice.behind is not None:
        reasons.append(
            f"<li>{escape(choice.best)} has the highest mean here; the difference of {name} to it "
            f"is {points(choice.behind)}, which may be luck.</li>"
        )
    changes = [
        "With more labelled examples the intervals shrink, and another method may come first: make "
        "the report again."
    ]
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
        f"<section><h2>Why this method</h2><ul>{''.join(reasons)}</ul>"
        f"<h3>What would change it</h3><ul>{''.join(f'<li>{x}</li>' for x in changes)}</ul>"
        f"<h3>How far to trust the number</h3><p>{optimism}</p><p>{smaller}</p></section>"
    )


def errors(content: Content) -> str:
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
            f"{escape(e.class_names[likely])} ({share(wrong[k, likely], found[k])})"
            if wrong[k].any()
            else "nothing"
        )
        rows.append(
            f"<tr><th scope='row'>{escape(e.class_names[k])}</th>"
            f"<td class='number'>{share(right[k], found[k])}</td><td>{most}</td></tr>"
        )
    more = len(order) - len(rows)
    note = f"<p class='soft'>The {more} classes that do best are not shown.</p>" if more else ""
    reading = (
        "<p>All draws together, hardest class first. An example counts as often as it was held "
        "out, so these shares say where to look; they have no interval.</p>"
    )
    body = scroll(
        "<table><thead><tr><th scope='col'>class</th>"
        "<th scope='col' class='number'>found</th><th scope='col'>most often taken for</th></tr>"
        f"</thead><tbody>{''.join(rows)}</tbody></table>",
        "Errors by class",
    )
    hard = _hardest(e, truth, y, predicted)
    name = escape(content.choice.name)
    return f"<section><h2>Where {name} errs</h2>{reading}{body}{note}{hard}</section>"


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
        what = f": “{escape(cut(e.X[i]))}”" if isinstance(e.X, list) else ""
        items.append(
            f"<li>{escape(e.places[i])}{what} is labelled {escape(e.class_names[e.y[i]])}, "
            f"taken for {escape(e.class_names[said])}</li>"
        )
    more = f" (6 of {len(always)} are shown)" if len(always) > 6 else ""
    return (
        f"<h3>Wrong every time</h3><p>Look at these{more}: the label may be wrong, or the example "
        f"unusual.</p><ul>{''.join(items)}</ul>"
    )
