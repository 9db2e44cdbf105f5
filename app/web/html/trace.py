"""HTML of the drawer that explains how a list was made."""

from __future__ import annotations

from collections.abc import Sequence

from llmrec.app.web.html.cards import escaped, short_title
from llmrec.data.catalog import Catalog
from llmrec.dialogue.trace import PromptSegment, Trace

_NAMES = {
    "llm": "language model",
    "encoder": "encoder",
    "neighbours": "neighbours",
    "profile": "text profile",
    "words": "your words",
    "popularity": "popularity",
    "encoder*familiarity": "encoder, known items",
    "profile*novelty": "text profile, new items",
}


def trace_drawer(catalog: Catalog, made: Trace, seconds: Sequence[tuple[str, float]]) -> str:
    """Return the full explanation of how a list was made.

    Args:
        catalog: the items.
        made: the trace of the request.
        seconds: (name, seconds) that the reply took; empty if the list came without a reply.
    """
    return (
        '<div class="trace">'
        + _section("Candidates", _funnel(catalog, made))
        + _notes(catalog, made)
        + _section("Prompt of the language model", _prompt(catalog, made.prompt))
        + _section("Decoded items", _decoded(catalog, made))
        + _section("Scores and fusion", _fusion(catalog, made))
        + _section("Time", _times(made, seconds))
        + "</div>"
    )


def _section(name: str, inside: str) -> str:
    return f'<h3 class="step">{escaped(name)}</h3>{inside}'


def _funnel(catalog: Catalog, made: Trace) -> str:
    words = (
        f"{made.catalogue:,} {catalog.domain} in the catalogue, {made.allowed:,} left after constraints and what you "
        f"already know, {len(made.lines)} shown."
    )
    return f'<div class="sub">{escaped(words)}</div>'


def _notes(catalog: Catalog, made: Trace) -> str:
    """Return a table of the requested attributes that each listed item has; empty if there are none."""
    rows = [(short_title(catalog, line.row), ", ".join(line.fulfils)) for line in made.lines if line.fulfils]
    if not rows:
        return ""
    by = f" Notes were written by {catalog.notes_by}." if catalog.notes_by else ""
    what = f"What the catalogue says of each item that you asked for.{by}"
    inside = f'<div class="sub">{escaped(what)}</div>' + _table(("title", "asked for"), rows)
    return _section("Notes that counted" if catalog.notes_by else "What you asked for", inside)


def _prompt(catalog: Catalog, pieces: Sequence[PromptSegment]) -> str:
    total = sum(piece.tokens for piece in pieces)
    shown = "".join(_piece(catalog, piece) for piece in pieces)
    framed = "Framed parts are items as semantic IDs, and you as soft tokens from the encoder; the rest is text."
    what = f"{total} tokens. {framed}"
    return f'<div class="sub">{escaped(what)}</div><div class="prompt">{shown}</div>'


def _piece(catalog: Catalog, piece: PromptSegment) -> str:
    if piece.kind == "words":
        return f'<span class="words">{escaped(piece.text)}</span> '
    if piece.kind == "item":
        semantic_id = f'<span class="sid">{escaped(piece.text)}</span>'
        return f'<span class="ref">{escaped(short_title(catalog, piece.row))} {semantic_id}</span> '
    name = f"you, {piece.tokens} soft tokens" if piece.kind == "user" else "\N{MIDDLE DOT}"
    return f'<span class="ref {piece.kind}">{escaped(name)}</span> '


def _decoded(catalog: Catalog, made: Trace) -> str:
    rows = [
        (
            short_title(catalog, path.row),
            "-".join(map(str, path.codes)),
            f"{path.log_probability:.2f}",
            _allowed(path.allowed),
        )
        for path in made.decoded
    ]
    what = "Its most likely paths through the trie, each with its log-probability, before any constraint."
    return f'<div class="sub">{escaped(what)}</div>' + _table(("title", "semantic ID", "log p", ""), rows)


def _allowed(allowed: bool) -> str:
    return "" if allowed else "ruled out"


def _fusion(catalog: Catalog, made: Trace) -> str:
    names = list(made.weights)
    weights = ("weight", "", *(f"{made.weights[name]:.2f}" for name in names))
    rows = [
        (short_title(catalog, line.row), f"{line.score:.2f}", *(f"{line.parts[name]:.2f}" for name in names))
        for line in made.lines
    ]
    what = "Log-probabilities by component. The fused score is their weighted sum; the list is sorted by it."
    if any("*" in name for name in names):
        what += (
            " The columns for known and for new items are the log-probability above a uniform share, "
            "scaled by how well known, or how new, the item is."
        )
    head = ("title", "fused", *(_NAMES.get(name, name) for name in names))
    return f'<div class="sub">{escaped(what)}</div>' + _table(head, [weights, *rows])


def _times(made: Trace, seconds: Sequence[tuple[str, float]]) -> str:
    now = [(f"{stage}, just now", f"{1000 * took:,.0f} ms") for stage, took in made.seconds.items()]
    then = [(f"{name}, in the reply", f"{1000 * took:,.0f} ms") for name, took in seconds]
    return _table(("stage", "took"), [*then, *now])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escaped(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f'<div class="scroll"><table><thead>{line(head, "th")}</thead><tbody>{body}</tbody></table></div>'
