"""Files as they are published, faults that were silent, and what a saved model must hold to."""

import gzip
import json

import numpy as np
import own_data
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from fewshot_course import cli
from fewshot_course.report import (
    _table,
    load_model,
    predict_file,
    read_examples,
    read_table,
    write_report,
)
from fewshot_course.report._compare import compare, draw_split
from fewshot_course.report._copies import find_copies
from fewshot_course.report._methods import methods_for


def birds(n=90, seed=0):
    """Birds of three species as a field book has them: measures, an island, a sex, gaps."""
    rng = np.random.default_rng(seed)
    kinds = np.array(["Adelie", "Chinstrap", "Gentoo"])[np.arange(n) % 3]
    centre = {"Adelie": (38.8, 18.3), "Chinstrap": (48.8, 18.4), "Gentoo": (47.5, 15.0)}
    X = np.array([centre[k] for k in kinds]) + rng.normal(size=(n, 2)) * [1.5, 0.6]
    frame = pd.DataFrame(X.round(1), columns=["bill_length_mm", "bill_depth_mm"])
    frame["mass_g"] = (4000 + 900 * (kinds == "Gentoo") + rng.integers(-300, 300, n)).astype(float)
    frame["island"] = np.where(kinds == "Gentoo", "Biscoe", rng.choice(["Dream", "Torgersen"], n))
    frame["tagged"] = rng.choice(["True", "False"], n)
    frame["seen"] = [f"2008-{m:02d}-{d:02d}" for m, d in rng.integers(1, 13, (n, 2))]
    frame.loc[[3, 40], ["bill_length_mm", "mass_g"]] = np.nan
    frame.loc[[7, 8], "island"] = None
    frame.insert(0, "species", kinds)
    return frame


def _csv(frame, path, **options):
    frame.to_csv(path, index=False, **options)


WRITE = {
    "plain.csv": lambda f, p: _csv(f, p),
    "as_R_writes.csv": lambda f, p: _csv(f, p, na_rep="NA", quoting=2),
    "german.csv": lambda f, p: _csv(f, p, sep=";", decimal=","),
    "tabs.tsv": lambda f, p: _csv(f, p, sep="\t"),
    "packed.csv.gz": lambda f, p: _csv(f, p),
    "marked.csv": lambda f, p: _csv(f, p, encoding="utf-8-sig"),
    "wide.txt": lambda f, p: _csv(f, p, sep="\t", encoding="utf-16"),
    "row_names.csv": lambda f, p: f.set_axis([f"r{i}" for i in range(len(f))]).to_csv(p),
    "sheet.xlsx": lambda f, p: f.to_excel(p, index=False),
    "table.parquet": lambda f, p: f.to_parquet(p),
    "lines.jsonl": lambda f, p: f.to_json(p, orient="records", lines=True),
    "lines.jsonl.gz": lambda f, p: f.to_json(p, orient="records", lines=True),
}


@pytest.mark.parametrize("name", WRITE)
def test_one_table_in_twelve_kinds_of_file_is_the_same(tmp_path, name):
    frame = birds()
    WRITE["plain.csv"](frame, tmp_path / "first.csv")
    WRITE[name](frame, tmp_path / name)
    first, other = read_examples(tmp_path / "first.csv"), read_examples(tmp_path / name)
    np.testing.assert_allclose(other.X, first.X, atol=1e-9)
    assert other.columns == first.columns
    assert other.class_names == first.class_names == ("Adelie", "Chinstrap", "Gentoo")
    np.testing.assert_array_equal(other.y, first.y)
    kinds = {column.name: column.kind for column in other.table}
    assert kinds == {
        "bill_length_mm": "number", "bill_depth_mm": "number", "mass_g": "number",
        "island": "category", "tagged": "yes/no", "seen": "date",
    }  # fmt: skip
    assert np.isnan(other.X[3, 0])
    told = " ".join(other.remarks)
    assert "Missing values in 'bill_length_mm', 'mass_g', 'island'" in told
    assert "'species'" in told


def test_what_was_assumed_is_told(tmp_path):
    frame = birds()
    _csv(frame, tmp_path / "g.csv", sep=";", decimal=",")
    told = " ".join(read_examples(tmp_path / "g.csv").remarks)
    for words in ("separated by a semicolon", "'mass_g' was read with a decimal comma",
                  "category: 'island'", "date: 'seen'", "yes/no: 'tagged'"):  # fmt: skip
        assert words in told


