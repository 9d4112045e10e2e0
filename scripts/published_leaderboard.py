"""The published leaderboard: table, page, README's table and its picture from their records.

    python scripts/published_leaderboard.py [RESULTS ...] [--folder results/published]

Results directories (or folders of published sets) that are named are published first: what they
have finished of the sweep replaces or joins what FOLDER holds. The sweep itself:

    pcbench sweep published_leaderboard      # 38 packs; on a GPU: executor.pack_mode=vmap
"""

import argparse
import shutil
import subprocess
from pathlib import Path

from pcbench.results import page, render
from pcbench.results.comparison import stored_examples
from pcbench.results.leaderboard import leaderboard
from pcbench.results.published import opened, publish
from pcbench.results.table import from_rows, table

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "results" / "published"
SWEEP = "published_leaderboard"
BEGIN, END = "<!-- leaderboard: made by `make leaderboard` -->\n", "<!-- end of leaderboard -->"
SIZE = (1280, 800)  # of the picture, pixels


def join(results: list[str], folder: Path) -> None:
    stores = [opened(place) for place in (folder, *results)]
    members = [(store, run_id) for store in stores for run_id in store.sweeps().get(SWEEP, ())]
    rows = {i: store.read(i).row for store, i in members if store.holds(i)}
    groups = leaderboard(from_rows(rows.values()))["groups"]
    shown = [run_id for group in groups for e in group["entries"] for run_id in e["run_ids"]]
    for path in publish(stores, SWEEP, folder, shown):
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


def rebuild(folder: Path) -> str:
    """Table and page; returns the table."""
    store, rows = opened(folder), table(folder)
    board = leaderboard(rows, examples=stored_examples(store))
    text = render.markdown(board, str(folder))
    (folder / "leaderboard.md").write_text(text)
    page.write(folder / "leaderboard.html", board, rows, store)
    return text


def insert(text: str, begin: str = BEGIN, end: str = END) -> None:
    """Into README, between its marks."""
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text().partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"{readme} has lost its marks {begin.strip()} and {end}.")
    readme.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def picture(folder: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        print("no chromium (scripts/install_chromium.sh): leaderboard.png stays as it is")
        return
    target = folder / "leaderboard.png"
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
               "--virtual-time-budget=2000", f"--window-size={SIZE[0]},{SIZE[1]}"]  # fmt: skip
    address = (folder / "leaderboard.html").resolve().as_uri()
    command = [chromium, *options, f"--screenshot={target}", address]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="*", help="results directories to publish first")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    asked = parser.parse_args()
    if asked.results:
        join(asked.results, asked.folder)
    text = rebuild(asked.folder)
    if asked.folder.resolve() == FOLDER:
        insert(text)
        picture(asked.folder)


if __name__ == "__main__":
    main()
