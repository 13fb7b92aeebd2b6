"""What the site takes from the source tree when it is built.

The pages of results are the sections of `benchmarks/README.md`, whose tables are
rendered from `benchmarks/results/`. The pages on the project are its own files.
"""

import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from griffe import Extension, Object
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
RESULTS = "benchmarks/README.md"
METHOD = "results/index.md"
WIDE = "---\nhide: [toc]\n---\n\n"  # tables want the room
FIRST = (
    *("logs", "events", "layouts", "towers", "propensities", "trees"),
    *("deploying", "other-libraries"),
)
PROJECT = {
    "CONTRIBUTING.md": "project/contributing.md",
    "ARCHITECTURE.md": "project/architecture.md",
    "CHANGELOG.md": "project/changelog.md",
}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
DOCTEST = re.compile(r"(?:^|(?<=\n\n))>>> .*?(?=\n\n|\Z)", re.S)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Enters the pages of results and all guides into the navigation."""
    results = [{title: path} for path, title, _ in sections()]
    notebooks = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
    parts = {
        "Results": [{"How results are made": METHOD}, *results],
        "Guides": guides(),
        "Notebooks": [f"notebooks/{path.stem}.md" for path in notebooks],
    }
    for entry in config.nav or ():
        for name, pages in parts.items():
            if name in entry:
                entry[name] = pages
    return config


def guides() -> list[str]:
    """Pages of `guides/`, those in `FIRST` first, then the others by name."""
    found = {path.stem for path in (ROOT / "docs" / "guides").glob("*.md")}
    ordered = [name for name in FIRST if name in found]
    ordered += sorted(found - {*FIRST})
    return [*(f"guides/{name}.md" for name in ordered), "scaling.md"]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages and the figures."""
    method, *_ = _split()
    pages = {METHOD: moved(method, RESULTS, METHOD)}
    for path, _, text in sections():
        pages[path] = WIDE + moved(text, RESULTS, path)
    for source, path in PROJECT.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        pages[path] = moved(text, source, path)
    for notebook in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        pages[f"notebooks/{notebook.stem}.md"] = as_page(notebook)
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    for figure in sorted((ROOT / "benchmarks" / "figures").glob("*.svg")):
        files.append(
            File.generated(config, f"figures/{figure.name}", abs_src_path=str(figure))
        )
    return files


def as_page(notebook: Path) -> str:
    """An executed notebook as Markdown: its cells, and what they printed or drew."""
    parts = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
            continue
        parts.append(f"```python\n{text}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                png = "".join(data["image/png"]).replace("\n", "")
                parts.append(f"![figure](data:image/png;base64,{png})")
            else:
                said = output.get("text") or data.get("text/plain", "")
                parts.append(f"```text\n{''.join(said).rstrip()}\n```")
    return "\n\n".join(parts)


def sections() -> Iterator[tuple[str, str, str]]:
    """Path on the site, title and text of each section of results."""
    for text in _split()[1:]:
        title = text.split("\n", 1)[0]
        slug = re.sub(r"\W+", "-", title.lower()).strip("-")
        yield f"results/{slug}.md", title, f"# {text}"


def _split() -> list[str]:
    """The results as they are made, and then each section without its mark."""
    text = (ROOT / RESULTS).read_text(encoding="utf-8")
    intro, protocol, *rest = re.split(r"^## ", text, flags=re.M)
    intro = intro.replace("# Results", "# How results are made", 1)
    return [f"{intro}## {protocol}", *rest]


def moved(text: str, source: str, path: str) -> str:
    """The text of a file of the tree with its links as they hold on the site.

    A link to a file that is no part of the site becomes its text.
    """

    def link(found: re.Match[str]) -> str:
        image, label, target, anchor = found.groups()
        if "://" in target:
            return found[0]
        place = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        to = placed(place)
        if to is None:
            return label
        relative = posixpath.relpath(to, posixpath.dirname(path) or ".")
        return f"{image}[{label}]({relative}{anchor or ''})"

    return LINK.sub(link, text)


def placed(place: str) -> str | None:
    """Where a file of the tree stands on the site; None where it does not."""
    known = {"README.md": "index.md", RESULTS: METHOD, **PROJECT}
    if place.startswith("docs/"):
        return place.removeprefix("docs/")
    if place.startswith("benchmarks/figures/"):
        return place.removeprefix("benchmarks/")
    return known.get(place)


class Doctests(Extension):
    """Shows the doctests of a docstring as code rather than as a quotation.

    A list of shapes or a formula that is indented by four spaces is code as it stands.
    """

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            text = obj.docstring.value
            obj.docstring.value = DOCTEST.sub(
                lambda found: f"```pycon\n{found[0].rstrip()}\n```", text
            )