def test_the_report_on_such_a_file_is_right_most_of_the_time(tmp_path):
    _csv(birds(120), tmp_path / "b.csv", na_rep="NA", quoting=2)
    report = write_report(tmp_path / "b.csv", tmp_path / "r.html", draws=5)
    assert report.comparison.score(report.choice.name).mean >= 0.97
    page = report.page.read_text(encoding="utf-8")
    assert "What was assumed while reading" in page
    assert "missing" in page


@pytest.mark.parametrize("header", ["Label", "target", "Class", " species "])
def test_columns_are_found_by_their_usual_names(tmp_path, header):
    rows = [(f"some words number {i} here now", "ab"[i % 2]) for i in range(6)]
    e = read_examples(own_data.write_csv(tmp_path / "t.csv", ["Text", header], rows))
    assert (e.kind, e.class_names) == ("texts", ("a", "b"))


def test_columns_are_named(tmp_path):
    rows = [(f"w{i}", f"v{i} x", "ab"[i % 2], "cd"[i % 2]) for i in range(6)]
    path = own_data.write_csv(tmp_path / "t.csv", ["text", "note", "label", "mood"], rows)
    e = read_examples(path, label="mood", text="note")
    assert (e.class_names, e.X[0]) == (("c", "d"), "v0 x")
    with pytest.raises(ValueError, match="no column 'moods' for --label; it has 'text', 'note'"):
        read_examples(path, label="moods")
    np.savez(tmp_path / "a.npz", X=np.eye(4), y=[0, 0, 1, 1])
    with pytest.raises(ValueError, match=r"label='y' names a column, and a\.npz is no table"):
        read_examples(tmp_path / "a.npz", label="y")


@pytest.mark.parametrize(("kind", "package"), [("xlsx", "openpyxl"), ("parquet", "pyarrow")])
def test_a_missing_package_is_named(tmp_path, monkeypatch, kind, package):
    WRITE[{"xlsx": "sheet.xlsx", "parquet": "table.parquet"}[kind]](birds(), tmp_path / f"t.{kind}")

    def none(*_, **__):
        raise ImportError("no")

    monkeypatch.setattr(_table.pd, {"xlsx": "read_excel", "parquet": "read_parquet"}[kind], none)
    with pytest.raises(ImportError, match=f"needs the package {package}: pip install {package}"):
        read_examples(tmp_path / f"t.{kind}")


@pytest.mark.parametrize("name", ["t.xlsx", "t.parquet", "t.jsonl", "t.csv.gz"])
def test_damaged_files_are_refused_by_name(tmp_path, name):
    (tmp_path / name).write_bytes(b'{"half": ')
    with pytest.raises(ValueError, match=f"{name} is damaged"):
        read_examples(tmp_path / name)


def test_a_packed_file_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(_table, "MAX_BYTES", 10_000)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a,label\n" + b"1,x\n" * 10_000))
    with pytest.raises(ValueError, match="unpacks to more than 10,000 bytes"):
        read_examples(tmp_path / "t.csv.gz")


@pytest.mark.parametrize("name", ["sheet.xlsx", "table.parquet"])
def test_a_table_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch, name):
    WRITE[name](birds(600), tmp_path / name)
    monkeypatch.setattr(_table, "MAX_BYTES", 5_000)
    with pytest.raises(ValueError, match=r"it unpacks to [\d,]+ bytes; at most 5,000 are read"):
        read_examples(tmp_path / name)


# ---------------------------------------------------------------------------- silent faults


def test_the_unit_of_a_column_changes_nothing(tmp_path):
    """A column around 1e-13 counted as constant; times 1e15 it was right."""
    X, y = own_data.vectors(10)
    said = []
    for unit in (1e-13, 1.0, 1e15):
        np.savez(tmp_path / "u.npz", X=X * unit, y=y)
        e = read_examples(tmp_path / "u.npz")
        methods = methods_for(e, "torch", "off")[0][1:]
        said.append([m.model(e, 0).fit(e.X, e.y).predict(X * unit) for m in methods])
    assert said[0] == said[1] == said[2]
    assert np.mean(np.array(said[0][0]) == np.array(e.class_names)[y]) > 0.7


