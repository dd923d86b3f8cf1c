"""The style sheet of the report's page: light and dark, from a phone to a wide screen."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark;
  --paper: #ffffff; --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --card: #f6f8fa;
  --accent: #0a5ea8; --fix: #a40e26; --care: #8a4b00; --note: #3b5b86; --bar: #6aa0cf;
  --s0: #0072b2; --s1: #b84a00; --s2: #007a5a; --s3: #a8457f; --s4: #1b1f24; --s5: #8a6500;
  --s6: #5b6b7a; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #14181d; --ink: #e6e9ed; --soft: #aab3bd; --line: #3a434d; --card: #1e242b;
  --accent: #7cc0ff; --fix: #ff9a9a; --care: #f2b45c; --note: #9fc3f5; --bar: #3f77a8;
  --s0: #56b4e9; --s1: #f59a5a; --s2: #3fc79a; --s3: #e59ac4; --s4: #e6e9ed; --s5: #e3c04a;
  --s6: #aab3bd; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.55;
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 50rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 1rem 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; border-top: 1px solid var(--line);
  padding-top: 1rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem; }
p, ul { margin: .5rem 0; } ul { padding-left: 1.3rem; }
a { color: var(--accent); }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
.short { background: var(--card); border: 1px solid var(--line); border-left: 5px solid
  var(--accent); border-radius: 6px; padding: .6rem 1rem; }
.short .method { font-size: 1.2rem; font-weight: 700; }
.finding { border-left: 5px solid var(--note); background: var(--card); padding: .4rem .9rem;
  margin: .7rem 0; border-radius: 4px; }
.finding.fix { border-color: var(--fix); } .finding.care { border-color: var(--care); }
.level { font-size: .8rem; font-weight: 700; color: var(--note); }
.fix .level { color: var(--fix); } .care .level { color: var(--care); }
.finding h3 { margin: .1rem 0; }
.scroll { overflow-x: auto; margin: .7rem 0; }
.scroll:focus-visible { outline: 2px solid var(--accent); }
table { border-collapse: collapse; font-size: .92rem; }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: normal; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number { white-space: nowrap; }
td.bars { width: 100%; min-width: 6rem; vertical-align: middle; }
.bar { display: block; height: .7rem; background: var(--bar); border-radius: 2px; }
th { font-weight: 400; } thead th { font-weight: 600; } tr.chosen th { font-weight: 700; }
#scores th[scope=row] { min-width: 10rem; }
.facts th { white-space: nowrap; color: var(--soft); }
figure { margin: 1rem 0; } svg.chart { width: 100%; max-width: 34rem; height: auto;
  display: block; }
.chart text { fill: var(--ink); font-size: 11px; paint-order: stroke; stroke: var(--paper);
  stroke-width: 3px; } .chart .grid { stroke: var(--line); }
.chart .axis { stroke: var(--soft); } .chart .zero { stroke: var(--soft);
  stroke-dasharray: 4 3; }
.legend { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .2rem 1.1rem;
  font-size: .92rem; }
.legend svg { width: 34px; height: 12px; vertical-align: middle; margin-right: .35rem; }
img.strip { image-rendering: pixelated; height: 3.2rem; max-width: 100%; display: block;
  border: 1px solid var(--line); }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 6px;
  padding: .7rem; overflow-x: auto; overflow-wrap: normal; font-size: .88rem; }
code { font-family: ui-monospace, "DejaVu Sans Mono", Consolas, monospace; }
details { margin: .7rem 0; } summary { cursor: pointer; color: var(--accent); }
footer { margin-top: 2.5rem; border-top: 1px solid var(--line); padding: .8rem 0 2rem; }
@media print { details > * { display: block; } }
"""
