"""Fills the generated parts of the pages of docs/, which are committed and held up to date by a test.

    python docs/generate.py            writes the pages
    python docs/generate.py --check    names the pages that are out of date, and exits with 1

A part stands between `<!-- generated: NAME -->` and `<!-- /generated -->`; PARTS says what makes each NAME. To add
one, enter it here and put its marks on a page.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks is not installed

import of_code
import of_settings

from benchmarks.claims import claims_table
from benchmarks.result_tables import TABLES

DOCS = Path(__file__).parent
PART = re.compile(r"(<!-- generated: (?P<name>[\w./ -]+) -->\n).*?(<!-- /generated -->)", re.S)

PARTS: dict[str, Callable[[], Iterable[str]]] = {
    **of_settings.PARTS,
    **of_code.PARTS,
    **{f"results/{name}": made for name, made in TABLES.items()},
    "results/claims": claims_table,
}


def filled(page: str) -> str:
    """The page with every generated part as it is to be."""

    def made(match: re.Match[str]) -> str:
        lines = "\n".join(PARTS[match["name"]]()).strip("\n")
        return f"{match[1]}\n{lines}\n\n{match[3]}"

    return PART.sub(made, page)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where a page is out of date")
    check = parser.parse_args().check
    stale, used = [], set()
    for path in sorted(DOCS.rglob("*.md")):
        page = path.read_text(encoding="utf-8")
        used |= {match["name"] for match in PART.finditer(page)}
        if (new := filled(page)) != page:
            stale.append(path.relative_to(DOCS).as_posix())
            if not check:
                path.write_text(new, encoding="utf-8")
    for name in sorted(PARTS.keys() - used):
        print(f"on no page: {name}")
    for name in stale:
        print(f"{'out of date' if check else 'written'}: docs/{name}")
    return int(check and bool(stale or PARTS.keys() - used))


if __name__ == "__main__":
    raise SystemExit(main())
