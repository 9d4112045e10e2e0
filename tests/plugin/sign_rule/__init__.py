"""A learning rule in a package of its own."""

from pathlib import Path

conf = Path(__file__).parent / "conf"
