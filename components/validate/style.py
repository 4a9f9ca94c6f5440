"""The look of the gate report: one style sheet, system fonts with Chinese, Japanese and Korean, light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

CSS = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5d6878; --line: #dfe4ea; --page: #f5f6f8; --card: #fff;
  --good: #1a7f4b; --warn: #a05a00; --bad: #b3261e; --bar: #3d6fb4; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --soft: #9aa5b4; --line: #323a46; --page: #14181e;
  --card: #1d232b; --good: #57c98a; --warn: #f0ad4e; --bad: #ff8a80; --bar: #7fa8e0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Noto Sans", "Noto Sans CJK SC", "PingFang SC", "Hiragino Sans", "Microsoft YaHei", "Malgun Gothic",
  sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2.25rem 0 .75rem; }
h3 { font-size: 1rem; margin: 0 0 .4rem; } p { margin: .25rem 0; } .soft { color: var(--soft); font-size: .9rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1rem; margin: 0 0 1rem; }
.verdict { border-left: .4rem solid var(--good); } .verdict.error { border-left-color: var(--bad); }
.verdict.warning { border-left-color: var(--warn); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem; }
.tiles .card { margin: 0; } .tiles b { display: block; font-size: 1.4rem; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: left; padding: .4rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; } tr:last-child td { border-bottom: 0; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.text { overflow-wrap: anywhere; min-width: 14rem; white-space: pre-wrap; }
.pill { font-size: .8rem; font-weight: 600; white-space: nowrap; } .pill.passed { color: var(--good); }
.pill.warning { color: var(--warn); } .pill.error { color: var(--bad); } .pill.off { color: var(--soft); }
.bars { display: grid; grid-template-columns: minmax(4rem, max-content) 1fr max-content; gap: .3rem .7rem;
  align-items: center; font-size: .92rem; margin-bottom: 1rem; }
.bars > span { overflow-wrap: anywhere; } .bar { background: var(--bar); height: .8rem; border-radius: .2rem; }
svg { width: 100%; height: auto; display: block; } svg rect { fill: var(--bar); }
svg text { fill: var(--soft); font-size: 11px; } svg line { stroke: var(--bad); stroke-dasharray: 4 3; }
code { font-size: .9em; } a { color: var(--bar); }
"""


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with the names of its columns, which are escaped here, and rows of ready cells."""
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
