"""The command that reproduces runs, from their stored config."""

import re
import shlex
from collections.abc import Mapping
from typing import Any

from pcbench.config.compose import Composer
from pcbench.config.config import flatten
from pcbench.config.errors import ConfigError
from pcbench.config.schema import GROUPS

ALWAYS_NAMED = ("algorithm", "dataset", "model")
UNQUOTED = r"(?!(null|true|false|nan|inf)$)[a-z_][\w./-]*"  # texts that need no quotes
NOT_IDENTITY = ("executor", "logging")


class Reproducer:
    """Keeps the composed defaults of each set of choices."""

    def __init__(self):
        self._composer = Composer()

    def overrides(self, config: Mapping[str, Any], run_id: str) -> list[str] | None:
        """Overrides that compose to this run, its seed left out; null where none do:
        a choice has another version by now, or its package is not installed."""
        flat = flatten(config)
        try:
            chosen = {g: flat[f"{g}.name"] for g in GROUPS if g not in NOT_IDENTITY}
            default = self._composer.compose({}, {})
            groups = {
                g: name
                for g, name in chosen.items()
                if g in ALWAYS_NAMED or name != default[f"{g}.name"]
            }
            base = self._composer.compose(groups, {})
            leaves = {
                path: value
                for path, value in flat.items()
                if path.split(".")[0] not in NOT_IDENTITY and base.get(path, ...) != value
            }
            if self._composer.compose(groups, leaves).run_id != run_id:
                return None
        except (ConfigError, KeyError):
            return None
        leaves.pop("seed", None)
        return [f"{key}={written(value)}" for key, value in (groups | leaves).items()]

    def command(self, config: Mapping[str, Any], run_id: str, seeds: list[int]) -> str | None:
        overrides = self.overrides(config, run_id)
        if overrides is None:
            return None
        name = "run" if len(seeds) == 1 else "sweep"
        texts = [*overrides, f"seed={','.join(map(str, seeds))}"]
        return shlex.join(["pcbench", name, *texts])


def written(value: Any) -> str:
    """A value in the grammar of overrides."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(written, value))}]"
    if isinstance(value, str) and not re.fullmatch(UNQUOTED, value, re.IGNORECASE):
        escaped = re.sub(r"(\\*)'", r"\1\1\'", value)
        return f"'{escaped}'"
    return str(value)
