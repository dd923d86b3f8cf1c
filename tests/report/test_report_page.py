"""``fewshot report`` from end to end: page, model, recommendation, and nothing half-written."""

import base64
import html
import io
import os
import re
import subprocess
import sys

import html_checks
import numpy as np
import own_data
import pytest
from bs4 import BeautifulSoup
from PIL import Image
from typer.testing import CliRunner

from fewshot_course import cli
from fewshot_course.report import load_model, write_report
from fewshot_course.report._findings import wilson
from fewshot_course.report._page import GENERATOR
from fewshot_course.weights import save_arrays

KINDS = {
    "texts": lambda folder: own_data.text_csv(folder, 6),
    "vectors": lambda folder: own_data.vector_npz(folder, 9, unlabelled=6),
    "csv": lambda folder: own_data.vector_csv(folder),
    "images": lambda folder: own_data.image_folder(folder, 5),
}


@pytest.fixture(scope="module", params=KINDS)
def report(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    source = KINDS[request.param](folder)
    return write_report(source, folder / "report.html", draws=3, encoder="off")


def page_of(report):
    return BeautifulSoup(report.page.read_text(encoding="utf-8"), "html.parser")


def words_of(tag):
    return " ".join(tag.get_text(" ").split())


def test_the_page_stands_alone(report):
    folder = report.page.parent / "alone"
    folder.mkdir()
    (folder / "report.html").write_bytes(report.page.read_bytes())
    assert html_checks.external_resources(folder) == []
    assert html_checks.dead_links(folder) == []
    assert html_checks.pictures_without_text(folder) == []
    page = page_of(report)
    assert not page.find_all(["script", "link"], src=True)
    assert len(page.find_all("h1")) == 1
    for chart in page.select("svg[role=img]"):
        assert chart["aria-label"]


def test_the_page_tells_the_numbers_of_the_comparison(report):
    page, c = page_of(report), report.comparison
    rows = {words_of(row.th): words_of(row) for row in page.select("#scores tbody tr")}
    assert len(rows) == len(c.methods)
    for method in c.methods:
        recommended = " (recommended)" if method.name == report.choice.name else ""
        assert c.score(method.name).format() in rows[method.name + recommended]
    short = words_of(page.select_one("section.short"))
    assert report.choice.name in short
    assert c.score(report.choice.name).format() in short
    every = words_of(page)
    assert f"split {len(c.draws)} times" in every
    assert f"{c.n_test} of them were held out" in every
    for name, n in zip(report.examples.class_names, report.examples.counts, strict=True):
        assert f"{name} {n}" in every
    for finding in report.findings:
        assert finding.title in every
        assert " ".join(finding.text.split()) in every


def test_the_three_lines_on_the_page_work(report):
    lines = html.unescape(page_of(report).select_one("pre#use").get_text())
    assert len(lines.splitlines()) == 3
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    said = re.findall(r"'([^']*)'", done.stdout)
    assert said
    assert set(said) <= set(report.examples.class_names)


def test_the_saved_model_is_that_of_the_report(report):
    again, e = load_model(report.model_path), report.examples
    queries = e.take(np.arange(len(e.y)))
    assert again.predict(queries) == report.model.predict(queries)
    assert again.title == report.choice.name


def test_the_model_learned_from_all_labelled_examples(tmp_path):
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    X, y = own_data.vectors(9, apart=30.0)  # so far apart that every method is right
    np.savez(tmp_path / "far.npz", X=X, y=y)
    report = write_report(tmp_path / "far.npz", tmp_path / "r.html", draws=3)
    assert report.choice.name == "logistic regression"
    scaler = StandardScaler().fit(X)
    expected = LogisticRegression(max_iter=2000).fit(scaler.transform(X), y)
    queries = 4 * np.random.default_rng(1).standard_normal((50, 9))
    assert report.model.predict(queries) == [
        str(label) for label in expected.predict(scaler.transform(queries))
    ]
    np.testing.assert_allclose(
        report.model.predict_proba(queries),
        expected.predict_proba(scaler.transform(queries)),
        atol=1e-8,
    )


def test_pictures_on_the_page_are_those_of_the_folder(tmp_path):
    report = write_report(own_data.image_folder(tmp_path, 3), tmp_path / "r.html", draws=3)
    strip = page_of(report).select_one("img[alt='3 examples of upright']")
    data = base64.b64decode(strip["src"].partition("base64,")[2])
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("L")) / 255
    side = report.examples.X.shape[1]
    first = report.examples.X[np.flatnonzero(report.examples.y == 1)[0]]
    np.testing.assert_allclose(pixels[1 : side + 1, 1 : side + 1], first, atol=0.003)


