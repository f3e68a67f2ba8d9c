"""The style sheet of a model card: that of the pages of data, and what plots need."""

from app.datasets.profiles.style import STYLE as PAGE_STYLE

STYLE = (
    PAGE_STYLE
    + """
:root { --s0: #2f6f8f; --s1: #c2502c; --s2: #5b6b2f; --s3: #7a4f9a; }
@media (prefers-color-scheme: dark) {
  :root { --s0: #7fc0de; --s1: #ec7f59; --s2: #bccb86; --s3: #c39be0; }
}
.lead { font-size: 1.02rem; max-width: 46rem; margin-top: 1rem; overflow-wrap: anywhere; }
.tiles dd small { font-size: .8rem; font-weight: 400; color: var(--soft); display: block; letter-spacing: 0; }
.tiles dd { overflow-wrap: anywhere; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: 1rem;
  align-items: start; }
.panel { background: var(--card); border: 1px solid var(--line); border-radius: 14px;
  box-shadow: var(--shade); padding: .9rem 1rem 1rem; min-width: 0; break-inside: avoid; }
.panel > h3 { margin-bottom: .5rem; }
.panel > p { color: var(--soft); font-size: .8rem; margin-top: .5rem; overflow-wrap: anywhere; }
.tall { grid-row: span 2; }
svg.plot { display: block; width: 100%; height: auto; max-width: 30rem; margin: 0 auto; overflow: visible; }
.plot text { fill: var(--soft); font-size: 11px; font-variant-numeric: tabular-nums; }
.plot .foot { text-anchor: middle; }
.plot .foot.first { text-anchor: start; } .plot .foot.last { text-anchor: end; }
.plot .side, .plot .name { text-anchor: end; dominant-baseline: central; }
.plot .name { fill: var(--ink); }
.plot .value { text-anchor: end; dominant-baseline: central; fill: var(--ink); }
.plot .axis { font-size: 10.5px; }
.plot .grid { stroke: var(--line); stroke-width: 1; } .plot .base { stroke: var(--soft); stroke-width: 1; }
.plot .guide { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 4 4; fill: none; }
.plot .curve { stroke: var(--s0); stroke-width: 2; fill: none; stroke-linejoin: round; }
.plot .step { stroke: var(--s1); stroke-width: 1.5; fill: none; }
.plot .thin { stroke: var(--soft); stroke-width: 1.2; fill: none; }
.plot .band { fill: var(--s0); fill-opacity: .16; }
.plot .dot { fill: var(--s0); } .plot .dot.off { fill: var(--soft); fill-opacity: .5; }
.plot .reach { stroke: var(--ink); stroke-width: 1.3; stroke-opacity: .75; fill: none; }
.plot .bars { fill: var(--bar); } .plot .bars.other { fill: var(--negative); }
.plot .hit { fill: transparent; } .plot g:hover .hit { fill: var(--track); }
.plot .worse .dot, .plot .worse .bars { fill: var(--negative); }
.plot .rival .dot { fill: var(--soft); }
.plot .right { fill: var(--positive); } .plot .wrong { fill: var(--negative); }
.plot .cell { fill: var(--ink); text-anchor: middle; dominant-baseline: central; font-size: 11px; }
.plot .cell.strong { fill: var(--card); }
.plot .s0 { stroke: var(--s0); } .plot .s1 { stroke: var(--s1); } .plot .s2 { stroke: var(--s2); }
.plot .s3 { stroke: var(--s3); }
.plot .curve.dashed { stroke-dasharray: 5 3; }
.keys { display: flex; flex-wrap: wrap; gap: .15rem .9rem; font-size: .78rem; color: var(--soft);
  list-style: none; padding: 0; margin-top: .4rem; overflow-wrap: anywhere; }
.keys i { display: inline-block; width: .8rem; height: .25rem; border-radius: 2px; margin-right: .35rem;
  vertical-align: middle; background: var(--s0); }
.keys .s1 { background: var(--s1); } .keys .s2 { background: var(--s2); } .keys .s3 { background: var(--s3); }
.keys .other { background: var(--negative); } .keys .bars { background: var(--bar); }
.scroll { overflow-x: auto; }
.told td.number, .told th.number { text-align: right; white-space: nowrap; overflow-wrap: normal; }
.told .range { color: var(--soft); font-size: .85em; }
.told .good { color: var(--positive); font-weight: 650; }
.told .bad { color: var(--negative); font-weight: 650; }
.told .primary th { font-weight: 650; }
.named tbody th { min-width: 7.5rem; }
.told.named thead th { white-space: normal; max-width: 11rem; vertical-align: bottom; }
.tiles em { font-style: normal; font-size: 1.15rem; letter-spacing: 0;
  display: block; line-height: 1.3; padding-top: .25rem; }
nav { flex-wrap: wrap; gap: 0 1.2rem; }
.scroll + .plots, .calm + .plots { margin-top: 1rem; }
.told + h3, .plots + h3, .scroll + h3 { margin-top: 1.4rem; }
section > h3 { margin: 1.4rem 0 .6rem; }
section > .hint { font-size: .86rem; margin-top: .7rem; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: .8rem 1rem;
  overflow-x: auto; font: .8rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; margin: 0; }
.facts2 { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; font-size: .88rem; }
.facts2 dt { color: var(--soft); } .facts2 dd { overflow-wrap: anywhere; }
.tags { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .4rem; margin-top: .8rem; }
.tags .badge { white-space: normal; overflow-wrap: anywhere; line-height: 1.25; }
.steps { display: grid; gap: .8rem; }
@media (max-width: 34rem) { .facts2 { grid-template-columns: 1fr; gap: 0; }
  .facts2 dd { margin-bottom: .4rem; } }
@media print { section { break-inside: auto; } h2 { break-after: avoid; } tr { break-inside: avoid; }
  .panel { box-shadow: none; } pre { white-space: pre-wrap; } }
"""
)
