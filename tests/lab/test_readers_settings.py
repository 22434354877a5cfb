"""A reader's own parameters: a chapter runs to its end with them, or refuses one by name before its sweep.

Each chapter runs in this process with settings drawn at random: shorter lists, numbers from half to double
of those below and of the defaults. Of each point of a sweep the first seed is computed, so that its rows are
those of the chapter; the other seeds are copies with somewhat smaller numbers. `OUIKIT_DRAWS=20` draws more
settings, and renders their figures as well.
"""

import os
import random
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from importlib import import_module
from typing import Any

import pandas as pd
import pytest
from conftest import ROOT

from ouikit.lab.chapter import Chapter, chapters
from ouikit.lab.sweep.grid import calls, check_call

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
DRAWS = int(os.environ.get("OUIKIT_DRAWS", "0"))
SLUGS = [chapter.slug for chapter in chapters(ROOT)]
# Smaller than the defaults in what costs time and changes nothing of the form.
SHORT: dict[str, dict[str, Any]] = {
    "atypical_clients": {
        "seeds": [0, 1, 2], "warm_up": 4, "local_steps": 2, "local_epochs": 1, "grid_onsets": [2, 4],
        "grid_steps": [1, 2, 6], "clients": 10, "anomalous": 3, "probe": 32,
    },
    "fedoui": {"seeds": [0, 1, 2], "rounds": 8, "clients": 10, "per_round": 3, "train_size": 700},
    "fedsq": {
        "seeds": [0, 1, 2], "rounds": 3, "clients": 5, "batch_size": 64, "source_size": 1000,
        "source_epochs": 6,
    },
    "gemm_mixed_precision": {"seeds": [0, 1, 2], "rounds": 1, "square": 48, "epochs": 1, "train_size": 320},
    "oui_weight_decay": {"epochs": 10, "train_size": 100, "validation_size": 100},
    "ouidecay": {"epochs": 3, "train_size": 200, "validation_size": 100, "gaps": [3]},
    "ppo_learning_rate": {
        "tasks": [{"name": "cartpole", "env": "CartPole-v1", "steps": 6000}], "lr": [1e-5, 1e-3, 3e-3, 1e-1],
        "probe": 64,
    },
    "regime_change": {"epochs": 12, "train_size": 800, "samples": 16, "directions": 3},
}  # fmt: skip


class Sweep:
    """Stands for `ouikit.lab.sweep`: the first seed of each point is computed, the others resemble it."""

    called = False

    def __call__(
        self, cell: Callable[..., Any], grid: Any, *, seeds: Sequence[int], **_: Any
    ) -> pd.DataFrame:
        self.called = True
        rng = random.Random(0)
        tables = []
        for point in calls(grid, seeds[:1]):
            check_call(cell, point)
            computed = pd.DataFrame(cell(**point))
            constant = {name: value for name, value in point.items() if name not in computed}
            for seed in seeds:
                shrink = 0.0 if seed == seeds[0] else 0.1 * rng.random()
                value = computed.value.where(computed.value % 1 == 0, computed.value * (1 - shrink))
                tables.append(computed.assign(**constant | {"seed": seed, "value": value}))
        rows = pd.concat(tables, ignore_index=True)
        counts = ("total", "computed", "cached", "diverged", "seconds", "cpu_seconds")
        rows.attrs["cells"] = dict.fromkeys(counts, 0)
        rows.attrs["workers"] = {"cpu_seconds": 0.0, "peak_memory_mb": 0.0}
        return rows


@pytest.fixture
def sweep(monkeypatch, tmp_path) -> Sweep:
    """The sweep of a chapter that runs in a folder of its own; figures are drawn once, in one theme."""
    monkeypatch.setenv("OUIKIT_RUNS", str(tmp_path))
    monkeypatch.chdir(ROOT)
    stand_in, canvas = Sweep(), import_module("ouikit.plots.canvas")
    monkeypatch.setattr("ouikit.lab.study.sweep", stand_in)
    render = canvas._svg

    def drawn(draw: Callable[[], Any], theme: str) -> str:
        if theme == "dark":
            return ""
        if DRAWS:
            return render(draw, theme)
        with canvas.style(theme):
            canvas.plt.close(draw())
        return "<svg>"

    monkeypatch.setattr(canvas, "_svg", drawn)
    return stand_in


def run(slug: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The names of a chapter whose code cells ran in this process with these parameters."""
    names: dict[str, Any] = {"__name__": "__main__"}
    chapter = Chapter(slug, ROOT)
    for number, source in enumerate(chapter.code):
        exec(compile(source, f"{slug}, code cell {number}", "exec"), names)
        if "study" not in names and chapter.parameters.keys() <= names.keys():
            names |= deepcopy(dict(settings))
    return names


def verdicts(names: Mapping[str, Any]) -> dict[str, str]:
    """Claim -> verdict, of those that the scale tests."""
    claims = names["study"]._record["result"]["claims"]
    return {claim["id"]: claim["verdict"] for claim in claims if claim["predicate"]}


def settings_of(slug: str, number: int) -> dict[str, Any]:
    """Settings at random, which are no named scale."""
    chapter, rng = Chapter(slug, ROOT), random.Random(f"{slug} {number}")
    base = {name: p.default for name, p in chapter.parameters.items()} | SHORT.get(slug, {})
    while True:
        found = {name: _changed(value, rng) if rng.random() < 0.5 else value for name, value in base.items()}
        if chapter.place(found).scale == "exploratory":
            return found


def _changed(value: Any, rng: random.Random) -> Any:
    """A shorter list with some items changed; a number from half to double."""
    if isinstance(value, list):
        kept = sorted(rng.sample(range(len(value)), rng.randint(min(1, len(value)), len(value))))
        return [_changed(value[i], rng) if rng.random() < 0.3 else value[i] for i in kept]
    if isinstance(value, dict):
        return {name: _changed(field, rng) for name, field in value.items()}
    if isinstance(value, bool | str):
        return value
    return (
        rng.randint((value + 1) // 2, 2 * value)
        if isinstance(value, int)
        else value * 2 ** rng.uniform(-1, 1)
    )


def ends_well(slug: str, settings: Mapping[str, Any], sweep: Sweep) -> dict[str, Any] | None:
    """Run a chapter; None where it refuses a parameter by name before it computes anything."""
    try:
        return run(slug, settings)
    except ValueError as refusal:
        if sweep.called or not any(name in str(refusal) for name in settings):
            raise
        return None


@pytest.mark.parametrize("number", range(DRAWS or 1))
@pytest.mark.parametrize("slug", SLUGS)
def test_settings_at_random_run_to_the_end_or_are_refused_by_name(slug, number, sweep):
    ends_well(slug, settings_of(slug, number), sweep)
