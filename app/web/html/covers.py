"""Draws item covers as SVG; colours, motif and shapes come from a hash of the label, so nothing is downloaded."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from html import escape

from llmrec.data.catalog import clean_text

WIDTH, HEIGHT = 68, 98
_HUES = 24
_INITIALS = 2
_LIGHT = frozenset({"the", "a", "an", "of", "in", "on", "and", "to", "for"})


def cover(title: str, label: str) -> str:
    """Return an SVG drawing for an item, with the initials of its title; equal labels give equal drawings."""
    code = zlib.crc32(label.encode())
    motif = _MOTIFS[code // _HUES % len(_MOTIFS)](code >> 8)
    words = [word for word in clean_text(title, 300).split() if word[0].isalnum()]
    weighty = [word for word in words if word.casefold() not in _LIGHT] or words
    initials = escape("".join(word[0] for word in weighty[:_INITIALS]).upper(), quote=False)
    return (
        f'<svg class="cover h{code % _HUES}" width="{WIDTH}" height="{HEIGHT}">{motif}'
        f'<text class="initials" x="8" y="{HEIGHT - 9}">{initials}</text></svg>'
    )


def _sun(code: int) -> str:
    x, y, r = 16 + code % 36, 20 + code // 36 % 22, 10 + code // 800 % 9
    lines = "".join(_rect(0, at, WIDTH, 1 + step) for step, at in enumerate(range(58, 76, 6)))
    return f'<circle class="ink" cx="{x}" cy="{y}" r="{r}"></circle>{lines}'


def _hills(code: int) -> str:
    a, b, c = 26 + code % 20, 40 + code // 20 % 22, 10 + code // 440 % 30
    return (
        f'<circle class="ink faint" cx="{WIDTH - c}" cy="20" r="7"></circle>'
        f'<polygon class="ink" points="0,74 {c + 8},{a} {c + 38},74"></polygon>'
        f'<polygon class="ink faint" points="{c},74 {c + 30},{b} {WIDTH + 12},74"></polygon>'
    )


def _waves(code: int) -> str:
    bend = 6 + code % 12
    return "".join(
        f'<path class="line" d="M0 {y} Q 17 {y - bend} 34 {y} T {WIDTH} {y}"></path>'
        for y in range(18 + code // 12 % 8, 72, 9 + code // 96 % 5)
    )


def _city(code: int) -> str:
    heights = [16 + (code >> 3 * step) % 8 * 6 for step in range(6)]
    return "".join(_rect(4 + 10 * step, 74 - height, 8, height) for step, height in enumerate(heights))


def _rays(code: int) -> str:
    x, y = 14 + code % 40, 16 + code // 40 % 30
    ends = ((0, 0), (24, 0), (48, 0), (68, 10), (68, 40), (68, 70), (44, 76), (20, 76), (0, 60), (0, 28))
    shift = code // 1200 % 2
    return "".join(
        f'<polygon class="ink faint" points="{x},{y} {one[0]},{one[1]} {two[0]},{two[1]}"></polygon>'
        for one, two in zip(ends[shift::2], ends[1 + shift :: 2], strict=False)
    )


def _rings(code: int) -> str:
    x, y, gap = 12 + code % 44, 14 + code // 44 % 40, 7 + code // 1800 % 6
    return "".join(f'<circle class="line" cx="{x}" cy="{y}" r="{r}"></circle>' for r in range(gap, 58, gap))


def _dots(code: int) -> str:
    return "".join(
        f'<circle class="ink" cx="{10 + 12 * column}" cy="{12 + 12 * row}" '
        f'r="{1 + (code >> column + row) % 5}"></circle>'
        for row in range(5)
        for column in range(5)
    )


def _rect(x: int, y: int, width: int, height: int) -> str:
    return f'<rect class="ink" x="{x}" y="{y}" width="{width}" height="{height}"></rect>'


_MOTIFS: tuple[Callable[[int], str], ...] = (_sun, _hills, _waves, _city, _rays, _rings, _dots)
