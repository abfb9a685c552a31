"""The report's page: one HTML file that needs nothing beside itself. Pictures stand in it as base64, styles inline."""

from __future__ import annotations

import base64

from collections.abc import Sequence
from html import escape

__all__ = ["figure", "page", "paragraphs", "section", "table"]

STYLE = """
:root { --ink: #1f2933; --soft: #52606d; --line: #e4e7eb; --accent: #c2410c; --wash: #f7f8fa; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: #fff; color: var(--ink); font: 17px/1.62 Georgia, "Times New Roman", serif; }
main { max-width: 46rem; margin: 0 auto; padding: 2.5rem 1.1rem 4rem; }
h1, h2, h3, table, figcaption, .facts, dt { font-family: system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
h1 { font-size: 2.05rem; line-height: 1.15; margin: 0 0 .7rem; letter-spacing: -.015em; }
h2 { font-size: 1.35rem; line-height: 1.25; margin: 2.9rem 0 .6rem; }
h3 { font-size: 1.06rem; margin: 2rem 0 .4rem; }
p { margin: .75rem 0; }
.lead { font-size: 1.16rem; color: var(--soft); margin-bottom: 1.2rem; }
.facts { font-size: .84rem; color: var(--soft); border-block: 1px solid var(--line); padding: .6rem 0; }
b { color: #111827; }
.terms { background: var(--wash); border-left: 3px solid var(--accent); padding: .8rem 1.1rem; margin: 1.4rem 0; }
.terms dt { font-weight: 650; font-size: .92rem; }
.terms dd { margin: 0 0 .5rem; font-size: .95rem; line-height: 1.5; }
figure { margin: 1.4rem 0 1.6rem; }
.scroll { overflow-x: auto; }
@media (min-width: 62rem) { figure, .table { margin-inline: -4rem; } }
figure img { display: block; width: 100%; min-width: 36rem; height: auto; }
figcaption { font-size: .86rem; line-height: 1.45; color: var(--soft); margin-top: .5rem; }
table { border-collapse: collapse; width: 100%; font-size: .84rem; line-height: 1.35; }
td { font-variant-numeric: tabular-nums; }
th, td { padding: .36rem .5rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { vertical-align: bottom; font-weight: 600; color: var(--soft); white-space: normal; min-width: 3.4rem; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
tr.rival td { color: var(--soft); }
td small { color: #7b8794; }
ul { padding-left: 1.2rem; } li { margin: .4rem 0; }
code { font-size: .86em; background: var(--wash); padding: .1em .3em; border-radius: 3px; }
pre { background: var(--wash); padding: .8rem 1rem; overflow-x: auto; font-size: .82rem; line-height: 1.5; }
pre code { padding: 0; background: none; font-size: 1em; }
"""


def paragraphs(*texts: str) -> str:
    """Paragraphs of HTML text; empty ones are left out."""
    return "\n".join(f"<p>{text}</p>" for text in texts if text)


def section(title: str, *parts: str, level: int = 2) -> str:
    """A heading and what follows it."""
    return "\n".join([f"<h{level}>{escape(title)}</h{level}>", *parts])


def figure(png: bytes, alt: str, caption: str) -> str:
    """A picture, inline, with its caption in HTML."""
    source = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
    image = f'<div class="scroll"><img src="{source}" alt="{escape(alt)}"></div>'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], rivals: int = 0) -> str:
    """A table of HTML cells; the last `rivals` rows are set in a softer tone."""
    head = "".join(f"<th>{text}</th>" for text in heads)
    body = []
    for i, row in enumerate(rows):
        kind = ' class="rival"' if i >= len(rows) - rivals else ""
        body.append(f"<tr{kind}>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>")
    content = f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody>"
    return f'<div class="scroll table"><table>{content}</table></div>'


def page(title: str, *parts: str) -> str:
    """The whole file."""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title><style>{STYLE}</style></head>",
            "<body><main>",
            *parts,
            "</main></body></html>\n",
        ]
    )
