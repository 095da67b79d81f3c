"""Pieces of an html page. All text from files goes through `escape`; the type `Html` marks escaped text."""

import base64
import html
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NewType

from rann_jax.report import tables

Html = NewType("Html", str)

STYLE = """
:root { color-scheme: light dark; --ink: light-dark(#22303c, #dfe6ec); --paper: light-dark(#ffffff, #14191f);
  --line: light-dark(#d5dbe0, #37424d); --faint: light-dark(#f3f5f7, #1e252d) }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1120px;
  margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.7em } h2 { font-size: 1.25em; margin-top: 2em; border-bottom: 1px solid var(--line) }
img { max-width: max(100%, 700px); height: auto; background: #ffffff }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums; font-size: 0.92em }
th, td { text-align: left; padding: 0.2em 0.9em 0.2em 0;
  border-bottom: 1px solid var(--line); vertical-align: top }
td { overflow-wrap: anywhere } .scroll { overflow-x: auto }
pre { background: var(--faint); padding: 0.8em; white-space: pre-wrap; overflow-wrap: anywhere }
p { max-width: 52em }
"""


def visible(text: object) -> str:
    r"""Return text with invisible characters replaced: controls, direction marks, lone surrogates.

    Spaces of all scripts, such as U+3000, are kept.

    >>> visible("rain\x00\u202e, heavy")
    'rain\ufffd\ufffd, heavy'
    """
    return "".join(c if c.isprintable() or c == "\n" or _blank(c) else "\ufffd" for c in str(text))


def _blank(character: str) -> bool:
    return unicodedata.category(character) == "Zs"


def escape(text: object) -> Html:
    """Return text escaped, so that it has no meaning in html.

    >>> escape('<b title="x">')
    '&lt;b title=&quot;x&quot;&gt;'
    """
    return Html(html.escape(visible(text)))


def paragraph(text: object) -> Html:
    """Return a paragraph of plain text."""
    return Html(f"<p>{escape(text)}</p>\n")


def code(text: object) -> Html:
    """Return preformatted text."""
    return Html(f"<pre>{escape(text)}</pre>\n")


def section(title: str, *parts: Html) -> Html:
    """Return a heading and the parts below it."""
    return Html(f"<h2>{escape(title)}</h2>\n{''.join(parts)}")


def folded(title: str, *parts: Html) -> Html:
    """Return parts that are shown when their title is clicked."""
    return Html(f"<details><summary>{escape(title)}</summary>\n{''.join(parts)}</details>\n")


def table(rows: Sequence[Mapping[str, Any]]) -> Html:
    """Return a table of rows with the same keys, with intervals in brackets; empty for no rows."""
    if not rows:
        return Html("")
    shown = [tables.with_intervals(row) for row in rows]
    head = "".join(f"<th>{escape(name)}</th>" for name in shown[0])
    body = "".join(f"<tr>{''.join(f'<td>{escape(v)}</td>' for v in row.values())}</tr>\n" for row in shown)
    return Html(f'<div class="scroll"><table><tr>{head}</tr>\n{body}</table></div>\n')


def picture(png: bytes, description: str) -> Html:
    """Return a picture, embedded in the page; it scrolls on a narrow screen, so its text stays legible."""
    data = base64.b64encode(png).decode()
    image = f'<img src="data:image/png;base64,{data}" alt="{escape(description)}">'
    return Html(f'<div class="scroll">{image}</div>\n')


def page(title: str, *parts: Html) -> bytes:
    """Return the page in UTF-8, without script; its policy forbids browsers to load or run anything."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    text = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n{''.join(parts)}</body>\n</html>\n"
    )
    return text.encode()
