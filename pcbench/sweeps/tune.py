"""Search of hyper-parameters: optuna proposes a batch of trials, one pack computes it.

    ROOT/tunes/NAME.json        what was proposed so far; its values are read from the records
    ROOT/sweeps/tune-NAME.json  the runs of the search and of its report

A trial is a config; its value is the mean over the tuning seeds (1000, 1001, …) of the best
validation score: the task's first one, in its direction. A diverged or failed run scores chance;
where the task has none, the worst there is. The test set plays no part. The best trial is then
reported with fresh seeds (0, 1, …), whose rows state the number of trials.

The proposals of a batch are a function of the search and of the values of all batches before it,
so a search that was killed goes on as if nothing had happened, and so does one whose `trials` are
raised later. TPE (Bergstra et al. 2011) in its multivariate form; the trials of a batch are kept
apart by counting those that have no value yet as bad ones.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcbench.config import Config, ConfigError, load_target
from pcbench.results.columns import validation_column
from pcbench.results.files import whole_file
from pcbench.results.records import RECORD, Record, RecordError, Store
from pcbench.results.row import TUNING_SEEDS
from pcbench.sweeps.execute import reason
from pcbench.sweeps.expand import Settings
from pcbench.sweeps.packs import claimed
from pcbench.sweeps.plan import make_plan
from pcbench.sweeps.space import Search


@dataclass(frozen=True)
class Trial:
    settings: Settings
    value: float
    run_ids: list[str]


def tune(
    search: Search,
    store: Store,
    report: int = 0,
    retry: Iterable[str] = (),
    observe: Callable[[list[Config], object], None] = lambda configs, progress: None,
    finished: Callable[[Record], None] = lambda record: None,
) -> dict[str, Any]:
    """Run what is missing of the search, then of `report` fresh seeds of its best trial.

    ``{name, metric, trials: [{settings, value, run_ids}], budget, best, report}``, an infinite
    value as None. `retry`: statuses of finished runs that are run again; `finished` is told every
    record, stored ones included.
    Raises RecordError where the stored search of that name is another one.
    """
    if not 0 <= report <= TUNING_SEEDS:
        raise ConfigError(f"a report takes the seeds from 0, at most {TUNING_SEEDS}: {report}.")
    store.require_writable()

    def run(configs: list[Config]) -> dict[str, Record]:
        return _run(search, configs, store, retry, observe, finished)

    proposals, trials = _load(search, store), []
    higher, metric, chance = search.higher_is_better, None, None
    for start in range(0, search.trials, search.batch):
        if len(proposals) <= start:
            proposals += propose(search, trials)
            _save(search, store, proposals)
        asked = proposals[start : min(start + search.batch, search.trials)]
        seeds = range(TUNING_SEEDS, TUNING_SEEDS + search.seeds)
        members = [search.configs(settings, seeds) for settings in asked]
        records = run([config for configs in members for config in configs])
        ran = next((r.row for r in records.values() if r.status != "failed"), None)
        if metric is None and ran is not None:  # what a failed run does not know
            metric, chance = objective(ran), ran["chance"]
        for settings, configs in zip(asked, members, strict=True):
            run_ids = [config.run_id for config in configs]
            scores = [score(records[r], metric, chance, higher) for r in run_ids]
            value = math.fsum(scores) / len(run_ids)
            trials.append(Trial(settings, value, run_ids))
    if metric is None:
        why = reason(store, trials[0].run_ids[0])
        raise RecordError(
            f"every run of {search.name} failed ({why}). Mend that and launch the search again "
            "with --retry failed."
        )
    best = (max if higher else min)(trials, key=lambda trial: trial.value)  # the first of equals
    fresh = search.configs(best.settings, range(report))
    reported = [_state_trials(r, len(trials), store) for r in run(fresh).values()] if fresh else []
    return {
        "name": search.name,
        "metric": metric,
        "trials": [_shown(trial) for trial in trials],
        "budget": {
            "trials": search.trials,
            "seeds": search.seeds,
            "epochs": search.base["train.epochs"],
            "max_steps": search.base["train.max_steps"],
            "search": search.space,
        },
        "best": _shown(best),
        "report": _report(reported) if reported else None,
    }


def _shown(trial: Trial) -> dict[str, Any]:
    return vars(trial) | {"value": trial.value if math.isfinite(trial.value) else None}


def propose(search: Search, trials: Sequence[Trial]) -> list[Settings]:
    """The next batch, given all trials before it."""
    try:
        import optuna
    except ImportError:
        raise ConfigError("a search needs optuna: pip install 'pcbench[hpo]'.") from None

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {path: _distribution(spec) for path, spec in search.space.items()}
    sampler = optuna.samplers.TPESampler(seed=len(trials), multivariate=True, constant_liar=True)
    direction = "maximize" if search.higher_is_better else "minimize"
    study = optuna.create_study(direction=direction, sampler=sampler)
    for trial in trials:
        params = {p: _place(spec, trial.settings[p]) for p, spec in search.space.items()}
        study.add_trial(
            optuna.trial.create_trial(params=params, distributions=distributions, value=trial.value)
        )
    asked = [study.ask(distributions).params for _ in range(search.batch)]
    return [
        {
            path: spec["choices"][params[path]]
            if "choices" in spec
            else search.base.leaf(path).coerce(params[path])
            for path, spec in search.space.items()
        }
        for params in asked
    ]


def _distribution(spec: Mapping):
    """Choices go by their place, because optuna takes no lists."""
    from optuna import distributions

    if "choices" in spec:
        return distributions.CategoricalDistribution(range(len(spec["choices"])))
    whole = isinstance(spec["low"], int)
    kind = distributions.IntDistribution if whole else distributions.FloatDistribution
    return kind(**{"step": 1 if whole else None} | spec)


def _place(spec: Mapping, value: Any) -> Any:
    return spec["choices"].index(value) if "choices" in spec else value


def objective(row: Mapping[str, Any]) -> str:
    """The validation column of the score that a run is ranked by."""
    return validation_column(row["primary_metric"] or "test_accuracy_final")


def score(record: Record, metric: str | None, chance: float | None, higher: bool) -> float:
    """The value of one run. `metric` and `chance` are None where all runs failed."""
    if record.status != "completed":
        return (0.0 if higher else math.inf) if chance is None else chance
    if (value := record.row.get(metric)) is None:
        raise ConfigError(
            f"task '{record.row['task']}' reports no {metric}: there is nothing to search by. Hold "
            "out a share of the training set, such as train.validation_fraction=0.1."
        )
    return value


def _run(search, configs, store, retry, observe, finished) -> dict[str, Record]:
    """Every config's record, by run id; what is missing is run."""
    configs = list({config.run_id: config for config in configs}.values())
    store.add_to_sweep(f"tune-{search.name}", [config.run_id for config in configs])
    plan = make_plan(configs, 0, store, retry)
    if plan.taken:
        raise RecordError(_elsewhere(search, plan.taken))
    missing = {run_id for pack in plan.packs for run_id in pack.run_ids}
    for config in configs:
        if config.run_id not in missing:
            finished(store.read(config.run_id))
    for pack in plan.packs:
        pack.save(store)
    executor = load_target(search.base["executor.target"])
    with claimed(store, plan.packs) as packs:
        for record in executor(packs, store, observe) if packs else ():
            finished(record)
        if len(packs) < len(plan.packs):
            raise RecordError(_elsewhere(search, "Some"))
    return {config.run_id: store.read(config.run_id) for config in configs}


