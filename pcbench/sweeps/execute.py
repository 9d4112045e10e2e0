"""Run the packs of a plan and write their records."""

import traceback
from collections.abc import Callable, Iterator

from pcbench.config import Config, ConfigError
from pcbench.data import DataError
from pcbench.results.provenance import provenance
from pcbench.results.records import Record, Store
from pcbench.results.row import make_row
from pcbench.sweeps.plan import Plan


def inline(plan: Plan, store: Store, observe: Callable = lambda *_: None) -> Iterator[Record]:
    """Run in this process, one pack after the other; yields each record once it is stored."""
    for pack in plan.packs:
        yield from run_pack([plan.configs[r] for r in pack.run_ids], pack.mode, store, observe)


def run_pack(
    configs: list[Config], mode: str, store: Store, observe: Callable = lambda *_: None
) -> list[Record]:
    """Train a pack and store one record per member.

    A run that raises becomes a `failed` record with its traceback; what concerns every run alike
    (missing data) is raised.
    """
    from pcbench.training.train import train

    origin = provenance()
    try:
        outcomes = train(configs, mode, lambda progress: observe(configs, progress))
        results = [(o.status, o.metrics, o.arrays, None) for o in outcomes]
    except (ConfigError, DataError):
        raise
    except Exception:
        results = [("failed", {}, None, traceback.format_exc())] * len(configs)
    records = []
    for config, (status, metrics, arrays, error) in zip(configs, results, strict=True):
        row = make_row(config, {**metrics, "static_key": config.static_key}, origin)
        record = Record.new(config.run_id, status, config.tree, row, provenance=origin)
        store.write(record, arrays, error)
        mirror(config, record, arrays, store)
        records.append(record)
    return records


def mirror(config: Config, record: Record, arrays, store: Store) -> None:
    """Send a finished run to wandb where the config asks for it."""
    settings = config["logging"]["wandb"]
    if settings["mode"] != "disabled":
        from pcbench.results.wandb_mirror import mirror as to_wandb

        to_wandb(record, arrays, settings | {"dir": str(store.root)})
