"""Every option of every command with something wrong in it: a clear end, never a traceback."""

import json
import re

import pytest
import typer.main
from typer.testing import CliRunner

from fewshot_course import cli
from fewshot_course.experiments import networks
from fewshot_course.experiments.registry import Experiment

WRONG = [
    "",
    "x",
    "-7",
    "nan",
    "1e999",
    "0",
    "no\x1b[31mred",
    "/dev/null/none",
    "\u202etxt",
    "a" * 5000,
]
PLAN = """
- name: tiny
  method: ProtoNet
  framework: torch
  data: {name: glyphs, size: 14}
  seed: 0
  budget: 1
  task: {ways: 5, shots: 1, queries: 5}
  settings: {network: conv4, channels: 4, n_tasks: 1}
  validation: {ways: 5, shots: 1, queries: 5, tasks: 2}
  scores: [{ways: 5, shots: 1, queries: 5, tasks: 2}]
"""


def commands():
    """Yield the words of every command, and the command."""
    main = typer.main.get_command(cli.app)
    for name, command in main.commands.items():
        inner = getattr(command, "commands", None)
        for deeper, one in (inner or {}).items():
            yield (name, deeper), one
        if not inner:
            yield (name,), command


COMMANDS = dict(commands())


@pytest.fixture(autouse=True)
def _nothing_is_computed(monkeypatch, tmp_path):
    scores = {"accuracy": 0.5, "n_test": 10}
    monkeypatch.setattr(Experiment, "function", lambda self: lambda cell, options: dict(scores))
    monkeypatch.setattr(networks, "train_networks", lambda *args, **options: [])
    monkeypatch.setattr(networks, "try_settings", lambda *args, **options: [])
    monkeypatch.setattr("fewshot_course.report.write_report", _no_report)
    monkeypatch.setenv("FEWSHOT_COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.yaml").write_text("experiment: pseudo-labels\nmethods: [supervised]\n")
    (tmp_path / "plan.yaml").write_text(PLAN)
    (tmp_path / "texts.csv").write_text("text,label\n" + "good,1\nbad,0\n" * 4)


def _no_report(*args, **options):
    raise ValueError("the page would be written now")


def base(words):
    """Return arguments with which a command is right, and over soon."""
    if words[0] == "run":
        return [*words, "--seeds", "1", "--framework", "torch"]
    return {
        "sweep": ["sweep", "sweep.yaml", "--out", "r.jsonl"],
        "leaderboard": [
            "leaderboard",
            "--data",
            "tickets",
            "--method",
            "probe",
            "--out",
            "r.jsonl",
        ],
        "train": ["train", "--all", "--plan", "plan.yaml"],
        "estimate": ["estimate", "pseudo-labels", "--method", "supervised", "--steps", "1"],
        "report": ["report", "texts.csv", "--out", "page.html", "--encoder", "off"],
    }.get(words[0], list(words))


def ends(arguments):
    """Run a command; return what is wrong with how it ends, or ``None``."""
    done = CliRunner().invoke(cli.app, arguments)
    if not isinstance(done.exception, SystemExit | None):
        return f"ends in {done.exception!r:.200}"
    if "Traceback" in done.output or done.exit_code not in (0, 1, 2):
        return f"exit code {done.exit_code}: {done.output[-300:]}"
    if re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", done.output):
        return f"prints what a terminal obeys: {done.output!r:.300}"
    if done.exit_code == 1 and len(done.output) > 4000:
        return f"prints {len(done.output)} characters"
    return None


@pytest.mark.parametrize("words", list(COMMANDS), ids=" ".join)
def test_every_option_can_be_wrong(words):
    found = []
    for parameter in COMMANDS[words].params:
        option = next((name for name in parameter.opts if name.startswith("--")), None)
        if parameter.name in ("help", "out", "checkpoints") or getattr(parameter, "is_flag", False):
            continue
        for value in WRONG:
            if option:
                arguments = [*base(words), option, value]
            else:
                arguments = [*words, value, *base(words)[len(words) + 1 :]]
            if wrong := ends(arguments):
                found.append(f"{arguments!r:.300}: {wrong}")
    assert found == [], "\n".join(found)


@pytest.mark.parametrize(
    "words", [w for w in COMMANDS if w[0] in ("run", "sweep", "report")], ids=" ".join
)
@pytest.mark.parametrize("out", ["", "/dev/null/none", "/proc/1/none", "a" * 5000, "."])
def test_an_output_that_cannot_be_written_is_told_at_once(words, out):
    arguments = base(words)
    if "--out" in arguments:
        del arguments[arguments.index("--out") : arguments.index("--out") + 2]
    arguments += ["--out", out]
    assert ends(arguments) is None
    assert CliRunner().invoke(cli.app, arguments).exit_code in (1, 2)


YAML = {
    "deep": "[" * 100_000,
    "aliases": "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b, *b, *b]\n" + "d: [*c, *c]\n" * 3,
    "many": "experiment: pseudo-labels\nseeds: 1000000000\n",
    "no mapping": "3",
    "empty": "",
    "bytes": "\x00\x01",
    "wrong type": "experiment: [1]\nseeds: x\n",
    "unknown": "experiment: no\x1b[31m\n",
    "recursive": "&a [*a]",
    "date": "experiment: 2020-01-01\n",
}


@pytest.mark.parametrize("command", ["sweep", "train", "estimate"])
@pytest.mark.parametrize("content", YAML.values(), ids=YAML)
def test_a_file_that_is_no_plan_is_refused(tmp_path, command, content):
    (tmp_path / "bad.yaml").write_text(content)
    more = {"sweep": ["--out", "r.jsonl"], "train": ["--all"], "estimate": []}[command]
    file = ["--plan", "bad.yaml"] if command == "train" else ["bad.yaml"]
    arguments = [command, *file, *more]
    assert ends(arguments) is None
    assert CliRunner().invoke(cli.app, arguments).exit_code in (1, 2)


def test_a_results_file_of_somebody_else_is_kept(tmp_path):
    for name, content in (("a.csv", b"x,y\n1,2"), ("b.json", json.dumps({"a": 1}).encode())):
        (tmp_path / name).write_bytes(content)
        arguments = ["run", "pseudo-labels", "--seeds", "1", "--out", name]
        assert ends(arguments) is None
        assert (tmp_path / name).read_bytes() == content
