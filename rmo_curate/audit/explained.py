"""What each finding means: the pages of docs/findings, which the report holds, too.

`explained/` is a link to docs/findings, so that the words stand in one place and go along with the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "explained"


@dataclass(frozen=True)
class Explained:
    name: str
    title: str
    html: str


def explained() -> tuple[Explained, ...]:
    """Every page as HTML, by title. Their headings start below the report's own."""
    from markdown_it import MarkdownIt

    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    pages = []
    for path in sorted(FOLDER.glob("*.md")):
        title, _, text = path.read_text(encoding="utf-8").partition("\n")
        tokens = markdown.parse(text)
        for token in tokens:
            if token.type in ("heading_open", "heading_close"):
                token.tag = "h4"
        html = markdown.renderer.render(tokens, markdown.options, {})
        pages.append(Explained(path.stem, title.removeprefix("# ").strip(), html))
    return tuple(sorted(pages, key=lambda page: page.title))
