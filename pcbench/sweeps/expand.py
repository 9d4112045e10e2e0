"""From a sweep (blocks of a YAML file, override grammar) to the configs of its runs."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from pcbench.config import Composer, Config, ConfigError
from pcbench.config.compose import find_yaml, parse, read_yaml
from pcbench.config.errors import nearest

BLOCK_KEYS = ("where", "grid", "zip", "seeds")
Settings = dict[str, Any]  # key (group or dotted path) → value


def single(overrides: Sequence[str]) -> Config:
    """The one config that overrides describe."""
    settings, axes = read_overrides(overrides)
    if axes:
        keys = ", ".join(key for axis in axes for key in axis[0])
        raise ConfigError(
            f"{keys}: several values describe a sweep; use `pcbench sweep`, or `run -m`."
        )
    return compose_one(Composer(), settings)


def expand(sweep: str | None = None, overrides: Sequence[str] = ()) -> tuple[list[Config], int]:
    """(configs in order without duplicates, number of duplicates dropped).

    `sweep`: a name under conf/sweep or a path to a YAML file. Overrides with one value replace what
    a block says; with several (``a,b``, ``range``, ``choice``) they multiply every block.
    """
    settings, axes = read_overrides(overrides)
    composer, runs, total = Composer(), {}, 0
    for block in read_blocks(sweep) if sweep else [{}]:
        for member in block_members(block, settings, axes):
            config = compose_one(composer, member)
            runs.setdefault(config.run_id, config)
            total += 1
    if not runs:
        raise ConfigError(f"sweep '{sweep}' describes no run: a list of values is empty.")
    return list(runs.values()), total - len(runs)


def compose_one(composer: Composer, settings: Settings) -> Config:
    groups = {key: value for key, value in settings.items() if composer.is_group(key)}
    for group, choice in groups.items():
        if not isinstance(choice, str):
            raise ConfigError(f"{group}: expected the name of a choice, got {choice!r}.")
    leaves = {key: value for key, value in settings.items() if key not in groups}
    return composer.compose(groups, leaves)


def read_overrides(overrides: Sequence[str]) -> tuple[Settings, list[tuple[tuple, list[tuple]]]]:
    """(single values, axes); an axis is its keys and the list of their values."""
    from hydra.core.override_parser.types import Transformer
    from hydra.errors import HydraException

    settings, axes = {}, []
    for override in parse(overrides):
        key = override.key_or_group
        settings.pop(key, None)  # the last word on a key wins
        axes = [axis for axis in axes if axis[0] != (key,)]
        if override.is_sweep_override():
            try:
                found = override.sweep_iterator(transformer=Transformer.identity)
                values = [_plain(value) for value in found]
            except (HydraException, ValueError, TypeError) as error:
                raise ConfigError(
                    f"'{override.input_line}' lists no values ({error}): commas, range(…) and "
                    "choice(…) do."
                ) from None
            axes.append(((key,), [(value,) for value in values]))
        else:
            settings[key] = _plain(override.value())
    return settings, axes


def _plain(value: Any) -> Any:
    """Hydra's quoted strings → str."""
    from hydra.core.override_parser.types import QuotedString

    if isinstance(value, QuotedString):
        return value.text
    return [_plain(v) for v in value] if isinstance(value, list) else value


def read_blocks(sweep: str) -> list[Mapping]:
    """The blocks of a sweep file, checked: a list of blocks, or {seeds, blocks}."""
    path = Path(sweep) if sweep.endswith((".yaml", ".yml")) else find_yaml("sweep", sweep)
    content = read_yaml(path)
    shared = {}
    if isinstance(content, dict):
        unknown = next((key for key in content if key not in ("seeds", "blocks")), None)
        if unknown is not None:
            raise ConfigError(f"{path}: '{unknown}'." + nearest(str(unknown), ("seeds", "blocks")))
        shared = {"seeds": content["seeds"]} if "seeds" in content else {}
        content = content.get("blocks") or [{}]
    if not isinstance(content, list) or not content:
        raise ConfigError(f"{path}: a list of blocks, or {{seeds: …, blocks: […]}}, is needed.")
    blocks = []
    for block in content:
        if not isinstance(block, dict):
            raise ConfigError(f"{path}: a block is a mapping with the keys {BLOCK_KEYS}.")
        for key, value in block.items():
            if key not in BLOCK_KEYS:
                raise ConfigError(f"{path}: block key '{key}'." + nearest(str(key), BLOCK_KEYS))
            if key != "seeds" and not isinstance(value, dict):
                raise ConfigError(f"{path}: {key}: expected a mapping of keys, got {value!r}.")
        blocks.append(shared | block)
    return blocks


def block_members(block: Mapping, settings: Settings, axes: list) -> Iterator[Settings]:
    """The settings of each run of a block, in the order in which its keys are written."""
    base = {**(block.get("where") or {}), **settings}
    swept = {key for keys, _ in axes for key in keys} | settings.keys()
    block_axes = []
    for key, values in (block.get("grid") or {}).items():
        if key not in swept:
            block_axes.append(((key,), [(value,) for value in _list(key, values)]))
    zipped = {k: _list(k, v) for k, v in (block.get("zip") or {}).items() if k not in swept}
    if zipped:
        if len({len(values) for values in zipped.values()}) > 1:
            lengths = ", ".join(f"{key}: {len(values)}" for key, values in zipped.items())
            raise ConfigError(f"zip: lists of different lengths ({lengths}).")
        block_axes.append((tuple(zipped), list(zip(*zipped.values(), strict=True))))
    if "seeds" in block and "seed" not in swept:
        seeds = block["seeds"]
        seeds = range(seeds) if isinstance(seeds, int) else _list("seeds", seeds)
        block_axes.append((("seed",), [(seed,) for seed in seeds]))
    for combination in product(*(values for _, values in [*axes, *block_axes])):
        member = dict(base)
        for (keys, _), values in zip([*axes, *block_axes], combination, strict=True):
            member |= zip(keys, values, strict=True)
        yield member


def _list(key: str, values: Any) -> list:
    if not isinstance(values, list):
        raise ConfigError(f"{key}: a list of values is needed in a grid or zip, got {values!r}.")
    return values
