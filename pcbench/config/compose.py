"""YAML + overrides → Config. Hydra composes the groups; leaves are patched on top.

One Hydra composition serves every config with the same choices (`Composer` keeps them), which is
what makes a plan of thousands of runs fast.
"""

import copy
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from pcbench.config.config import Config, build, flatten, nest
from pcbench.config.errors import ConfigError, nearest
from pcbench.config.schema import ALWAYS, GROUPS, VOCABULARY

PLUGINS = "pcbench.plugins"
COMPOSED = (*GROUPS, "preset")


@cache
def conf_dir() -> Path:
    """The checkout's ``conf/`` where there is one (an editable install leaves a stale copy in
    site-packages), else the copy inside the wheel."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent / "conf"
    return checkout if (checkout / "config.yaml").is_file() else package / "conf"


@cache
def search_path() -> tuple[Path, ...]:
    """The folders of YAML: ours, then those that installed plugins name."""
    from importlib.metadata import entry_points  # takes as long as NumPy to import

    folders = [conf_dir()]
    for entry in entry_points(group=PLUGINS):
        try:
            plugin = entry.load()
            folders.append(Path(getattr(plugin, "conf", plugin)))
        except Exception as error:  # whatever a package of somebody else's raises
            raise ConfigError(
                f"the plugin '{entry.name}' ({entry.value}) cannot be loaded: {error!r}. Mend or "
                "uninstall it; it must name a module with `conf`, the path of its YAML folder."
            ) from error
    return tuple(folders)


def choices(group: str) -> list[str]:
    """The names that a group can take (``pcx/mlp_mnist_pc_se`` for nested ones)."""
    return sorted(
        str(file.relative_to(folder / group).with_suffix(""))
        for folder in search_path()
        for file in (folder / group).rglob("*.yaml")
    )


def find_yaml(group: str, name: str) -> Path:
    for folder in search_path():
        if (file := folder / group / f"{name}.yaml").is_file():
            return file
    raise ConfigError(f"{group} '{name}' does not exist." + nearest(name, choices(group)))


def parse(overrides: Sequence[str]):
    """Hydra's override grammar; ConfigError for what is not in it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser, parsed = OverridesParser.create(), []
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except HydraException as error:
            detail = str(error).splitlines()[0]
            raise ConfigError(f"cannot read the override '{text}': {detail}") from None
        if override.is_delete() or override.is_add() or override.is_force_add():
            raise ConfigError(
                f"'{text}': every key has a value already; write "
                f"'{override.key_or_group}=VALUE' to change it."
            )
        parsed.append(override)
    return parsed


class Composer:
    """Composes configs; keeps one Hydra composition per set of choices."""

    def __init__(self):
        self._composed: dict[tuple, Config] = {}
        self._defaults: dict | None = None  # the tree without any group chosen

    def is_group(self, key: str) -> bool:
        return key in COMPOSED

    def compose(self, groups: dict[str, str], leaves: dict[str, object]) -> Config:
        """``groups``: choice per config group; ``leaves``: value per dotted path."""
        key = tuple(sorted(groups.items()))
        if key not in self._composed:
            for group, choice in groups.items():
                find_yaml(group, choice)
            self._composed[key] = _checked(self._tree(groups), groups.get("preset"))
        base = self._composed[key]
        return base.replace(leaves) if leaves else base

    def _tree(self, groups: dict[str, str]) -> dict:
        """Hydra takes a tenth of a second. A group chosen without a preset is its own YAML in place
        of the default's, unless that one has a defaults list."""
        chosen = {group: choice_yaml(group, choice) for group, choice in groups.items()}
        if "preset" in groups or any("defaults" in own for own in chosen.values()):
            return self._hydra(groups)
        if self._defaults is None:
            self._defaults = self._hydra({})
        return copy.deepcopy(self._defaults | chosen)

    def _hydra(self, groups: dict[str, str]) -> dict:
        from hydra import compose, initialize_config_dir
        from hydra.errors import HydraException
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        overrides = [f"{group}={choice}" for group, choice in groups.items()]
        others = ",".join(f"file://{p}" for p in search_path()[1:])
        if others:
            overrides.append(f"hydra.searchpath=[{others}]")
        try:
            with initialize_config_dir(str(conf_dir()), version_base="1.3"):
                composed = compose("config", overrides)
            return OmegaConf.to_container(composed, resolve=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(f"{' '.join(overrides)}: {error}") from None


def _checked(tree: dict, preset: str | None) -> Config:
    for group in GROUPS:
        if not {"name", "target"} <= tree[group].keys():
            raise ConfigError(f"{group}: its YAML must give `name` and `target`.")
        own = choice_yaml(group, tree[group]["name"])
        for key in tree[group]:
            if key not in own:  # a preset was made for another choice
                raise ConfigError(
                    f"preset={preset} sets {group}.{key}, which {group} "
                    f"'{tree[group]['name']}' does not have." + nearest(key, own)
                )
    return build(tree)


def stored(tree: dict) -> Config:
    """The config of a tree that an earlier version may have written: leaves that came since take
    the value with which they were introduced, so that its run_id lives on."""
    flat = flatten(tree)
    own = {group: choice_yaml(group, tree[group]["name"]) for group in GROUPS}
    for path in (_ungrouped() | flatten(own).keys()) - flat.keys():
        if path in VOCABULARY and VOCABULARY[path].default is not ALWAYS:
            flat[path] = VOCABULARY[path].default
    return build(nest(flat))


@cache
def _ungrouped() -> set[str]:
    """The leaves of conf/config.yaml, which belong to no group."""
    return set(flatten(read_yaml(conf_dir() / "config.yaml")))


@cache
def choice_yaml(group: str, choice: str) -> dict:
    """A choice's own YAML: the keys that it has, and their defaults."""
    content = read_yaml(path := find_yaml(group, choice))
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no mapping of keys.")
    return content


def read_yaml(path: Path):
    """What a YAML file holds, as plain Python values."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        return OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist.") from None
    except (YAMLError, OmegaConfBaseException, OSError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None


def load_target(target: str):
    """The Python object at a dotted path."""
    from importlib import import_module

    module, _, name = target.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"target '{target}' cannot be imported: {error}.") from error
