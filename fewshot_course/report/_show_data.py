"""The sections of the page about the data: what there is, and what may mislead."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fewshot_course.report._findings import Finding
from fewshot_course.report._parts import MOST_CLASSES, cut, escape, scroll, some, strip
from fewshot_course.report._read import Examples

_LEVELS = {"fix": "Repair first", "care": "Keep in mind", "note": "Note"}


def data(e: Examples) -> str:
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
        facts.append(("Features", f"{e.X.shape[1]}: {escape(some(e.columns, 8))}"))
    else:
        facts.append(("Size", " × ".join(map(str, e.X.shape[1:])) + " (height × width)"))
    rows = "".join(f"<tr><th scope='row'>{k}</th><td>{v}</td></tr>" for k, v in facts)
    assumed = "".join(f"<li>{escape(remark)}</li>" for remark in e.remarks)
    if assumed:
        assumed = f"<h3>What was assumed while reading</h3><ul>{assumed}</ul>"
    return (
        f"<section><h2>Your data</h2>{scroll(f'<table class=facts>{rows}</table>', 'Summary')}"
        f"{_counts(e)}<h3>A few of them</h3>{_samples(e)}{assumed}</section>"
    )


def _counts(e: Examples) -> str:
    counts = e.counts
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="number">{n:,}</td>'
        f'<td class="bars"><span class="bar" style="width:{100 * n / counts.max():.0f}%"></span>'
        f"</td></tr>"
        for name, n in zip(e.class_names, counts, strict=True)
    )
    table = scroll(
        "<table><thead><tr>"
        '<th scope="col">class</th><th scope="col" class="number">labelled</th>'
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
            f"{strip(e.take(of_class[c][:6]), f'{len(of_class[c][:6])} examples of {name}')}"
            f"</td></tr>"
            for c, name in zip(shown, names, strict=True)
        ]
    elif e.kind == "texts":
        rows = [
            f"<tr><th scope='row'>{name}</th><td>"
            + "<br>".join(escape(cut(text)) for text in e.take(of_class[c][:2]))
            + "</td></tr>"
            for c, name in zip(shown, names, strict=True)
        ]
    else:
        head = "".join(f"<th scope='col' class='number'>{escape(n)}</th>" for n in e.columns[:8])
        rows = [f"<tr><th scope='col'>class</th>{head}</tr>"] + [
            f"<tr><th scope='row'>{name}</th>"
            + "".join(
                f"<td class='number'>{'missing' if np.isnan(v) else f'{v:.6g}'}</td>"
                for v in e.take(of_class[c][:1])[0][:8]
            )
            + "</tr>"
            for c, name in zip(shown, names, strict=True)
        ]
    more = len(e.class_names) - len(shown)
    note = f"<p class='soft'>{more} more classes are not shown.</p>" if more else ""
    return scroll(f"<table><tbody>{''.join(rows)}</tbody></table>", "A few examples") + note


def findings(findings: Sequence[Finding]) -> str:
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
