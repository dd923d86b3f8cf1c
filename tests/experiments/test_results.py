"""Result lines: what is written comes back, what is damaged is named."""

import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_course.experiments.results import (
    Result,
    ResultsError,
    ResultWriter,
    append_result,
    pack_answers,
    read_results,
    unpack_answers,
)

LINE = Result(
    experiment="toy",
    method="mean",
    framework="numpy",
    data="none",
    preset="quick",
    config={"size": 3, "rate": 0.1, "name": "手写"},
    config_hash="abc",
    seed=0,
    metrics={"accuracy": 1 / 3},
    n_test=10,
    seconds=0.5,
    peak_mb=12.5,
    versions={"numpy": "2.0"},
    device="cpu",
)


def test_a_line_comes_back(tmp_path):
    append_result(tmp_path / "new" / "r.jsonl", LINE)
    append_result(tmp_path / "new" / "r.jsonl", replace(LINE, seed=1))
    assert read_results(tmp_path / "new" / "r.jsonl") == [LINE, replace(LINE, seed=1)]


def test_a_line_has_the_fields_of_the_schema():
    line = json.loads(LINE.to_json())
    wanted = (
        "schema method framework data preset config config_hash seed metrics n_test seconds "
        "peak_mb versions device"
    )
    assert set(wanted.split()) <= line.keys()
    assert line["schema"] == 1


@settings(derandomize=True, deadline=None)
@given(
    value=st.floats(allow_nan=False, allow_infinity=False),
    name=st.text(min_size=1).filter(lambda s: s.isprintable()),
    seed=st.integers(0, 2**63),
)
def test_numbers_and_names_survive_exactly(value, name, seed):
    line = replace(LINE, metrics={name: value}, seed=seed, method=name)
    assert "\n" not in line.to_json()
    assert Result.from_json(line.to_json()) == line


def test_unknown_fields_are_kept():
    line = {**json.loads(LINE.to_json()), "colour": {"of": "later"}}
    again = Result.from_json(json.dumps(line))
    assert again.extra == {"colour": {"of": "later"}}
    assert json.loads(again.to_json()) == line


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "seed must be a whole number >= 0, got -1"),
        ({"seed": True}, "seed"),
        ({"n_test": 1.5}, "n_test must be a whole number"),
        ({"method": ""}, "method must be a text"),
        ({"framework": None}, "framework must be a text"),
        ({"metrics": {"accuracy": float("nan")}}, "'accuracy' must be a finite number, got nan"),
        ({"metrics": {"accuracy": "0.5"}}, "'accuracy' must be a finite number"),
        ({"metrics": {}}, "must have metrics"),
        ({"metrics": [0.5]}, "metrics must be a mapping"),
        ({"seconds": -1.0}, "seconds must be a finite number >= 0"),
        ({"peak_mb": float("inf")}, "peak_mb must be a finite number"),
    ],
)
def test_wrong_values_are_refused_on_writing_and_reading(change, message):
    with pytest.raises(ResultsError, match="Not a result line") as error:
        replace(LINE, **change)
    assert message in str(error.value)
    with pytest.raises(ResultsError) as error:
        Result.from_json(json.dumps({**json.loads(LINE.to_json()), **change}))
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["seed", "versions", "schema", "n_test"])
def test_missing_fields_are_named(name):
    line = json.loads(LINE.to_json())
    del line[name]
    with pytest.raises(ResultsError, match=name):
        Result.from_json(json.dumps(line))


def test_a_later_schema_is_refused():
    line = {**json.loads(LINE.to_json()), "schema": 2}
    with pytest.raises(ResultsError, match="schema 2, this version reads 1"):
        Result.from_json(json.dumps(line))


def test_a_failed_run_has_a_line_and_a_later_success_replaces_it(tmp_path):
    path = tmp_path / "r.jsonl"
    failed = replace(LINE, metrics={}, n_test=0, error="ValueError: no")
    append_result(path, failed)
    assert read_results(path) == [failed]
    append_result(path, LINE)
    assert read_results(path) == [LINE]
    append_result(path, failed)
    assert read_results(path) == [LINE]


def test_every_incomplete_last_line_is_reported_and_mended(tmp_path):
    raw = (LINE.to_json() + "\n").encode()
    for cut in range(1, len(raw) - 1):
        path = tmp_path / "r.jsonl"
        path.write_bytes(raw + raw[:cut])
        with pytest.warns(UserWarning, match="line 2 is incomplete"):
            assert read_results(path) == [LINE]
        append_result(path, replace(LINE, seed=1))
        assert read_results(path) == [LINE, replace(LINE, seed=1)]


