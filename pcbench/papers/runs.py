"""Which runs stand behind the cells of a table at a scale, and which cells have none here."""

from collections.abc import Iterable, Set
from dataclasses import dataclass
from typing import Any

from pcbench.config import Config, ConfigError
from pcbench.config.compose import Composer
from pcbench.config.schema import GROUPS
from pcbench.papers.spec import Cell, Spec
from pcbench.sweeps.expand import Settings, block_members, compose_one, read_blocks


@dataclass(frozen=True)
class CellRuns:
    cell: Cell
    configs: tuple[Config, ...]
    reason: str | None  # why these are not to be run here; None: they are


def cell_runs(
    spec: Spec, scale: str, accelerator: bool = False, executor: Settings | None = None
) -> list[CellRuns]:
    """In the order of the table. `accelerator`: there is one here, for cells that need it;
    `executor`: where they run, unless the table says it itself."""
    from pcbench.data.catalogue import available

    absent = {dataset["name"] for dataset in available() if not dataset["ready"]}
    expander, found = _Expander(executor or {}), []
    for cell in spec.cells:
        own, reason = cell.at(scale), _reason(spec, cell, scale)
        if reason is not None:
            found.append(CellRuns(cell, (), reason))
            continue
        try:
            configs = expander.configs(cell, own)
        except ConfigError as error:
            place = f"paper {spec.name}, cell {cell.row}/{cell.column}, scale {scale}"
            raise ConfigError(f"{place}: {error}") from None
        reason = _missing_data(configs, absent)
        if reason is None and own.get("needs") == "gpu":
            sent = configs[0].get("executor.slurm.gpus")  # to where there is one
            reason = None if accelerator or sent else "needs a GPU"
        found.append(CellRuns(cell, configs, reason))
    return found


def _reason(spec: Spec, cell: Cell, scale: str) -> str | None:
    table, own = spec.scale(scale), cell.at(scale)
    if "cannot" in cell.options or "cannot" in own:
        return cell.options.get("cannot") or own["cannot"]
    if scale not in cell.options.get("scales", {}):
        return not_at(scale)
    for lines, key in (("rows", cell.row), ("columns", cell.column)):
        if lines in table and key not in map(str, table[lines]):
            return not_at(scale)
    return None


def not_at(scale: str) -> str:
    return f"not at scale {scale}"


class _Expander:
    """Shares Hydra's compositions, and the configs of a sweep, between cells."""

    def __init__(self, executor: Settings):
        self.composer = Composer()
        self.executor = executor
        self.sweeps: dict[str, list[Config]] = {}

    def configs(self, cell: Cell, scale: dict[str, Any]) -> tuple[Config, ...]:
        options = cell.options
        names = {"row": cell.row, "column": cell.column}
        where = _filled(options.get("where", {}) | scale.get("where", {}), names)
        where = where if "executor" in where else self.executor | where
        grid = _filled(options.get("grid", {}) | scale.get("grid", {}), names)
        seeds = scale.get("seeds", 1)
        if "sweep" not in options:
            block = {"where": where, "grid": grid, "seeds": seeds}
            members = block_members(block, {}, [])
            return tuple(compose_one(self.composer, member) for member in members)
        if (key := repr((options["sweep"], where, grid, seeds))) not in self.sweeps:
            seeds = range(seeds) if isinstance(seeds, int) else seeds
            axes = [(("seed",), [(seed,) for seed in seeds])]
            axes += [((key_,), [(value,) for value in values]) for key_, values in grid.items()]
            runs = {}
            for block in read_blocks(options["sweep"]):
                for member in block_members(block, where, axes):
                    config = compose_one(self.composer, member)
                    runs[config.run_id] = config
            self.sweeps[key] = list(runs.values())
        select = _filled(options.get("select", {}), names)
        found = [c for c in self.sweeps[key] if all(_holds(c, *item) for item in select.items())]
        if not found:
            raise ConfigError(f"no run of sweep '{options['sweep']}' has {select}.")
        return tuple(found)


def _holds(config: Config, key: str, wanted: Any) -> bool:
    path = f"{key}.name" if key in GROUPS else key
    if path not in config.flat:
        return False
    coerce = config.leaves[path].coerce
    return any(
        coerce(w) == config[path] for w in (wanted if isinstance(wanted, list) else [wanted])
    )


def _filled(settings: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """{row} and {column} of texts are the cell's keys."""
    fill = {"{row}": names["row"], "{column}": names["column"]}

    def filled(value):
        if isinstance(value, str):
            for mark, name in fill.items():
                value = value.replace(mark, name)
        return value

    return {key: filled(value) for key, value in settings.items()}


def _missing_data(configs: Iterable[Config], absent: Set[str]) -> str | None:
    """`dataset.source` is the dataset that sequences are made of."""
    names = {c.get(f"dataset.{key}") for c in configs for key in ("name", "source")}
    missing = sorted(names & absent)
    return f"needs the dataset {', '.join(missing)}" if missing else None
