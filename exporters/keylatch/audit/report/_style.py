"""The style sheet. Colors are named once for light, once for dark and once for paper."""

from __future__ import annotations

_LIGHT = """
--paper: #fff; --soft: #f3f5f7; --rule: #d3d8de; --ink: #171b20; --muted: #56606c;
--good: #176a4c; --bad: #b3261e; --open: #855300; --bad-soft: #f9e4e2; --on-verdict: #fff;
--a: #1b5fae; --b: #7b2f9b; --c: #00707a; --other: #8b949f; --base: #3b4450;
"""
_DARK = """
--paper: #14171b; --soft: #1f242a; --rule: #3b434c; --ink: #e8ebee; --muted: #a3adb8;
--good: #58c79d; --bad: #ff8f86; --open: #f0b754; --bad-soft: #41211f; --on-verdict: #14171b;
--a: #7fb5f5; --b: #d79cf0; --c: #4fcad4; --other: #7d8894; --base: #c3cad2;
"""
_PAPER = """
--paper: #fff; --soft: #fff; --rule: #b5b5b5; --ink: #000; --muted: #333;
--good: #0b4d36; --bad: #9c1710; --open: #5f3b00; --bad-soft: #ececec; --on-verdict: #000;
--a: #123f75; --b: #571f6f; --c: #004d54; --other: #8a8a8a; --base: #222;
"""

_TEXT = """
* { box-sizing: border-box; }
html { color-scheme: light dark; -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 1060px; padding: 16px; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", Arial, sans-serif;
  overflow-wrap: anywhere; }
p, dl, dd, ol, ul, figure { margin: 0; padding: 0; }
h1, h2, h3, h4 { line-height: 1.2; margin: 0; break-after: avoid; }
h2 { font-size: 1.3rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1.05rem; margin-bottom: .4rem; }
section > p { margin-bottom: .6rem; max-width: 46em; }
header { display: flex; flex-wrap: wrap; gap: 0 1em; align-items: baseline; margin-bottom: .7rem; }
.id, small, .note, .extent, figcaption { color: var(--muted); }
.id { font-size: .75rem; }
small { display: block; font-size: .82em; line-height: 1.35; }
ol { padding-left: 1.3em; max-width: 46em; }
li { margin-bottom: .3rem; }
"""

_TOP = """
.banner { border-radius: 12px; padding: 18px 20px; color: var(--on-verdict); background: var(--verdict); }
.holds { --verdict: var(--good); } .broken { --verdict: var(--bad); } .incomplete { --verdict: var(--open); }
.banner h1 { display: flex; gap: .4em; align-items: center; font-size: 1.75rem; margin-bottom: .5rem; }
.banner p { max-width: 46em; margin-bottom: .5rem; }
.banner .summary { font-size: 1.12rem; font-weight: 600; }
.banner .extent { color: inherit; font-size: .88rem; margin: 0; }
.sign { flex: none; width: 1.3em; height: 1.3em; fill: none; stroke: currentColor; stroke-width: 2.4;
  stroke-linecap: round; stroke-linejoin: round; }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: 10px; margin-top: 14px; }
.tile { background: var(--soft); border: 1px solid var(--rule); border-radius: 10px; padding: 10px 14px;
  break-inside: avoid; }
.tile dt { font-size: .9rem; }
.tile b { display: block; font-size: 1.6rem; line-height: 1.25; }
.tile-attack, .tile-bits { grid-column: span 2; }
.tile-unlocked b { color: var(--good); }
.tile.broken b { color: var(--bad); }
.note { display: block; font-size: .85rem; line-height: 1.35; }
@media screen and (max-width: 640px) { .tiles { grid-template-columns: 1fr 1fr; } }
"""

