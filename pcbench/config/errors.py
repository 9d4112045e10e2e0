"""Errors a user can act on: what was wrong, what is allowed, what was probably meant."""

import difflib
from collections.abc import Iterable


class ConfigError(Exception):
    """A config that cannot be run. The command line prints it and exits with 2."""


def nearest(word: str, allowed: Iterable[str]) -> str:
    """The end of an error message: the nearest match, if any, and all that is allowed."""
    allowed = sorted(set(allowed))
    last = word.rsplit(".", 1)[-1]  # a key is often right under the wrong group, or under none
    matches = [a for a in allowed if "." in a and a.rsplit(".", 1)[-1] == last]
    matches = matches or difflib.get_close_matches(word, allowed, n=1, cutoff=0.5)
    hint = f" Did you mean '{matches[0]}'?" if matches else ""
    return f"{hint} Allowed: {', '.join(allowed) or 'nothing'}."