def test_columns_are_found_by_name_in_any_order(tmp_path):
    _csv(birds(), tmp_path / "b.csv")
    report = write_report(tmp_path / "b.csv", tmp_path / "r.html", draws=3)
    model = load_model(report.model_path)
    frame = read_table(tmp_path / "b.csv")
    turned = frame[list(frame.columns[::-1])]
    assert model.predict(turned) == model.predict(frame)
    np.testing.assert_array_equal(model.predict_proba(turned), model.predict_proba(frame))
    assert model.predict(birds()) == model.predict(frame)  # numbers as numbers, gaps as NaN
    assert list(model.feature_names_in_) == list(frame.columns[1:])
    with pytest.raises(ValueError, match="X has no column 'island'"):
        model.predict(frame.drop(columns="island"))


def test_named_arrays_are_found_by_name_too(tmp_path):
    np.savez(tmp_path / "a.npz", X=own_data.vectors(10)[0], y=own_data.vectors(10)[1])
    e = read_examples(tmp_path / "a.npz")
    model = methods_for(e, "torch", "off")[0][3].model(e, 0).fit(e.X, e.y)
    frame = pd.DataFrame(e.X, columns=e.columns)
    assert model.predict(frame[list(e.columns[::-1])]) == model.predict(e.X)
    with pytest.raises(ValueError, match="no column 'feature 0'"):
        model.predict(frame.set_axis([f"x{j}" for j in range(9)], axis=1))


def sorted_noise(n=80):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(n, 2)), columns=["a", "b"])
    frame["label"] = np.where(np.arange(n) < n // 2, "p", "q")
    return frame, rng


LEAKS = {
    "order_id": lambda rng, n: 1000 + np.cumsum(rng.integers(1, 5, n)),
    "time": lambda rng, n: (
        pd.Timestamp("2024-01-01") + pd.to_timedelta(np.cumsum(rng.integers(1, 9, n)), "h")
    ),
    "falling": lambda rng, n: -np.cumsum(rng.integers(1, 5, n)),
}


@pytest.mark.parametrize("name", LEAKS)
def test_what_follows_the_rows_of_a_sorted_file_is_left_out(tmp_path, name):
    frame, rng = sorted_noise()
    frame[name] = LEAKS[name](rng, len(frame))
    _csv(frame, tmp_path / "s.csv")
    report = write_report(tmp_path / "s.csv", tmp_path / "r.html", draws=5)
    assert report.comparison.score(report.choice.name).low < 0.6
    (finding,) = (f for f in report.findings if "numbers the rows" in f.title)
    assert repr(name) in finding.text
    assert [c.name for c in report.examples.table] == ["a", "b"]


def test_numbers_with_a_point_that_rise_are_told(tmp_path):
    frame, rng = sorted_noise()
    frame["drift"] = np.cumsum(rng.random(len(frame)))
    _csv(frame, tmp_path / "s.csv")
    report = write_report(tmp_path / "s.csv", tmp_path / "r.html", draws=3)
    (finding,) = (f for f in report.findings if f.level == "fix")
    assert "'drift' never falls" in finding.text


def test_a_column_that_says_it_all_is_told(tmp_path):
    frame, rng = sorted_noise()
    frame = frame.sample(frac=1, random_state=0)
    frame["boat"] = np.where(frame["label"] == "p", rng.choice(list("ABC"), len(frame)), "")
    _csv(frame, tmp_path / "s.csv")
    report = write_report(tmp_path / "s.csv", tmp_path / "r.html", draws=3)
    (finding,) = (f for f in report.findings if f.title == "A column that says it all")
    assert "'boat' alone tells 100 %" in finding.text


def test_groups_are_never_on_both_sides(tmp_path):
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(12), 8)
    X = rng.normal(size=(12, 4))[who] + 0.1 * rng.normal(size=(96, 4))  # a person's own place
    label = np.array(["p", "q"])[rng.permutation(12) % 2][who]  # which has nothing to do with it
    frame = pd.DataFrame(X, columns=list("abcd")).assign(
        patient=[f"P{w}" for w in who], label=label
    )
    _csv(frame, tmp_path / "g.csv")
    naive = write_report(tmp_path / "g.csv", tmp_path / "n.html", draws=5)
    assert naive.comparison.score("nearest neighbours").mean > 0.9
    (finding,) = (f for f in naive.findings if f.title == "Rows that may belong together")
    assert "--group 'patient'" in finding.action
    e = read_examples(tmp_path / "g.csv", group="patient")
    copies = find_copies(e)
    for i in range(10):
        split = draw_split(e, copies, np.random.default_rng(i))
        train = np.concatenate(split.train)
        assert not set(who[train]) & set(who[split.test])
        assert {*label[split.test]} == {*label[train]} == {"p", "q"}
    methods = [m for m in methods_for(e, "torch", "off")[0] if m.name == "nearest neighbours"]
    fair = compare(e, copies, methods, 5, 0).score("nearest neighbours")
    assert fair.low < 0.6
    assert fair.high - fair.low > 0.4  # twelve persons are twelve answers


