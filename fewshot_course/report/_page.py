"""The page: one HTML file that stands alone."""

from __future__ import annotations

import platform

import numpy as np

import fewshot_course
from fewshot_course.report._compare import HELD_OUT, next_gain
from fewshot_course.report._methods import MAJORITY
from fewshot_course.report._model import Encoded, Model
from fewshot_course.report._parts import Content, cut, escape, percent, points, scroll, strip
from fewshot_course.report._read import Examples
from fewshot_course.report._show_data import data, findings
from fewshot_course.report._show_scores import comparison, errors, why
from fewshot_course.report._style import STYLE

GENERATOR = "fewshot-course report"
"""Stands in the head of a page, by which a page is recognised as one of ours."""


def render(content: Content) -> str:
    """Return the page."""
    title = f"Report on {content.examples.source.name}"
    sections = [
        _short(content),
        data(content.examples),
        findings(content.findings),
        comparison(content),
        why(content),
        errors(content),
        _use(content),
        _protocol(content),
    ]
    safety = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{safety}">\n'
        f'<meta name="generator" content="{GENERATOR}">\n'
        f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{escape(title)}</h1>\n"
        + "\n".join(sections)
        + f"\n<footer class='soft'>Made by fewshot-course {escape(fewshot_course.__version__)}, "
        f"command <code>fewshot report</code>. No part of this page comes from the network."
        f"</footer>\n</main>\n</body>\n</html>\n"
    )


def _short(c: Content) -> str:
    choice, comparison_ = c.choice, c.comparison
    name, score = escape(choice.name), comparison_.score(choice.name)
    decides = "" if not comparison_.balanced else " (mean over the classes, which are uneven)"
    numbers = (
        f"right on <strong>{percent(score)}</strong> of the held-out examples{decides}, after "
        f"learning from {comparison_.stages[-1].n_train} labelled ones. Always saying the "
        f"commonest class is right on {percent(comparison_.score(MAJORITY))}."
    )
    if choice.learns:
        n = len(choice.clear)
        tried = len([m for m in comparison_.methods if comparison_.works(m.name)]) - 1
        head = (
            f"<p>Use <span class='method'>{name}</span>.</p><p>It is {numbers} Of {tried} methods "
            f"{n} {'is' if n == 1 else 'are'} clearly better than that.</p>"
        )
    else:
        head = (
            "<p><span class='method'>Label more examples first.</span></p>"
            f"<p>With these examples no method is shown to be better than always saying the "
            f"commonest class. The best guess, {name}, is {numbers} It is saved so that you can "
            f"try it. Do not rely on it.</p>"
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
    step = f"Going from {before} to {stages[-1].n_train} labelled examples brought {points(gain)}"
    more = next_gain(c.comparison, c.choice.name)
    guess = (
        f" If the curve goes on as it did, twice as many would bring about {100 * more:+.1f} "
        f"points (a guess, by error = a + b/√n)."
        if more is not None
        else ""
    )
    if gain.low > 0:
        return f"{step}. The curve still rises: labelling more is likely to help.{guess}"
    flat = "That is no clear gain: the curve is flat here, or too few examples show it."
    return f"{step}. {flat}{guess}"


def usage(content: Content) -> list[str]:
    """Return the three lines that use the saved model."""
    e, source = content.examples, content.examples.source
    load = f"model = load_model({content.model_path.as_posix()!r})"
    names, call = "load_model, read_examples", f"read_examples({source.as_posix()!r}).X[:3]"
    if isinstance(e.X, list):
        short = min(e.X, key=lambda text: (len(text) > 60, len(text) < 8, -len(text)))
        names, call = "load_model", f"[{short!r}]"
    elif e.table:
        return [
            "from fewshot_course.report import load_model, read_table",
            load,
            f"print(model.predict(read_table({source.as_posix()!r}).head(3)))",
        ]
    elif source.is_dir():
        file = (source / e.places[0]).as_posix()
        names, call = "load_model", f"[{file!r}]"
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
        "vectors": "a table with the same columns, which it finds by name"
        if e.table
        else "rows of the same features in the same order",
        "images": "image files, or images of the same size",
    }[e.kind]
    command = f"fewshot predict {content.model_path.name} DATA --out predictions.csv"
    return (
        f"<section><h2>Use the model</h2><p>{escape(model.title)} was fitted to all {learned} "
        f"examples and saved in <code>{escape(size)}</code>. The file holds numbers and JSON "
        f"only; reading it runs no code.{needs} It takes {unit}.</p>"
        f'<pre id="use" tabindex="0" role="region" aria-label="Three lines of Python"><code>'
        f"{lines}</code></pre>"
        f"<p>Or on the command line, with the probability of each class:</p>"
        f'<pre tabindex="0" role="region" aria-label="The command"><code>{escape(command)}</code>'
        f"</pre>{_unlabelled(e, model)}{_label_next(content)}</section>"
    )


def _unlabelled(e: Examples, model: Model) -> str:
    if not len(e.unknown):
        return ""
    index = e.unknown[:10]
    rows = []
    for i, said in zip(index, model.predict(e.take(index)), strict=True):
        place = escape(e.places[i])
        if isinstance(e.X, list):
            what = escape(cut(e.X[i]))
        elif e.kind == "images":
            what = strip(e.take([i]), f"unlabelled example, {place}")
        else:
            what = ""
        rows.append(f"<tr><th scope='row'>{place}</th><td>{what}</td><td>{escape(said)}</td></tr>")
    reading = "<p>What it says about your first unlabelled examples. Look whether you agree.</p>"
    return reading + scroll(
        "<table><thead><tr><th scope='col'>where</th><th scope='col'>example</th>"
        f"<th scope='col'>class</th></tr></thead><tbody>{''.join(rows)}</tbody></table>",
        "Predictions for unlabelled examples",
    )


def _label_next(content: Content) -> str:
    e, order = content.examples, content.label_next
    if not len(order):
        return ""
    items = "".join(
        f"<li>{escape(e.places[i])}"
        + (f": “{escape(cut(e.X[i]))}”" if isinstance(e.X, list) else "")
        + "</li>"
        for i in order
    )
    return (
        "<h3>Which examples to label next</h3><p>Of your unlabelled examples these are what the "
        "model is least sure about, each from another corner of your data. In the course's study "
        "that was worth up to a few points more than drawing at random on most data sets. Yours "
        "may be another case, so label some at random too: only on those can you score a "
        "model.</p>"
        f"<ol>{items}</ol>"
    )


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
        "(Inference for the generalization error, Machine Learning 52, 2003), and are never "
        "narrower than the binomial one of the different examples that were scored.",
        "“Clearly better than the commonest class” is said after Holm's correction for the number "
        "of methods.",
        f"Seed {content.seed}, {content.n_draws} draws; {escape(packages)}. The same command "
        f"gives the same scores.",
    ]
    return (
        "<section><h2>How this was made</h2><ul>"
        + "".join(f"<li>{item}</li>" for item in items)
        + "</ul></section>"
    )
