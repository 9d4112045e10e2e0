"""Configs: vocabulary, composition, canonical form, identity. Imports no JAX."""

from pcbench.config.compose import Composer, choices, load_target
from pcbench.config.config import Config
from pcbench.config.errors import ConfigError

__all__ = ["Composer", "Config", "ConfigError", "choices", "load_target"]