def test_minus_one_is_told(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.eye(9), y=[-1, 0, 1] * 3)
    assert "If -1 is a class" in " ".join(read_examples(tmp_path / "a.npz").remarks)
    frame = pd.DataFrame({"x": np.arange(9.0)[::-1] % 4, "label": [-1, 0, 1] * 3})
    _csv(frame, tmp_path / "a.csv")
    assert read_examples(tmp_path / "a.csv").class_names == ("-1", "0", "1")


# ---------------------------------------------------------------------------- images and texts


def coloured(folder, n=8, size=48):
    """Noise of one brightness, red in one class and green in the other."""
    rng = np.random.default_rng(0)
    for k, name in enumerate(["green", "red"]):
        (folder / "c" / name).mkdir(parents=True)
        for i in range(n):
            x = rng.integers(60, 100, (size, size, 3))
            x[..., 0 if k else 1] += np.round(60 * (0.587 if k else 0.299) / 0.44).astype(int)
            Image.fromarray(x.astype(np.uint8)).save(folder / "c" / name / f"{i}.png")
    return folder / "c"


def test_classes_that_differ_in_colour_alone_are_told_apart(tmp_path):
    report = write_report(coloured(tmp_path), tmp_path / "r.html", draws=3, image_size=32)
    assert report.examples.X.shape == (16, 32, 32, 3)
    assert report.comparison.score(report.choice.name).mean == 1.0
    model = load_model(report.model_path)
    files = sorted((tmp_path / "c" / "red").iterdir())
    assert model.predict(files) == ["red"] * 8
    lines = predict_file(report.model_path, tmp_path / "c", tmp_path / "p.csv")
    assert lines["where"].tolist()[:2] == ["green/0.png", "green/1.png"]
    assert (lines["class"] == lines["where"].str.split("/").str[0]).all()


def test_a_damaged_picture_is_left_out_and_told(tmp_path):
    root = coloured(tmp_path)
    (root / "red" / "2.png").write_bytes((root / "red" / "2.png").read_bytes()[:200])
    e = read_examples(root)
    assert e.counts.tolist() == [8, 7]
    assert "cannot be read: red/2.png" in e.remarks[0]


@pytest.mark.parametrize("name", ["unlabelled", "unlabeled", "Unlabeled"])
def test_a_folder_without_labels_is_no_class(tmp_path, name):
    root = coloured(tmp_path)
    (root / name).mkdir()
    (root / "red" / "0.png").rename(root / name / "0.png")
    e = read_examples(root)
    assert (e.class_names, len(e.unknown)) == (("green", "red"), 1)


GOOD, BAD = "好棒喜欢推荐满意", "差坏退破慢"


def chinese(n=14):
    rng = np.random.default_rng(0)
    rows = {}
    while len(rows) < 2 * n:
        own = GOOD if len(rows) % 2 else BAD
        letters = rng.choice(list("这个东西我们今天买了收到"), 8).tolist()
        letters.insert(int(rng.integers(8)), rng.choice(list(own)))
        letters.insert(int(rng.integers(8)), rng.choice(list(own)))
        rows["".join(letters)] = "good" if own == GOOD else "bad"
    return list(rows.items())


def test_scripts_without_blanks_are_learned_by_characters(tmp_path):
    path = own_data.write_csv(tmp_path / "t.csv", ["text", "label"], chinese())
    report = write_report(path, tmp_path / "r.html", draws=5, encoder="off")
    c = report.comparison
    assert "(characters)" in report.choice.name
    letters = c.score("nearest class mean (characters)").mean
    assert letters > c.score("nearest class mean (words)").mean + 0.2


