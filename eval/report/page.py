"""A report as plain values, rendered as Markdown with images or as one self-contained HTML page.

Names, titles and replies come from result files, catalogues and a language model. Both formats treat them as plain
text.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path


@dataclass(frozen=True)
class Paragraph:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column is a name, the others are numbers. `source` is the origin of the numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    source: str


@dataclass(frozen=True)
class Picture:
    """An SVG file below the report's directory, a description, and the source of its numbers."""

    path: Path
    shows: str
    source: str


@dataclass(frozen=True)
class Case:
    """One failure: what went wrong, with its inputs and outputs as (label, text)."""

    title: str
    lines: Sequence[tuple[str, str]]


Block = Paragraph | Table | Picture | Case


@dataclass(frozen=True)
class Section:
    """A heading and its content."""

    title: str
    blocks: Sequence[Block]


def markdown(title: str, sections: Sequence[Section], folder: Path) -> str:
    """The report as Markdown; pictures are links relative to `folder`."""
    out = [f"# {_plain(title)}"]
    for section in sections:
        out.append(f"## {_plain(section.title)}")
        out += [_markdown(block, folder) for block in section.blocks]
    return "\n\n".join(out) + "\n"


def _markdown(block: Block, folder: Path) -> str:
    if isinstance(block, Paragraph):
        return _plain(block.text)
    if isinstance(block, Picture):
        path = block.path.relative_to(folder).as_posix()
        return f"![{_plain(block.shows)}]({path})\n\n*{_plain(block.shows)}.* {_plain(block.source)}"
    if isinstance(block, Case):
        return "\n".join([f"**{_plain(block.title)}**", "", *(f"- {_plain(n)}: {_plain(t)}" for n, t in block.lines)])
    lines = ["| " + " | ".join(map(_plain, row)) + " |" for row in (block.header, *block.rows)]
    lines.insert(1, "|---" + "|--:" * (len(block.header) - 1) + "|")
    return "\n".join(lines) + f"\n\n{_plain(block.source)}"


def _plain(text: str) -> str:
    """Escape a text for one line of Markdown: no markup, links, HTML or new cells."""
    line = escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*_\[\]|~#!$])", r"\\\1", line)


_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
h2{margin-top:2.5rem;border-bottom:1px solid #ddd}table{border-collapse:collapse;display:block;overflow-x:auto}
th,td{padding:.2rem .6rem;border-bottom:1px solid #eee;text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left}th{border-bottom:2px solid #999}
img{max-width:100%}.source{color:#666;font-size:.8rem}figure{margin:1.5rem 0}
article{border-left:3px solid #c44;padding-left:1rem;margin:1rem 0}dt{color:#666;font-size:.85rem}dd{margin:0 0 .4rem}
"""
# The page loads nothing and runs nothing: pictures are embedded, and no script is allowed.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def html(title: str, sections: Sequence[Section]) -> str:
    """The report as a single self-contained page."""
    body = [f"<h1>{escape(title)}</h1>"]
    for section in sections:
        body.append(f"<h2>{escape(section.title)}</h2>")
        body += [_html(block) for block in section.blocks]
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(body) + "\n</body></html>\n"


def _html(block: Block) -> str:
    if isinstance(block, Paragraph):
        return f"<p>{escape(block.text)}</p>"
    if isinstance(block, Case):
        lines = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in block.lines)
        return f"<article><strong>{escape(block.title)}</strong><dl>{lines}</dl></article>"
    source = f'<p class="source">{escape(block.source)}</p>'
    if isinstance(block, Picture):
        # An SVG in an img element can neither run scripts nor load anything.
        data = base64.b64encode(block.path.read_bytes()).decode()
        shows = escape(block.shows)
        image = f'<img alt="{shows}" src="data:image/svg+xml;base64,{data}">'
        return f"<figure>{image}<figcaption>{shows}</figcaption>{source}</figure>"
    head = "".join(f"<th>{escape(cell)}</th>" for cell in block.header)
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in block.rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{source}"