def test_a_last_line_without_line_break_is_kept(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text(LINE.to_json())
    append_result(path, replace(LINE, seed=1))
    assert read_results(path) == [LINE, replace(LINE, seed=1)]


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text(LINE.to_json() + "\n" + "{ broken\n" + LINE.to_json() + "\n")
    with pytest.raises(ResultsError, match="line 2 is damaged") as error:
        read_results(path)
    assert str(path) in str(error.value)


def test_a_foreign_file_is_not_touched(tmp_path):
    path = tmp_path / "thesis.txt"
    path.write_text("years of work")
    with pytest.raises(ResultsError, match="no results file"):
        ResultWriter(path)
    assert path.read_text() == "years of work"


FOREIGN = {
    "a table without a last line break": b"name,grade\nAda,1\nGrace,2",
    "a table": b"name,grade\nAda,1\n",
    "JSON lines of somebody else": b'{"a": 1}\n{"b": 2',
    "one JSON object of somebody else": b'{"a": 1}',
    "an archive": b"PK\x03\x04" + bytes(range(256)) * 4,
    "a photo": b"\xff\xd8\xff\xe0\n" + bytes(range(255, -1, -1)),
    "nested without end": b"[" * 100_000,
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_no_byte_of_a_foreign_file_changes(tmp_path, content):
    path = tmp_path / "mine"
    path.write_bytes(content)
    with pytest.raises(ResultsError, match="is no results file; nothing was changed"):
        ResultWriter(path)
    assert path.read_bytes() == content


def test_opening_alone_changes_nothing(tmp_path):
    path = tmp_path / "r.jsonl"
    for content in (LINE.to_json(), LINE.to_json() + "\n" + LINE.to_json()[:50]):
        path.write_text(content)
        with ResultWriter(path):
            pass
        assert path.read_text() == content


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="a system without /dev/null")
def test_a_device_is_no_results_file():
    with pytest.raises(ResultsError, match="/dev/null is no regular file"):
        ResultWriter("/dev/null")


@pytest.mark.parametrize("gone", ["the file", "its folder"])
def test_a_file_deleted_during_the_run_is_written_anew(tmp_path, gone):
    path = tmp_path / "folder" / "r.jsonl"
    lines = [replace(LINE, seed=seed) for seed in range(3)]
    with ResultWriter(path) as writer:
        writer.append(lines[0])
        shutil.rmtree(path.parent) if gone == "its folder" else path.unlink()
        with pytest.warns(UserWarning, match="was deleted during the run; it is written anew"):
            writer.append(lines[1])
        writer.append(lines[2])
    assert read_results(path) == lines


def test_a_full_disk_while_it_is_written_anew_leaves_no_half_file(tmp_path, monkeypatch):
    path = tmp_path / "r.jsonl"
    lines = [replace(LINE, seed=seed) for seed in range(3)]
    real = os.write
    with ResultWriter(path) as writer:
        writer.append(lines[0])
        path.unlink()
        monkeypatch.setattr(os, "write", lambda to, data: real(to, data[: len(data) // 2]))
        failed = pytest.raises(ResultsError, match="No space left")
        with pytest.warns(UserWarning, match="written anew"), failed:
            writer.append(lines[1])
        monkeypatch.undo()
        assert not path.exists()
        with pytest.warns(UserWarning, match="written anew"):
            writer.append(lines[2])  # there is room again, and nothing was lost
    assert read_results(path) == [lines[0], lines[2]]


def test_a_file_that_took_the_place_is_not_touched(tmp_path):
    path = tmp_path / "r.jsonl"
    with ResultWriter(path) as writer:
        writer.append(LINE)
        path.unlink()
        path.write_text("a poem")
        with pytest.raises(ResultsError, match="Another file has taken the place"):
            writer.append(replace(LINE, seed=1))
    assert path.read_text() == "a poem"


def test_unwritable_and_missing_files(tmp_path):
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "file" / "r.jsonl", tmp_path):
        with pytest.raises(ResultsError, match="Cannot write results to") as error:
            ResultWriter(target)
        assert str(target) in str(error.value)
    with pytest.raises(ResultsError, match="Cannot read results from"):
        read_results(tmp_path / "none.jsonl")


def test_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "r.jsonl"
    append_result(path, LINE)
    before = path.read_bytes()
    real = os.write

    def short(descriptor, data):
        return real(descriptor, data[: len(data) // 2])

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    for name, fault in (("write", short), ("fsync", full)):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fault)
            with pytest.raises(ResultsError, match="No space left"):
                append_result(path, replace(LINE, seed=1))
        assert path.read_bytes() == before


def test_two_writers_do_not_meet(tmp_path):
    path = tmp_path / "r.jsonl"
    with ResultWriter(path), pytest.raises(ResultsError, match="Another process is writing"):
        ResultWriter(path)
    with ResultWriter(path) as writer:
        writer.append(LINE)


def test_many_processes_append_without_tearing(tmp_path):
    code = (
        "import sys; from fewshot_course.experiments.results import Result, append_result\n"
        "from dataclasses import replace\n"
        "line = Result.from_json(sys.argv[2])\n"
        "for i in range(50): append_result(sys.argv[1], replace(line, seed=int(sys.argv[3]) + i))"
    )
    path = tmp_path / "r.jsonl"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path), LINE.to_json(), str(1000 * k)],
            cwd=Path(__file__).parents[2],
        )
        for k in range(3)
    ]
    assert [process.wait() for process in started] == [0, 0, 0]
    wanted = {1000 * k + i for k in range(3) for i in range(50)}
    assert {line.seed for line in read_results(path)} == wanted
    assert len(path.read_text().splitlines()) == 150


@pytest.mark.parametrize("n", [1, 7, 8, 600])
@pytest.mark.parametrize("all_asked", [True, False])
def test_answers_come_back_bit_by_bit(tmp_path, n, all_asked):
    rng = np.random.default_rng(n)
    correct = rng.integers(2, size=n).astype(float)
    if not all_asked:
        correct[rng.random(n) < 0.5] = np.nan
    text = pack_answers(correct)
    np.testing.assert_array_equal(unpack_answers(text), correct)
    assert len(text) < 3 * n / 8 + 20
    stored = replace(LINE, answers=text)
    append_result(tmp_path / "r.jsonl", stored)
    (again,) = read_results(tmp_path / "r.jsonl")
    assert again.answers == text


@pytest.mark.parametrize(
    "text",
    ["", "x", "8", "8:", "8:AA==:AA==:AA==", "8:!!", "9:AA==", "99999999999:AA==", "8:/w==:AA=="],
)
def test_answers_that_do_not_fit_together_are_refused(text):
    with pytest.raises(ValueError, match=r"."):
        unpack_answers(text)
    with pytest.raises(ResultsError, match="answers are damaged"):
        replace(LINE, answers=text)
