"""The style sheet of the page of a profile: light and dark, for desks and phones."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #f6f5f1; --card: #ffffff; --ink: #1d2327; --soft: #667079; --line: #e3e1da; --track: #eceae4;
  --accent: #2f6f8f; --bar: #4b8fae; --warm: #b4531f; --warn-paper: #fdf1e7; --note: #5b6b2f;
  --note-paper: #f3f6e6; --positive: #2b6ca3; --negative: #c2502c; --shade: 0 1px 2px rgb(0 0 0 / .05);
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181b; --card: #1d2327; --ink: #e7e9ea; --soft: #97a2aa; --line: #2f373d; --track: #2a3237;
    --accent: #7fc0de; --bar: #5a9fbe; --warm: #f0a06a; --warn-paper: #33261b; --note: #bccb86;
    --note-paper: #262b1b; --positive: #5aa5e0; --negative: #ec7f59; --shade: none;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
header, main, footer { max-width: 76rem; margin: 0 auto; padding: 0 clamp(1rem, 3vw, 2rem); }
header { padding-top: 2.2rem; }
h1, h2, h3, p, dl, dd, ul, figure { margin: 0; }
h1 { font-size: clamp(1.6rem, 4vw, 2.3rem); line-height: 1.15; letter-spacing: -.02em;
  overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; letter-spacing: -.01em; margin: 2.8rem 0 .9rem; overflow-wrap: anywhere; }
h3 { font-size: 1rem; overflow-wrap: anywhere; min-width: 0; margin-right: auto; }
code { font: .88em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
section > p { color: var(--soft); max-width: 44rem; margin-bottom: 1rem; }
summary { cursor: pointer; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; border-radius: 3px; }
.kicker { color: var(--accent); font-size: .78rem; font-weight: 650; letter-spacing: .1em;
  text-transform: uppercase; }
.origin { color: var(--soft); font-size: .82rem; display: flex; flex-wrap: wrap; gap: .2rem 1rem;
  margin-top: .4rem; }
.origin code { overflow-wrap: anywhere; }
.quiet, .count { color: var(--soft); font-weight: 400; }
.count { font-size: .85em; font-variant-numeric: tabular-nums; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); gap: .8rem;
  margin-top: 1.5rem; }
.tiles > div { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: .8rem 1rem;
  display: flex; flex-direction: column-reverse; justify-content: flex-end; box-shadow: var(--shade); }
.tiles dd { font-size: 1.65rem; font-weight: 650; letter-spacing: -.02em; line-height: 1.2;
  font-variant-numeric: tabular-nums; }
.tiles dt { color: var(--soft); font-size: .85rem; }
.kinds { display: flex; flex-wrap: wrap; gap: .4rem 1rem; list-style: none; padding: 0; margin-top: .9rem; }
nav { display: flex; gap: 1.2rem; margin-top: 1.4rem; border-bottom: 1px solid var(--line);
  overflow-x: auto; }
nav a { padding: .5rem 0; white-space: nowrap; }
.calm { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: .9rem 1.1rem; }
.findings { list-style: none; padding: 0; display: grid; gap: .5rem; }
.findings li { display: grid; grid-template-columns: 5.2rem 1fr; align-items: baseline; gap: .2rem .8rem;
  border-radius: 10px; padding: .6rem .9rem; overflow-wrap: anywhere; }
.findings strong { font-size: .72rem; letter-spacing: .07em; text-transform: uppercase; font-weight: 700; }
.findings + details, .told + details { margin-top: .6rem; }
.findings + details > summary, .told + details > summary { color: var(--accent); margin-bottom: .5rem; }
li.warning { background: var(--warn-paper); } li.warning strong { color: var(--warm); }
li.note { background: var(--note-paper); } li.note strong { color: var(--note); }
.badge, .chip { font-size: .72rem; line-height: 1; border-radius: 99px; padding: .28rem .55rem;
  white-space: nowrap; }
.badge { color: var(--soft); border: 1px solid var(--line); }
.chip.warning { color: var(--warm); background: var(--warn-paper); font-weight: 600; }
.chip.note { color: var(--note); background: var(--note-paper); font-weight: 600; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); gap: 1rem;
  align-items: stretch; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 14px; box-shadow: var(--shade);
  content-visibility: auto; contain-intrinsic-size: auto 21rem auto 4rem; scroll-margin-top: 1rem;
  min-width: 0; }
.card:target { border-color: var(--accent); }
.card > summary { display: flex; flex-wrap: wrap; align-items: center; gap: .35rem .4rem; padding: .8rem 1rem;
  list-style: none; }
.card > summary::-webkit-details-marker { display: none; }
.card .body { padding: 0 1rem 1rem; }
.facts { display: flex; justify-content: space-between; font-size: .82rem; color: var(--soft); gap: 1rem; }
.facts b { color: var(--ink); font-variant-numeric: tabular-nums; }
svg.bar, svg.filled { display: block; width: 100%; fill: var(--bar); background: var(--track);
  border-radius: 3px; overflow: hidden; }
svg.filled { height: 4px; margin: .25rem 0 .9rem; fill: var(--accent); }
svg.bar { height: 10px; }
.histogram { display: block; width: 100%; height: 7.4rem; fill: var(--bar); }
.histogram rect:hover { fill: var(--accent); }
.whisker, .median { stroke: var(--soft); fill: none; vector-effect: non-scaling-stroke; }
.median { stroke: var(--ink); stroke-width: 2; }
.box { fill: var(--soft); fill-opacity: .45; }
figcaption { display: flex; justify-content: space-between; gap: 1rem; font-size: .78rem; color: var(--soft);
  font-variant-numeric: tabular-nums; margin-top: .2rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(4.4rem, 1fr)); gap: .5rem .7rem;
  margin-top: .9rem; }
.figures.times { grid-template-columns: repeat(auto-fill, minmax(8.2rem, 1fr)); }
.figures dt { font-size: .74rem; color: var(--soft); }
.figures dd { font-size: .9rem; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.card details { margin-top: .8rem; }
.card details > summary { font-size: .82rem; color: var(--accent); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
.top { table-layout: fixed; font-size: .84rem; }
.top th { width: 42%; text-align: left; font-weight: 450; white-space: pre; overflow: hidden;
  text-overflow: ellipsis;
  padding: .16rem .6rem .16rem 0; }
.top td:last-child { width: 4.4rem; text-align: right; color: var(--soft); }
.top .others { color: var(--soft); } .top .others svg { opacity: .45; }
.told { background: var(--card); border: 1px solid var(--line); border-radius: 14px;
  border-collapse: separate;
  border-spacing: 0; font-size: .88rem; }
.told th, .told td { text-align: left; padding: .45rem .9rem; border-top: 1px solid var(--line);
  font-weight: 450;
  overflow-wrap: anywhere; }
.told thead th { border: 0; color: var(--soft); font-size: .78rem; overflow-wrap: normal; }
.told td:last-child { overflow-wrap: normal; }
.told .barred { width: 34%; } .told .barred svg { display: inline-block; width: calc(100% - 4rem);
  margin-right: .6rem; }
.index { margin-bottom: 1rem; } .index summary { color: var(--accent); }
.index div { columns: 12rem; font-size: .82rem; margin-top: .6rem; max-height: 24rem; overflow: auto; }
.index a { display: block; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.index a.warning { color: var(--warm); }
.map { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 14px;
  padding: 1rem; }
.map svg { display: block; margin: 0 auto; }
.positive { fill: var(--positive); color: var(--positive); }
.negative { fill: var(--negative); color: var(--negative); }
rect.none { fill: var(--track); }
.map .name { fill: var(--ink); font-size: 11.5px; text-anchor: end; dominant-baseline: middle; }
.map .name.top { text-anchor: start; }
.map .cell { fill: var(--ink); font-size: 10px; text-anchor: middle; dominant-baseline: central; }
.map .cell.strong { fill: var(--card); }
.legend { display: flex; align-items: center; gap: .6rem; margin-top: .7rem; font-size: .8rem; }
footer { color: var(--soft); font-size: .82rem; padding-top: 2rem; padding-bottom: 3rem; }
@media (max-width: 34rem) {
  .findings li { grid-template-columns: 1fr; }
  .told th, .told td { padding: .4rem .5rem; }
}
@media print { body { background: none; } .card { break-inside: avoid; content-visibility: visible; } nav {
  display: none; } }
"""
