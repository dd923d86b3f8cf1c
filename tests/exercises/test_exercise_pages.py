"""Exercise files and the pages made from them."""

import html
import re
import subprocess
import sys
from pathlib import Path

import pytest
from exercise_files import ANY, ExerciseError, read_exercise

ROOT = Path(__file__).parents[2]
FILES = sorted(ROOT.glob("chapters/**/exercises/*.py"))

DOCSTRING = '''r"""Double it

Return $2x$.

Hint: Add $x$ to itself.

Check: demo.double
"""
'''
BODY = '''
def double(x):
    """Return 2 x."""
    # --- your code: twice as much
    secret = x + x
    return secret
    # --- end
'''
BOTH = f"{DOCSTRING}\n# %% torch\nimport torch\n{BODY}\n# %% tensorflow\nimport tensorflow\n{BODY}"

CONF = """
import sys
sys.path.insert(0, {ext!r})
extensions = ["myst_nb", "sphinx_design", "sphinx_exercise", "exercise_pages"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
nb_execution_mode = "off"
html_theme = "basic"
nitpicky = True
suppress_warnings = ["misc.copy_overwrite"]
"""


def write(folder, text, name="demo"):
    path = folder / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def build(folder, page):
    """Build a book of one page strictly; return the exit code, the warnings and the HTML."""
    (folder / "conf.py").write_text(CONF.format(ext=str(ROOT / "book" / "_ext")))
    (folder / "index.md").write_text(page, encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(folder)]
    done = subprocess.run(
        [*command, str(folder / "_build")], capture_output=True, text=True, check=False
    )
    built = folder / "_build" / "index.html"
    return done.returncode, done.stderr, built.read_text("utf-8") if built.exists() else ""


def plain(fragment):
    return html.unescape(re.sub(r"<[^>]+>", "", fragment))


def split_page(page, name):
    """Return the HTML of one exercise: what is seen at once, and the hidden solution."""
    one = page[page.index(f'id="exercise-{name}"') :].split('class="exercise-file', 1)[0]
    seen, _, solution = one.partition("Solution</span>")
    return seen, solution


def test_parts_and_gaps(tmp_path):
    one = read_exercise(write(tmp_path, DOCSTRING + BODY))
    assert (one.title, one.task, one.check) == ("Double it", "Return $2x$.", "demo.double")
    assert (one.hint, one.function) == ("Add $x$ to itself.", "double")
    assert one.stub(ANY) == (
        'def double(x):\n    """Return 2 x."""\n    # Your code: twice as much\n    ...'
    )
    assert one.solution(ANY) == (
        'def double(x):\n    """Return 2 x."""\n    secret = x + x\n    return secret'
    )
    both = read_exercise(write(tmp_path, BOTH))
    assert list(both.code) == ["torch", "tensorflow"]
    assert both.stub("tensorflow").startswith("import tensorflow")
    assert "secret" not in both.stub("torch") + both.stub("tensorflow")