def test_markup_in_the_data_is_shown_and_not_obeyed(tmp_path):
    evil = "<script>alert(1)</script>"
    rows = [(f"{text} {evil}", f"<b>{label}") for text, label in own_data.texts(4)]
    source = own_data.write_csv(tmp_path / "a<i>.csv", ["text", "label"], rows)
    report = write_report(source, tmp_path / "r.html", draws=3, encoder="off")
    page = page_of(report)
    assert not page.find_all(["script", "b", "i"])
    assert evil in page.get_text()


def findings_for(tmp_path, header, rows, **options):
    source = own_data.write_csv(tmp_path / "d.csv", header, rows)
    report = write_report(source, tmp_path / "r.html", draws=3, encoder="off", **options)
    return {finding.title: finding for finding in report.findings}


def test_each_planted_fault_of_texts_is_told(tmp_path):
    rows = own_data.texts(12)
    rows = [row for i, row in enumerate(rows) if row[1] != "login" or i < 10]
    rows += [(rows[0][0].upper(), rows[0][1]), (rows[1][0], "money"), (rows[4][0] + "s", "parcel")]
    rows += [("word " * 100, "money")]
    found = findings_for(tmp_path, ["text", "label"], rows)
    wanted = {
        "The same example with different labels": "line 3 (parcel) = ",
        "Copies": "2 examples are copies",
        "Near copies": "line 6 (parcel) = ",
        "Uneven classes": "'login' has 3",
        "Few labels in a class": "'login' (3)",
        "A small held-out part": "(Wilson's interval)",
        "Long texts": "1 text has more than 90 words",
    }
    assert set(found) == set(wanted)
    for title, words in wanted.items():
        assert words in found[title].text
        assert found[title].action
    assert found["The same example with different labels"].level == "fix"


def test_each_planted_fault_of_columns_is_told(tmp_path):
    X, y = own_data.vectors(40)
    rows = [[i, 3.5, *x, label] for i, (x, label) in enumerate(zip(X.tolist(), y, strict=True))]
    header = ["id", "unit", *(f"f{j}" for j in range(9)), "label"]
    found = findings_for(tmp_path, header, rows)
    assert set(found) == {"A column that numbers the rows", "Columns that never change"}
    assert found["A column that numbers the rows"].level == "care"
    assert "'id'" in found["A column that numbers the rows"].text
    assert "'unit'" in found["Columns that never change"].text


def test_good_data_get_no_warning(tmp_path):
    X, y = own_data.vectors(40)
    rows = [[*x, label] for x, label in zip(X.tolist(), y, strict=True)]
    assert findings_for(tmp_path, [*(f"f{j}" for j in range(9)), "label"], rows) == {}


def test_an_empty_image_is_told(tmp_path):
    root = own_data.image_folder(tmp_path, 4)
    Image.new("L", (28, 28), 7).save(root / "flat" / "blank.png")
    report = write_report(root, tmp_path / "r.html", draws=3)
    assert any(f.title == "Empty images" and "flat/blank.png" in f.text for f in report.findings)


def test_labels_that_mean_nothing_are_not_recommended_a_method(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "n.npz", X=rng.standard_normal((60, 9)), y=np.arange(60) % 2)
    report = write_report(tmp_path / "n.npz", tmp_path / "r.html", draws=5)
    assert not report.choice.learns
    assert "Label more examples first" in page_of(report).select_one("section.short").get_text()


@pytest.mark.parametrize(("share", "n"), [(0.5, 10), (0.0, 3), (1.0, 8), (0.83, 18)])
def test_wilson_is_scipys(share, n):
    from scipy.stats import binomtest

    k = round(share * n)
    expected = binomtest(k, n).proportion_ci(method="wilson")
    np.testing.assert_allclose(wilson(k / n, n), (expected.low, expected.high), atol=1e-9)


# ---------------------------------------------------------------------------- command, errors


def fewshot(*arguments):
    return CliRunner().invoke(cli.app, ["report", *map(str, arguments)])