_PLOTS = """
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 28px 24px;
  margin-top: 2rem; align-items: start; }
figure { min-width: 0; break-inside: avoid; }
figure.wide { grid-column: 1 / -1; break-inside: auto; }
figure > svg { display: block; width: 100%; height: auto; max-width: 540px; }
figcaption { font-size: .88rem; line-height: 1.4; margin-top: .4rem; }
svg text { font-size: 13px; fill: var(--ink); }
svg .tick, svg .scale { fill: var(--muted); }
.grid { stroke: var(--rule); stroke-width: 1; }
.axis { stroke: var(--muted); stroke-width: 1; }
.curve { fill: none; stroke: var(--base); stroke-width: 2; }
.leader { fill: none; stroke: var(--muted); stroke-width: 1; }
.curve.unlocked { stroke: var(--good); } text.level.unlocked { fill: var(--good); }
.curve.chance { stroke: var(--muted); stroke-dasharray: 2 4; } text.level.chance { fill: var(--muted); }
.curve.base-a { stroke-dasharray: 9 4; } .curve.base-b { stroke-dasharray: 9 3 2 3; }
.curve.base-c { stroke-dasharray: 4 3; } .curve.near { stroke: var(--a); }
.curve.zone-edge { stroke: var(--bad); stroke-width: 1; }
.zone { fill: var(--bad-soft); } svg .zone-name { fill: var(--bad); }
.attack-A { --mark: var(--a); } .attack-B { --mark: var(--b); } .attack-C { --mark: var(--c); }
.other { --mark: var(--other); } .near { --mark: var(--a); }
.mark.broken, .symbol .broken { --mark: var(--bad); }
.curve.attack-A, .curve.attack-B, .curve.attack-C { stroke: var(--mark); stroke-width: 1.5; }
.mark circle, .mark polygon, .symbol .other, .symbol .broken { fill: var(--mark); stroke: var(--paper);
  stroke-width: 1; }
.whisker { stroke: var(--mark, var(--base)); stroke-width: 1.5; }
.other .whisker { opacity: .45; }
.mark text { fill: var(--paper); font-size: 12px; font-weight: 700; }
.badge { display: inline-block; width: 1.45em; height: 1.45em; border-radius: 50%; margin-right: .4em;
  text-align: center; font: 700 .8em/1.45em system-ui, sans-serif; background: var(--mark); color: var(--paper); }
.symbol { width: 1em; height: 1em; margin-right: .4em; vertical-align: -.14em; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 2px 18px; font-size: .9rem; margin-bottom: .5rem; }
figure > svg + .legend { display: block; margin: .5rem 0 0; }
.survival { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); gap: 4px 32px; }
.survival section, .wide .legend { break-inside: avoid; }
.wide .legend { break-after: avoid; }
.survival h4 { font-size: .95rem; align-self: end; }
.scale { margin-top: .5rem; }
.change { display: grid; grid-template-columns: 9em 1fr 12.5em; gap: 0 12px; align-items: center; font-size: .88rem;
  line-height: 1.3; padding: 2px 0; break-inside: avoid; }
.change > svg { width: 100%; height: 22px; overflow: visible; }
.change svg text { font-size: .8rem; }
.change i { display: block; color: var(--muted); font-size: .9em; }
.change .figures { white-space: nowrap; text-align: right; }
.figures .symbol { margin: 0 .3em 0 .6em; }
.unlocked-mark { fill: var(--good); stroke: var(--good); }
.locked-mark { fill: var(--paper); stroke: var(--bad); stroke-width: 2; }
.gap { stroke: var(--muted); stroke-width: 1; }
@media screen and (max-width: 640px) {
  .change { grid-template-columns: 1fr auto; padding: 4px 6px; }
  .change > svg { grid-column: 1 / -1; grid-row: 2; }
}
"""

_TABLES = """
table { border-collapse: collapse; width: 100%; font-size: .9rem; line-height: 1.4;
  font-variant-numeric: tabular-nums; }
th { text-align: left; border-bottom: 2px solid var(--muted); padding: 4px 8px; vertical-align: bottom;
  overflow-wrap: normal; }
td { border-bottom: 1px solid var(--rule); padding: 6px 8px; vertical-align: top; }
tr { break-inside: avoid; }
.cards { table-layout: fixed; }
.cards th { width: 11%; } .cards th:nth-child(1) { width: 18%; } .cards th:nth-child(2) { width: 16%; }
.cards th:nth-child(5) { width: 12%; } .cards th:nth-child(6) { width: 13%; } .cards th:last-child { width: 19%; }
tr.broken td:first-child { border-left: 4px solid var(--bad); }
tr.broken td:nth-child(5) b { color: var(--bad); }
tr.uncounted td { color: var(--muted); }
.tag { display: block; width: fit-content; font-size: .75rem; border: 1px solid currentColor; border-radius: 4px;
  padding: 0 4px; color: var(--muted); white-space: nowrap; }
.tag.broken { color: var(--bad); font-weight: 600; }
.facts { font-size: .9rem; }
.facts > div { display: grid; grid-template-columns: 13em 1fr; gap: 0 14px; padding: 3px 0;
  border-bottom: 1px solid var(--rule); break-inside: avoid; }
.facts dt { color: var(--muted); }
.group { margin-top: 1rem; }
@media screen and (max-width: 900px) {
  th, td { padding-left: 4px; padding-right: 4px; }
  .facts > div { grid-template-columns: 8em 1fr; }
  .cards, .cards tbody { display: block; }
  .cards thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  .cards tr { display: grid; grid-template-columns: 1fr 1fr; gap: 6px 12px; border: 1px solid var(--rule);
    border-radius: 10px; padding: 10px 12px; margin-bottom: 10px; }
  .cards td, .cards tr.broken td:first-child { border: 0; padding: 0; }
  .cards td::before { content: attr(data-label); display: block; color: var(--muted); font-size: .78rem; }
  .cards td:first-child, .cards td:nth-child(2), .cards td:last-child { grid-column: 1 / -1; }
  .cards td:first-child::before, .cards .empty { display: none; }
  .cards tr.broken { border-left: 5px solid var(--bad); }
}
@media screen and (min-width: 600px) and (max-width: 900px) {
  .cards tr { grid-template-columns: repeat(4, 1fr); }
}
"""

_PRINT = """
@page { size: A4; margin: 14mm; }
@media print {
  html { color-scheme: light; font-size: 9pt; }
  body { max-width: none; padding: 0; font-size: 1rem; line-height: 1.4; -webkit-print-color-adjust: exact;
    print-color-adjust: exact; }
  h2 { margin-top: 1.2rem; }
  .banner { background: none; border: 3px solid var(--verdict); }
  .banner h1 { color: var(--verdict); }
  .plots { grid-template-columns: 1fr 1fr; margin-top: 1rem; gap: 14px; }
  .tile { padding: 6px 10px; }
  figure > svg { max-width: 330px; }
  td { padding: 3px 6px; }
  thead { display: table-header-group; }
  p, li, figcaption { orphans: 3; widows: 3; }
}
"""

STYLE = (
    f":root {{{_LIGHT}}}\n@media screen and (prefers-color-scheme: dark) {{ :root {{{_DARK}}} }}\n"
    f"@media print {{ :root {{{_PAPER}}} }}\n{_TEXT}{_TOP}{_PLOTS}{_TABLES}{_PRINT}"
)
