"""Shows finished runs in Weights & Biases. A copy: the record stays the truth.

The mirror's id is the run id, so mirroring a run again resumes it and overwrites its summary;
steps that it already has are not added twice. Offline mode needs neither network nor key
(`wandb sync` uploads its folder later).
"""

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pcbench.results.records import Record, RecordError, Store

if TYPE_CHECKING:
    import numpy as np

HISTORY = "history/"


def mirror(
    record: Record,
    arrays: "Mapping[str, np.ndarray] | None" = None,
    settings: Mapping[str, Any] | None = None,
) -> bool:
    """Log history, config and row of a finished run; true when wandb took it.

    `settings`: ``mode`` (disabled, offline, online), ``project``, ``entity``, ``dir``, ``group``,
    ``tags``. `arrays` as in the store: those named ``history/...`` with shape [steps] are the
    history, ``history/epoch`` among them gives its steps. Whatever goes wrong is a warning: the
    record is already written.
    """
    settings = {"mode": "disabled", "project": "pcbench", **(settings or {})}
    if settings["mode"] == "disabled":
        return False
    try:
        _mirror(record, arrays or {}, settings)
    except Exception as error:  # network, key, quota, a wandb that changed: none is ours
        warnings.warn(f"wandb did not take run {record.run_id}: {error}", stacklevel=2)
        return False
    return True


def mirror_sweep(store: Store, sweep: str, settings: Mapping[str, Any]) -> tuple[int, int]:
    """Mirror the finished runs of a sweep as a group of its name: (those taken, finished ones).
    Raises RecordError for a sweep that there is not."""
    sweeps = store.sweeps()
    if sweep not in sweeps:
        known = ", ".join(sweeps) or "none"
        raise RecordError(f"{store.root} holds no sweep '{sweep}'. There: {known}.")
    finished = [run_id for run_id in sweeps[sweep] if store.holds(run_id)]
    settings = {"mode": "offline", "dir": str(store.root), "group": sweep, **settings}
    taken = 0
    for run_id in finished:
        try:
            history = store.arrays(run_id, HISTORY)
        except RecordError:  # a failed run has none
            history = {}
        taken += mirror(store.read(run_id), history, settings)
    return taken, len(finished)


def _mirror(record: Record, arrays: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    import wandb

    run = wandb.init(
        **{k: settings.get(k) for k in ("mode", "project", "entity", "dir", "group", "tags")},
        id=record.run_id,
        name=f"{record.row.get('variant') or record.run_id} seed {record.row.get('seed')}",
        resume="allow",
        config=record.config,
        # machine and revision are those of the run, in its row, not those of this process
        settings=wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True),
    )
    try:
        for step, values in _steps(arrays):
            run.log(values, step=step)
        run.summary.update({k: v for k, v in record.row.items() if v is not None})
    finally:
        run.finish(exit_code=1 if record.status == "failed" else 0)


def _steps(arrays: Mapping[str, Any]) -> list[tuple[int, dict[str, float]]]:
    """The history step by step. Curves measured less often than others have NaN between."""
    curves = {
        name.removeprefix(HISTORY): values
        for name, values in arrays.items()
        if name.startswith(HISTORY) and values.ndim == 1
    }
    count = max(map(len, curves.values()), default=0)
    epochs = curves.get("epoch")
    steps = []
    for i in range(count):
        values = {k: float(v[i]) for k, v in curves.items() if i < len(v) and v[i] == v[i]}
        steps.append((int(epochs[i]) if epochs is not None and i < len(epochs) else i, values))
    return steps