def test_the_command_writes_page_and_model(tmp_path):
    out = tmp_path / "mine.html"
    source = own_data.vector_csv(tmp_path)
    done = fewshot(source, "--out", out, "--draws", 3, "--seed", 2)
    assert done.exit_code == 0, done.output
    report = write_report(source, tmp_path / "other.html", draws=3, seed=2)
    score = report.comparison.score(report.choice.name).format()
    assert f"{report.choice.name}: {score}" in done.stdout
    assert sorted(path.name for path in tmp_path.glob("mine*")) == ["mine.html", "mine.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rows.csv", "--out", "r.txt"], "must end in .html"),
        (["rows.csv", "--out", "no/r.html"], "folder 'no' does not exist"),
        (["rows.csv", "--out", "r.html", "--draws", "1"], "draws must lie in [3, 1000]"),
        (["rows.csv", "--out", "r.html", "--framework", "jax"], "framework='jax' is not known"),
        (["rows.csv", "--out", "r.html", "--encoder", "big"], "encoder='big'"),
        (["nothing.csv", "--out", "r.html"], "no file or folder 'nothing.csv'"),
        (["broken.csv", "--out", "r.html"], "line 3, column 'a' holds inf"),
    ],
)
def test_errors_are_one_line_and_leave_nothing_behind(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    own_data.vector_csv(tmp_path)
    own_data.write_csv(tmp_path / "broken.csv", ["a", "label"], [(1, "p"), ("inf", "q")])
    before = sorted(tmp_path.iterdir())
    done = fewshot(*arguments)
    assert done.exit_code == 2
    assert message in done.output
    assert len(done.stderr.strip().splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_failure_at_the_end_leaves_the_old_page(tmp_path, monkeypatch):
    source, out = own_data.vector_csv(tmp_path), tmp_path / "r.html"
    old = f'<meta name="generator" content="{GENERATOR}">the old page'
    out.write_text(old)
    before = sorted(tmp_path.iterdir())

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fewshot_course.report._model.save_arrays", full)
    done = fewshot(source, "--out", out, "--draws", 3)
    assert done.exit_code == 2
    assert "No space left" in done.output
    assert out.read_text() == old
    assert sorted(tmp_path.iterdir()) == before


def test_files_of_others_are_not_replaced(tmp_path):
    source, out = own_data.vector_csv(tmp_path), tmp_path / "q.html"
    other = tmp_path / "q.safetensors"
    save_arrays(other, {"a": np.ones(3)}, {"format": "somebody else's"})
    before = other.read_bytes()
    done = fewshot(source, "--out", out, "--draws", 3)
    assert done.exit_code == 2
    assert "q.safetensors' would be replaced" in done.output
    assert other.read_bytes() == before
    assert not out.exists()
    other.unlink()
    out.write_text("<p>my own notes</p>")
    assert "q.html' would be replaced" in fewshot(source, "--out", out, "--draws", 3).output
    assert out.read_text() == "<p>my own notes</p>"
    assert fewshot(source, "--out", out, "--draws", 3, "--force").exit_code == 0
    assert fewshot(source, "--out", out, "--draws", 3).exit_code == 0  # our own, this time


@pytest.mark.parametrize("label", ["\u202eevil", "bell\x07", "red\x1b[31m", "half \udc80"])
def test_labels_that_steer_are_written_out(tmp_path, label):
    """In the terminal and on the page: escape sequences, turned lines, halves of characters."""
    X = np.random.default_rng(0).normal(size=(16, 4))
    y = np.array([label, "plain"] * 8)
    X[:, 0] += 3 * (y == "plain")
    np.savez(tmp_path / "data.npz", X=X, y=y)
    out = tmp_path / "r.html"
    done = fewshot(tmp_path / "data.npz", "--out", out, "--draws", 3)
    steering = re.compile("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\ud800-\udfff]")
    assert not steering.search(done.output)
    if "\udc80" in label:
        assert done.exit_code == 2
        assert "half a character" in done.output
        assert not out.exists()
        return
    assert done.exit_code == 0, done.output
    page = out.read_text(encoding="utf-8")
    assert not steering.search(page)
    assert ascii(label)[1:-1] in page


def test_a_file_name_that_is_no_utf8_ends_nothing(tmp_path):
    folder = own_data.image_folder(tmp_path)
    picture = next(folder.rglob("*.png"))
    picture.rename(os.fsdecode(os.fsencode(picture.parent) + b"/caf\xe9.png"))
    done = fewshot(folder, "--out", tmp_path / "r.html", "--draws", 3)
    assert done.exit_code == 0, done.output
