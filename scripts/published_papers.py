"""The published tables of papers, and README's list of them, from their records.

    python scripts/published_papers.py [RESULTS ...]

The tables that `pcbench paper run` wrote into these results directories are published first: their
records replace or join what results/published/papers holds.
"""

import re
import sys

from published_leaderboard import FOLDER, insert

from pcbench.config.compose import choices
from pcbench.papers.coverage import make_coverage
from pcbench.papers.listing import HEADER, line, listing
from pcbench.papers.render import save
from pcbench.papers.runs import cell_runs
from pcbench.papers.spec import SCALES, read_spec
from pcbench.papers.table import make_table
from pcbench.results.published import RECORDS, opened, publish
from pcbench.results.records import Store
from pcbench.results.render import pipes
from pcbench.results.table import table

PAPERS = FOLDER / "papers"
BEGIN, END = "<!-- papers: made by `make published-papers` -->\n", "<!-- end of papers -->"
NAME = re.compile(rf"paper-(.+)-({'|'.join(SCALES)})")  # of a table's sweep


def join(results: list[str]) -> None:
    for place in results:
        store = Store(place)
        for sweep in store.sweeps():
            if NAME.fullmatch(sweep) and not sweep.endswith("-smoke"):
                for path in publish([opened(PAPERS), store], sweep, PAPERS, ()):
                    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


def rebuild() -> str:
    """All tables; returns the list of them."""
    store = opened(PAPERS)
    for path in sorted(PAPERS.glob(f"*{RECORDS}")):
        name, scale = NAME.fullmatch(path.name.removesuffix(RECORDS)).groups()
        spec = read_spec(name)
        save(make_table(spec, scale, cell_runs(spec, scale, accelerator=True), store), PAPERS)
    rows = {row["run_id"]: row for own in (FOLDER, PAPERS) for row in table(own).to_pylist()}
    for spec in map(read_spec, choices("paper")):
        if spec.coverage:
            save(make_coverage(spec, rows.values()), PAPERS)
    lines = [line(row) for row in listing(PAPERS)]
    for own in lines:
        if (PAPERS / f"{own[0]}.md").exists():
            own[0] = f"[{own[0]}](results/published/papers/{own[0]}.md)"
    return pipes(HEADER, lines)


if __name__ == "__main__":
    join(sys.argv[1:])
    insert(rebuild(), BEGIN, END)