def test_texts_that_the_encoder_cannot_read_are_told(tmp_path):
    import tiny_bert

    path = own_data.write_csv(tmp_path / "t.csv", ["text", "label"], chinese(6))
    report = write_report(
        path, tmp_path / "r.html", draws=3, encoder=str(tiny_bert.make(tmp_path / "bert"))
    )
    (finding,) = (f for f in report.findings if "cannot read" in f.title)
    assert "100 % of the pieces" in finding.text


# ---------------------------------------------------------------------------- uneven classes


def test_uneven_classes_are_judged_by_their_mean_and_weighed(tmp_path):
    rng = np.random.default_rng(0)
    y = (np.arange(150) % 15 == 0).astype(int)  # ten rare cases
    X = rng.normal(size=(150, 2)) + np.outer(y, [2.2, 0.0])
    np.savez(tmp_path / "u.npz", X=X, y=y)
    report = write_report(tmp_path / "u.npz", tmp_path / "r.html", draws=5)
    c = report.comparison
    assert c.balanced
    assert c.score("majority class").mean == pytest.approx(0.5)
    assert c.score("majority class", balanced=False).mean > 0.9
    weighed = c.score("logistic regression").mean
    assert weighed > 0.75
    assert "mean over the classes, which are uneven" in report.page.read_text()


# ---------------------------------------------------------------------------- command, speed


def test_the_command_predicts(tmp_path):
    frame = birds()
    _csv(frame, tmp_path / "b.csv")
    runner = CliRunner()
    done = runner.invoke(cli.app, ["report", str(tmp_path / "b.csv"), "--label", "species",
                                   "--out", str(tmp_path / "r.html"), "--draws", "3"])  # fmt: skip
    assert done.exit_code == 0, done.output
    frame.drop(columns="species").to_json(tmp_path / "new.jsonl", orient="records", lines=True)
    arguments = [str(tmp_path / "r.safetensors"), str(tmp_path / "new.jsonl")]
    done = runner.invoke(cli.app, ["predict", *arguments, "--out", str(tmp_path / "p.csv")])
    assert done.exit_code == 0, done.output
    table = pd.read_csv(tmp_path / "p.csv")
    assert (table["class"] == frame["species"]).mean() > 0.95
    shares = table.filter(like="probability of ").to_numpy()
    np.testing.assert_allclose(shares.sum(axis=1), 1.0, atol=1e-5)
    done = runner.invoke(cli.app, ["predict", *arguments, "--out", str(tmp_path / "p.txt")])
    assert (done.exit_code, "must end in .csv" in done.output) == (2, True)
    # Predictions of before are written anew; the data themselves are never lost.
    again = runner.invoke(cli.app, ["predict", *arguments, "--out", str(tmp_path / "p.csv")])
    assert again.exit_code == 0, again.output
    before = (tmp_path / "b.csv").read_bytes()
    done = runner.invoke(
        cli.app,
        ["predict", arguments[0], str(tmp_path / "b.csv"), "--out", str(tmp_path / "b.csv")],
    )
    assert (done.exit_code, "something else than predictions" in done.output) == (2, True)
    assert (tmp_path / "b.csv").read_bytes() == before


def test_a_table_of_a_file_is_data_and_no_more(tmp_path):
    for spoiled in ({"kind": "code"}, {"values": [1]}, {"comma": "x"}, {"kind": "category"}):
        facts = _table.Column("a", "number").facts() | spoiled
        with pytest.raises(ValueError, match=r"not known|values belong"):
            _table.Column.from_facts(json.loads(json.dumps(facts)))


def test_many_rows_take_seconds(tmp_path):
    """12,000 rows of 30 numbers took 148 seconds, 100 of them in sorting all distances."""
    import time

    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 12_000)
    X = rng.normal(size=(12_000, 30)) + 0.7 * np.eye(3, 30)[y]
    np.savez(tmp_path / "big.npz", X=X, y=y)
    start = time.process_time()
    report = write_report(tmp_path / "big.npz", tmp_path / "r.html")
    assert time.process_time() - start < 25
    assert report.choice.learns
