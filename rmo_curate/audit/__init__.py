"""The audit: what a scored run says about a preference dataset, as one page that opens offline.

    findings.py     the numbers: pure functions of arrays -> frozen dataclasses
    numerals.py     numbers as text
    suspects.py     the pairs and rejects to read, with the reason in words
    wording.py      the sentences: headline, what "held out" means here, what to do next
    charts.py       inline SVG, light and dark, each with a text alternative
    collect.py      a run folder -> a Report: all of the above
    report.py       a Report -> DIR/report.html and DIR/audit.json (report.html.j2, style.css)

Made by `rmo-curate audit RUN --out DIR`.
"""
