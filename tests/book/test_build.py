"""The book builds strictly, and the strictness is real."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from building import ROOT, build_strictly
from demo_book import cell, notebook, png, printed, shown, write
from nbformat.v4 import new_output

# The extensions under plain Sphinx: nothing here may need jupyter-book 1.
PLAIN_CONF = """
import sys
sys.path.insert(0, {ext!r})
extensions = ["myst_nb", "sphinx_design", "framework_switch"]
nb_execution_mode = "off"
html_theme = "basic"
html_theme_options = {{}}
myst_enable_extensions = ["dollarmath", "colon_fence"]
"""


def test_the_book_has_all_pages_of_its_table_of_contents(book_html: Path) -> None:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    files = [toc["root"], *(chapter["file"] for chapter in chapters)]
    files += [inner["file"] for chapter in chapters for inner in chapter.get("sections", [])]
    for file in files:
        stem = file.removesuffix(".ipynb").removesuffix(".md")
        assert (book_html / f"{stem}.html").is_file(), file


def test_the_top_leads_to_the_front_page(book_html: Path) -> None:
    assert "url=book/index.html" in (book_html / "index.html").read_text(encoding="utf-8")


def test_a_dead_reference_fails_the_build(tmp_path: Path) -> None:
    write(tmp_path / "source", ROOT)
    index = tmp_path / "source/book/index.md"
    index.write_text(index.read_text() + "\nSee [this](nowhere.md) and {cite}`nobody2030`.\n")
    result = build_strictly(tmp_path / "source", tmp_path / "out")
    assert result.returncode == 1
    assert "nowhere" in result.stderr
    assert "nobody2030" in result.stderr


def test_the_repository_address_stands_once() -> None:
    address = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"][
        "url"
    ]
    files = [
        *(ROOT / "book").rglob("*.md"),
        *(ROOT / "book").rglob("*.py"),
        *(ROOT / "book").rglob("*.js"),
    ]
    # Install cells carry it too, made from _config.yml; the notebooks' own tests compare them.
    files = [path for path in files if not path.with_suffix(".ipynb").exists()]
    assert [str(path) for path in files if address in path.read_text(encoding="utf-8")] == []


def test_our_own_assets_are_small() -> None:
    sizes = [path.stat().st_size for path in (ROOT / "book/_static").rglob("*") if path.is_file()]
    assert sum(sizes) <= 300_000


def run_plain_sphinx(
    source: Path, index: str, **notebooks: str
) -> subprocess.CompletedProcess[str]:
    (source / "chapters/t").mkdir(parents=True)
    (source / "conf.py").write_text(PLAIN_CONF.format(ext=str(ROOT / "book/_ext")))
    (source / "index.md").write_text(
        "# Root\n\n```{toctree}\nchapters/t/index\nchapters/t/torch\nchapters/t/tensorflow\n```\n"
    )
    (source / "chapters/t/index.md").write_text(index)
    for stem, text in notebooks.items():
        (source / f"chapters/t/{stem}.ipynb").write_text(text)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-b", "html"]
    return subprocess.run(
        [*command, str(source), str(source / "_build/html")],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a build says of a topic page with one fault of each kind."""
    never_run = cell("1 + 1", "never-run")
    never_run.execution_count = None
    both = [
        cell("print('mean = 1')", "numbers", printed("mean = 1\nmean = 2\nn = 3\n")),
        cell("plt.show()", "figure", shown(png=png(9), text="<Figure>")),
        cell("plt.show()", "only-in-the-notebook", shown(png=png(8), text="<Figure>")),
        cell("widget", "widget", new_output("display_data", data={"application/x-widget": "{}"})),
        never_run,
    ]
    only_torch = [*both, cell("print(1)", "only-torch", printed("1\n"))]
    index = """# Topic

```{fw-cell} numbers
```
```{fw-cell} missing-everywhere
```
```{fw-cell} only-torch
```
```{fw-cell} figure
```
```{fw-cell} widget
```
```{fw-cell} never-run
```
{num}`torch:numbers:mean` {num}`torch:numbers:median` {num}`absent:numbers:n` {num}`n`
"""
    source = tmp_path_factory.mktemp("faulty")
    result = run_plain_sphinx(
        source, index, torch=notebook("T", *only_torch), tensorflow=notebook("F", *both)
    )
    assert result.returncode == 1
    return result.stderr


@pytest.mark.parametrize(
    "message",
    [
        "no cell labelled 'missing-everywhere' in torch.ipynb",
        "no cell labelled 'missing-everywhere' in tensorflow.ipynb",
        "no cell labelled 'only-torch' in tensorflow.ipynb",
        "figure in torch.ipynb: the cell has a picture: say with :alt:",
        "picture without text: give the cell 'only-in-the-notebook' an alt",
        "outputs of kind application/x-widget cannot be shown",
        "never-run in torch.ipynb: the cell was never run",
        "prints 2 lines 'mean = ...'",
        "prints 0 lines 'median = ...'",
        "there is no notebook absent.ipynb beside this page",
        "expected label:name or notebook:label:name",
    ],
)
def test_a_fault_of_a_labelled_cell_is_a_warning(faulty: str, message: str) -> None:
    assert message in faulty


def test_a_sound_topic_builds_under_plain_sphinx(tmp_path: Path) -> None:
    good = cell("print('mean = 1')", "numbers", printed("mean = 1\n"))
    index = "# Topic\n\n```{fw-bar}\n```\n\n```{fw-cell} numbers\n```\n\n{num}`numbers:mean`\n"
    result = run_plain_sphinx(
        tmp_path, index, torch=notebook("T", good), tensorflow=notebook("F", good)
    )
    assert result.returncode == 0, result.stderr