def _elsewhere(search: Search, count: int | str) -> str:
    return (
        f"{count} runs of {search.name} are queued or running elsewhere. Launch the search again "
        f"when they are finished (pcbench status tune-{search.name})."
    )


def _state_trials(record: Record, trials: int, store: Store) -> Record:
    """The number of trials is no result of the run, which may be older than the search: it is
    added to the record that is there."""
    if record.row["n_trials"] == trials:
        return record
    row = {**record.row, "n_trials": trials}
    stated = Record.new(
        record.run_id, record.status, record.config, row, record.evaluations, record.provenance
    )
    with whole_file(store.path(record.run_id) / RECORD) as file:
        file.write(stated.to_json().encode() + b"\n")
    return stated


def _report(records: list[Record]) -> dict[str, Any]:
    """As the leaderboard scores these runs."""
    from pcbench.results.leaderboard import leaderboard

    board = leaderboard([record.row for record in records])
    entry = board["groups"][0]["entries"][0]
    return {
        "metric": board["metric"],
        **{key: entry[key] for key in ("mean", "low", "high", "seeds")},
        "status": dict(Counter(record.status for record in records)),
        "n_trials": records[0].row["n_trials"],
        "run_ids": [record.run_id for record in records],
    }


def _file(search: Search, store: Store) -> Path:
    return store.root / "tunes" / f"{search.name}.json"


def _save(search: Search, store: Store, proposals: list[Settings]) -> None:
    content = {"identity": search.identity, "proposals": proposals}
    with whole_file(_file(search, store)) as file:
        file.write(json.dumps(content, indent=1).encode() + b"\n")


def _load(search: Search, store: Store) -> list[Settings]:
    """The proposals so far: whole batches, of which the budget may ask for a part only."""
    path, identity = _file(search, store), search.identity
    remedy = "Remove the file to begin anew; finished runs stay"
    try:
        content = json.loads(path.read_bytes())
        stored, proposals = content["identity"], content["proposals"]
        differing = [
            key
            for part in ("config", "search")
            for key in sorted(stored[part].keys() | identity[part].keys())
            if stored[part].get(key) != identity[part].get(key)
        ]
        differing += [key for key in ("batch", "seeds") if stored[key] != identity[key]]
        if not isinstance(proposals, list) or len(proposals) % stored["batch"]:
            raise ValueError("an incomplete batch")
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{path} is damaged ({error!r}). {remedy}.") from None
    if differing:
        raise RecordError(
            f"{path} is another search, which differs in {', '.join(differing)}. {remedy}, or "
            "give the search file another name."
        )
    return proposals
