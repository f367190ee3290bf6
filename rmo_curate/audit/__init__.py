"""The audit: what is wrong with a preference dataset, scored or not, as one page that opens offline.

    settings.py      what a user can ask
    texts.py         pairs as text, from data or from a run
    checks.py        what is looked for without a model: the registry of findings (per_pair.py: of each pair by itself,
                     with answers.py and shingles.py, in one process a core; preferences.py, near.py: of pairs together)
    overview.py      counts over the whole data; slices.py: by part
    scored.py        margins by checkpoint and trajectories (findings.py: the statistics)
    estimates.py     what evidence/ estimates, for the page: noise rate, P(label right), swapped copies
    curve.py         what each threshold costs and catches
    calibration.py   whether that probability can be believed, and what removal does to style
    suspects.py      the pairs and rejects to read
    standing_out.py  the findings that explain a data set: which are strong
    wording.py       sentences: how noisy, and why that is said (why.py: why a pair is listed; numerals.py: numbers)
    next_step.py     the one command that comes next
    contents.py      the Report: every number and sentence; collect.py: all of the above -> a Report
    command.py       a Report -> DIR/report.html and DIR/audit.json (schema.py: its JSON Schema); summary.py: the lines
    page.py          the page: first_screen.py, charts.py, listing.py (what page.js reads), explained.py, style.css,
                     report.html.j2
    gates.py         --fail-on; baseline.py: --baseline

A chart more is drawn in charts.py, entered with its text in `charts` of page.py and placed in report.html.j2. Why a
label is doubted is said by `rmo_curate.evidence.wording`, where a trajectory went by why.py.

Made by `rmo-curate audit DATA --out DIR` and `rmo-curate audit RUN --out DIR`.
"""