FAULTS = {
    "no docstring": (BODY, "has no docstring"),
    "no hint": (DOCSTRING.replace("Hint: ", "") + BODY, "a paragraph 'Hint: ...'"),
    "no check": (DOCSTRING.replace("Check: ", "") + BODY, "line 'Check: topic.function'"),
    "no gap": (DOCSTRING + "def double(x):\n    return 2 * x\n", "has no gap"),
    "no function": (DOCSTRING + BODY.replace("def double", "def twice"), "does not define double"),
    "gap not closed": (DOCSTRING + BODY.replace("    # --- end\n", ""), "a gap without its end"),
    "end without gap": (DOCSTRING + BODY + "# --- end\n", "inside or outside of a gap"),
    "gap in a gap": (
        DOCSTRING + BODY.replace("    return", "    # --- your code\n    return"),
        "inside or outside of a gap",
    ),
    "marker misspelt": (DOCSTRING + BODY.replace("# --- end", "# -- end"), "nearly a gap marker"),
    "marker in capitals": (
        DOCSTRING + BODY + "# --- Your code\n",
        "nearly a gap marker",
    ),
    "one framework": (BOTH.partition("# %% tensorflow")[0], "has no section '# %% tensorflow'"),
    "unknown framework": (BOTH.replace("%% torch", "%% jax"), "section 'jax'"),
    "framework twice": (BOTH.replace("%% tensorflow", "%% torch"), "section 'torch'"),
    "code above sections": (BOTH.replace('"""\n\n#', '"""\nx = 1\n#', 1), "code above the first"),
    "syntax": (DOCSTRING + "def double(x:\n", "line 9: "),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_files_are_named(fault, tmp_path):
    text, message = FAULTS[fault]
    with pytest.raises(ExerciseError, match=re.escape(message)) as error:
        read_exercise(write(tmp_path, text))
    assert "demo.py" in str(error.value)


def test_missing_file_names_what_is_there(tmp_path):
    write(tmp_path, BOTH, "other")
    with pytest.raises(ExerciseError, match=r"no exercise demo.py \(exercises there: other\)"):
        read_exercise(tmp_path / "demo.py")


@pytest.fixture(scope="module")
def course_page(tmp_path_factory):
    """All exercises of the course on one strictly built page."""
    folder = tmp_path_factory.mktemp("book")
    lines = ["# Exercises", ""]
    for path in FILES:
        # Citations need the course's bibliography, which this small book does not have.
        text = re.sub(r"\s*\{cite:p\}`\w+`", "", path.read_text(encoding="utf-8"))
        write(folder / "exercises", text, path.stem)
        lines += [
            f"```{{exercise-file}} {path.stem}",
            "```",
            "",
            f"{{ref}}`exercise-{path.stem}`",
            "",
        ]
    code, stderr, page = build(folder, "\n".join(lines))
    assert code == 0, stderr
    return page


def test_no_id_stands_twice(course_page):
    ids = re.findall(r'\sid="([^"]+)"', course_page)
    assert len(ids) == len(set(ids)) > 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_page_shows_task_stub_check_hint_and_hides_the_solution(course_page, path):
    one = read_exercise(path)
    seen, solution = split_page(course_page, path.stem)
    assert one.title in plain(seen)
    assert f'check("{one.check}", {one.function})' in plain(seen)
    for key in one.code:
        assert one.stub(key) in plain(seen)
        assert one.solution(key) in plain(solution)
        hidden = set(one.solution(key).splitlines()) - set(one.stub(key).splitlines())
        assert hidden
        assert not [line for line in hidden if line.strip() in plain(seen)]
    for part in (seen, solution):
        if ANY not in one.code:
            assert re.findall(r'data-sync-group="(\w+)"', part) == ["framework"] * 2
            assert re.findall(r'data-sync-id="(\w+)"', part) == ["torch", "tensorflow"]
            assert re.findall(r"\n(PyTorch|TensorFlow)</label>", part) == ["PyTorch", "TensorFlow"]
    # Hint and solution stand in drop-downs that are closed at first.
    details = re.findall(r"<details[^>]*>", seen + solution)
    assert len(details) == 2
    assert not [tag for tag in details if " open" in tag]
    assert seen.index("<details") < seen.index("Hint</span>")


def test_page_for_every_framework_has_no_tabs(tmp_path):
    write(tmp_path / "exercises", DOCSTRING + BODY)
    code, stderr, page = build(tmp_path, "# Page\n\n```{exercise-file} demo\n```\n")
    assert code == 0, stderr
    seen, solution = split_page(page, "demo")
    assert "data-sync" not in page
    assert "secret" not in plain(seen)
    assert "return secret" in plain(solution)


def test_fault_fails_the_build(tmp_path):
    write(tmp_path / "exercises", DOCSTRING + BODY.replace("# --- end", "# -- end"))
    page = "# Page\n\n```{exercise-file} demo\n```\n\n```{exercise-file} absent\n```\n"
    code, stderr, built = build(tmp_path, page)
    assert code != 0
    assert "nearly a gap marker" in stderr
    assert "there is no exercise absent.py (exercises there: demo)" in stderr
    assert "index.md:3" in stderr
    assert "secret" not in built
