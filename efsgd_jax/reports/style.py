"""The one style sheet: light and dark, from a phone to paper."""

STYLE = """
:root {
  --paper: #f6f5f1; --card: #ffffff; --ink: #1d2126; --soft: #5b636d; --line: #e0ded7; --wash: #f0efe9;
  --accent: #1f5f8b; --good: #1c6b45; --bad: #a8261c; --bad-wash: #fbecea; --good-wash: #e9f3ed;
  --c1: #1f6fa8; --c2: #c0571a; --c3: #3a7d44; --c4: #8a4fa3; --heat: 31, 111, 168;
  color-scheme: light dark;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --card: #1c2024; --ink: #e6e8ea; --soft: #a0a8b1; --line: #333940; --wash: #262b30;
    --accent: #7db8e0; --good: #7fcfa0; --bad: #f2938a; --bad-wash: #3a2220; --good-wash: #1d3226;
    --c1: #6db3e4; --c2: #f0995c; --c3: #7fca8a; --c4: #c99be0; --heat: 109, 179, 228;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; max-width: 1120px; padding: 2.5rem 1.25rem 3rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
  overflow-wrap: anywhere;
}
h1 { margin: 0; font-size: clamp(1.6rem, 1.1rem + 2.2vw, 2.4rem); line-height: 1.2; letter-spacing: -0.015em;
  font-weight: 650; text-wrap: balance; }
h2 { margin: 0 0 0.75rem; font-size: 1.25rem; line-height: 1.3; font-weight: 650; letter-spacing: -0.005em; }
h3 { margin: 1.75rem 0 0.5rem; font-size: 0.95rem; font-weight: 650; }
p { margin: 0 0 0.75rem; max-width: 72ch; }
a { color: var(--accent); }
.badge { display: inline-block; margin-left: 0.6rem; padding: 0.1rem 0.5rem; border-radius: 1rem;
  vertical-align: 0.12em; background: var(--bad-wash); color: var(--bad); font-size: 0.75rem; font-weight: 500;
  letter-spacing: 0; }
header .notice { margin: 1.25rem 0 0; }
.lead { color: var(--soft); margin: 0.5rem 0 0; }
.note { color: var(--soft); font-size: 0.875rem; }
ul { margin: 0 0 0.75rem; padding-left: 1.2rem; max-width: 72ch; }
li { margin: 0.2rem 0; }
code { font: 0.875em/1.45 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  background: var(--wash); padding: 0.1em 0.35em; border-radius: 4px; }
nav { display: flex; flex-wrap: wrap; gap: 0.15rem 1.1rem; margin: 1.5rem 0 0; font-size: 0.9rem; }
nav a { text-decoration: none; padding: 0.25rem 0; }
nav a:hover { text-decoration: underline; }
.card { margin: 1.25rem 0 0; padding: 1.5rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; }
.card > :last-child { margin-bottom: 0; }
.notice { padding: 0.7rem 0.9rem; border-left: 3px solid var(--soft); background: var(--wash);
  border-radius: 0 6px 6px 0; max-width: none; }
.bad { border-left-color: var(--bad); background: var(--bad-wash); }
.good { border-left-color: var(--good); background: var(--good-wash); }
.warning { color: var(--bad); }
.bad strong { color: var(--bad); } .good strong { color: var(--good); }
.figures { display: flex; flex-wrap: wrap; gap: 0.75rem 2.5rem; margin: 0 0 1.25rem; padding: 0; }
.figures div { display: flex; flex-direction: column-reverse; }
.figures dt { color: var(--soft); font-size: 0.85rem; }
.figures dd { margin: 0; font-size: 1.75rem; line-height: 1.2; font-weight: 600; font-variant-numeric: tabular-nums; }
.facts { columns: 21rem; column-gap: 2.5rem; margin: 0 0 1rem; font-size: 0.9rem; }
.facts div { display: grid; grid-template-columns: minmax(0, 10rem) minmax(0, 1fr); gap: 0 0.9rem; padding: 0.35rem 0;
  border-bottom: 1px solid var(--line); break-inside: avoid; }
.facts dt { color: var(--soft); } .facts dd { margin: 0; font-variant-numeric: tabular-nums; }
.settings div { grid-template-columns: minmax(0, 1fr) auto; }
.settings dd { text-align: right; max-width: 12rem; }
table { border-collapse: collapse; width: 100%; max-width: 46rem; margin: 0 0 1rem; font-size: 0.9rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: 0 0 0.4rem; }
th, td { padding: 0.45rem 0.6rem; text-align: right; vertical-align: top; border-bottom: 1px solid var(--line); }
td, thead th { overflow-wrap: break-word; }
.stacking tbody th { min-width: 8rem; }
.words { text-align: left; }
.whole, .warning { white-space: nowrap; }
thead th { color: var(--soft); font-weight: 500; font-size: 0.825rem; vertical-align: bottom; }
th:first-child, tbody th { text-align: left; }
tbody th { font-weight: 500; }
th:first-child, td:first-child { padding-left: 0; } th:last-child, td:last-child { padding-right: 0; }
.stacking { max-width: none; }
td small { display: block; color: var(--soft); font-size: 0.8rem; }
.pixels, .smooth { display: block; max-width: 100%; height: auto; border-radius: 2px; }
.pixels { image-rendering: pixelated; }
.classes { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr));
  gap: 1.1rem 2rem; margin: 1rem 0; }
figure { margin: 0; min-width: 0; break-inside: avoid; }
figcaption { font-size: 0.875rem; font-weight: 500; margin: 0 0 0.3rem; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); gap: 1.25rem 1.5rem;
  margin: 1rem 0; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
svg { display: block; width: 100%; height: auto; max-width: 36rem; }
svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: 1.1rem; margin: 1rem 0; }
.pairs div { display: flex; gap: 0.5rem; }
.pairs img { width: calc(50% - 0.25rem); }
.pairs figcaption { font-weight: 400; color: var(--soft); font-size: 0.8rem; margin: 0.3rem 0 0; }
.matrix { table-layout: fixed; font-size: 0.8rem; max-width: 46rem; }
.matrix th, .matrix td { padding: 0.3rem 0.1rem; text-align: center; border: 1px solid var(--card); }
.matrix td { background: rgba(var(--heat), var(--share)); }
.matrix tbody th { text-align: right; padding-right: 0.5rem; font-size: 0.8rem; line-height: 1.2; }
.matrix thead th { font-size: 0.8rem; }
.matrix thead th span { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 7rem;
  text-align: left; line-height: 1.1; }
.matrix col:first-child { width: 22%; }
.short { max-width: 34rem; }
.short col:first-child { width: 8%; }
.short thead th span { writing-mode: horizontal-tb; transform: none; }
.bar { display: block; width: 100%; max-width: 20rem; height: 0.7rem; margin: 0.3rem 0 0.15rem auto;
  background: var(--wash); border-radius: 2px;
  position: relative; }
.bar i { position: absolute; inset: 0 auto 0 0; background: var(--c1); border-radius: 2px; }
.bar b { position: absolute; top: -0.15rem; bottom: -0.15rem; width: 2px; background: var(--ink); }
footer { margin: 1.75rem 0 0; color: var(--soft); font-size: 0.85rem; }
@media (max-width: 640px) {
  body { padding: 1.5rem 0.75rem 2rem; }
  .card { padding: 1.1rem 1rem; }
  .stacking, .stacking tbody, .stacking tr, .stacking th, .stacking td, .stacking caption { display: block; }
  .stacking thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  .stacking tr { padding: 0.6rem 0; border-bottom: 1px solid var(--line); }
  .stacking tbody th { border: 0; padding: 0; font-weight: 600; }
  .stacking td { display: flex; justify-content: space-between; gap: 1rem; border: 0; padding: 0.15rem 0; width: auto; }
  .stacking td { overflow-wrap: anywhere; text-align: right; }
  .stacking td::before { content: attr(data-label); color: var(--soft); flex: 0 0 auto; max-width: 50%;
    text-align: left; overflow-wrap: break-word; }
  .matrix { font-size: 0.68rem; } .matrix tbody th, .matrix thead th { font-size: 0.68rem; padding-left: 0; }
}
@media print {
  :root { --paper: #fff; --card: #fff; --ink: #000; --soft: #444; --line: #bbb; --wash: #fff; --accent: #000;
    --good: #000; --bad: #000; --bad-wash: #fff; --good-wash: #fff; --c1: #1f6fa8; --c2: #c0571a; --c3: #3a7d44;
    --c4: #8a4fa3; --heat: 31, 111, 168; color-scheme: light; }
  @page { margin: 16mm 14mm; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  .card { border: 0; border-top: 1px solid var(--line); border-radius: 0; padding: 10pt 0 0; }
  .card, tr, figure { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .badge { border: 1px solid; }
  .bar, .bar i, .matrix td, img { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
