"""A small book of stand-in topics: it exercises what the real pages use, and more."""

from __future__ import annotations

import base64
import struct
import zlib
from pathlib import Path
from shutil import copytree

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

TOC = """\
format: jb-book
root: book/index
parts:
  - caption: Topics
    chapters:
      - file: chapters/kl_adaptation/index
        sections:
          - file: chapters/kl_adaptation/torch.ipynb
          - file: chapters/kl_adaptation/tensorflow.ipynb
      - file: chapters/plain/index
        sections:
          - file: chapters/plain/notebook.ipynb
      - file: book/references
"""

INDEX = """\
# A demonstration

```{topic-table}
```

Cited: {cite}`finn2017maml`. Inline math: $a^2 + b^2$.
"""

REFERENCES = """\
# References

```{bibliography}
```
"""

TOPIC = """\
# A topic

```{fw-bar}
```

The mean is {num}`numbers:mean` (PyTorch alone: {num}`torch:numbers:mean`).
Both notebooks print {num}`numbers:number of draws` draws.

```{fw-cell} numbers
```

```{fw-cell} figure
:alt: A square
:no-source:
```

```{fw-cell} table
:no-source:
```

(eq-kl)=
$$
D(p \\,\\|\\, q) = \\sum_x p(x) \\log \\frac{p(x)}{q(x)}
$$

```{prf:theorem} Gibbs
:label: gibbs

$D(p \\,\\|\\, q) \\ge 0$.
```

By {prf:ref}`gibbs` it is never negative.

```{exercise}
:label: warm-up

Show that $D(p \\,\\|\\, p) = 0$.
```

```{solution} warm-up
:class: dropdown

Every logarithm is 0.
```
"""

PLAIN = """\
# A topic without framework

The mean is {num}`notebook:numbers:mean`.

```{nb-cell} numbers
```
"""


def png(grey: int) -> str:
    """Return a picture of 4 by 4 grey pixels, as notebooks store it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    rows = b"".join(b"\0" + bytes([grey] * 4) for _ in range(4))
    header = struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0)
    picture = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    picture += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return base64.b64encode(picture).decode()


def cell(source: str, label: str, *outputs: dict, **metadata: str):
    return new_code_cell(
        source, execution_count=1, outputs=list(outputs), metadata={"label": label, **metadata}
    )


def printed(text: str) -> dict:
    return new_output("stream", name="stdout", text=text)


def shown(**data: str) -> dict:
    kinds = {"png": "image/png", "html": "text/html", "text": "text/plain"}
    return new_output("display_data", data={kinds[kind]: value for kind, value in data.items()})


def notebook(title: str, *cells) -> str:
    book = new_notebook(cells=[new_markdown_cell(f"# {title}\n\nWords."), *cells])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    book.metadata["language_info"] = {"name": "python"}
    return nbformat.writes(book)


def topic_notebook(name: str, mean: str, grey: int) -> str:
    wide = "<th>a long heading of a column</th>" * 8
    return notebook(
        name,
        cell(
            f"# {name}\nprint('mean =', mean)",
            "numbers",
            printed(f"mean = {mean}\nnumber of draws = 10\n"),
        ),
        cell("plt.show()", "figure", shown(png=png(grey), text="<Figure>")),
        cell(
            "table",
            "table",
            shown(html=f"<table><thead><tr>{wide}</tr></thead></table>", text="a table"),
        ),
        cell("plt.show()", "extra", shown(png=png(grey), text="<Figure>"), alt="Another square"),
    )


def write(root: Path, project: Path) -> None:
    """Write the demonstration below ``root``, with the project's configuration and extensions."""
    for folder in ("_ext", "_static"):
        copytree(project / "book" / folder, root / "book" / folder)
    config = (project / "_config.yml").read_text(encoding="utf-8")
    files = {
        # With an owner the Colab links are real ones.
        "_config.yml": config.replace("github.com/OWNER/", "github.com/someone/"),
        "_toc.yml": TOC,
        "book/index.md": INDEX,
        "book/references.md": REFERENCES,
        "book/references.bib": (project / "book/references.bib").read_text(encoding="utf-8"),
        "book/topics.yml": (project / "book/topics.yml").read_text(encoding="utf-8"),
        "chapters/kl_adaptation/index.md": TOPIC,
        "chapters/kl_adaptation/torch.ipynb": topic_notebook("PyTorch", "0.51", 60),
        "chapters/kl_adaptation/tensorflow.ipynb": topic_notebook("TensorFlow", "0.52", 180),
        "chapters/plain/index.md": PLAIN,
        "chapters/plain/notebook.ipynb": notebook(
            "Notebook", cell("print(...)", "numbers", printed("mean = 0.7\n"))
        ),
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
