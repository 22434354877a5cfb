"""A reader's own parameters: a chapter runs to its end with them, or refuses one by name before its sweep.

Each chapter runs in this process with settings drawn at random: shorter lists, numbers from half to double
of those below and of the defaults. Of each point of a sweep the first seed is computed, so that its rows are
those of the chapter; the other seeds are copies with somewhat smaller numbers. `OUIKIT_DRAWS=20` draws more
settings, and renders their figures as well.
"""

import os
import random
import re
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
    "adam_balanced": {
        "steps": 300, "pairs": [{"beta1": 0.9, "beta2": 0.999, "window": 50}], "lengths": [4, 8],
        "rival_epochs": 2,
    },
    "adam_memory": {
        "settings": [{"updates": 40}, {"updates": 90}, {"updates": 40, "batch": 64}], "draws": 20,
    },
    "atypical_clients": {
        "seeds": [0, 1, 2], "warm_up": 4, "local_steps": 2, "local_epochs": 1, "grid_onsets": [2, 4],
        "grid_steps": [1, 2, 6], "clients": 10, "anomalous": 3, "probe": 32,
    },
    "fedoui": {"seeds": [0, 1, 2], "rounds": 8, "clients": 10, "per_round": 3, "train_size": 700},
    "fedsq": {
        "seeds": [0, 1, 2], "rounds": 3, "clients": 5, "batch_size": 64, "source_size": 1000,
        "source_epochs": 6,
    },
    "gemm_mixed_precision": {
        "seeds": [0, 1, 2], "rounds": 1, "rounds_alone": 1, "square": 48, "epochs": 1, "train_size": 320,
    },
    "malleability": {
        "seeds": [0, 1, 2], "jobs": 12, "chains": ["1-2"], "rows": 10, "knees": [2, 4, 48],
        "costs": [2.0, 30.0], "gaps": [15.0, 600.0],
    },
    "gemm_generators": {
        "squares": [48], "layers": [17], "heights": [2, 4], "widths": [1], "side": 32, "rounds": 2,
        "seeds": [0, 1], "cross": ["aarch64"],
    },
    "gemm_versal": {"rounds": 1, "native_heights": [16, 48, 64]},
    "hevc_biglittle": {
        "qps": [30, 40], "width": 192, "height": 128, "pictures": 2, "seeds": [0, 1], "slow": [0.4, 0.8],
        "rounds": 1,
    },
    "greenlightning": {"hidden": [16], "epochs": 3, "shard_epochs": 1, "old": [0.1, 1.0], "seeds": [0, 1, 2]},
    "glai": {
        "settings": [{"task": "pixels", "hidden": 24}, {"task": "rotation", "hidden": 30, "batch": 64}],
        "epochs": 4, "structure": 2, "samples": 300, "seeds": [0, 1, 2],
    },
    "lambda_gelu": {
        "seeds": [0, 1, 2], "epochs": 2, "width": 12, "depth": 4, "families": ["cnn", "transformer"],
        "family_epochs": 1, "family_seeds": [0, 1, 2], "family_arms": ["gelu", "learnt", "hardened"],
    },
    "oui_observable": {
        "hidden": [12, 8], "lr": [1e-3, 0.05, 0.5], "weight_decay": [0.0, 0.01, 0.1], "steps": 60,
        "patience": 4, "train_size": 200, "twins": 4,
    },
    "oui_weight_decay": {"epochs": 10, "train_size": 100, "validation_size": 100},
    "ouidecay": {"epochs": 3, "train_size": 200, "validation_size": 100, "gaps": [3]},
    "ppo_learning_rate": {
        "tasks": [{"name": "cartpole", "env": "CartPole-v1", "steps": 6000}], "lr": [1e-5, 1e-3, 3e-3, 1e-1],
        "probe": 64,
    },
    "regime_change": {"epochs": 6, "train_size": 1500, "samples": 16, "directions": 3},
    "sinusoidal_init": {"width": 60, "samples": 100, "epochs": 3, "seeds": [0, 1, 2]},
    "stablegrad": {
        "tasks": [{"name": "mlp", "blocks": 2, "width": 8, "epochs": 1}], "networks": 3, "pinn_width": 6,
        "equations": [{"name": "poisson", "steps": 20, "points": 16, "ends": 4}], "depths": [2, 3],
    },
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
            constant = {n: [value] * len(computed) for n, value in point.items() if n not in computed}
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
        found = {name: _changed(value, rng) if rng.random() < 0.35 else value for name, value in base.items()}
        if chapter.place(found).scale == "exploratory":
            return found


def _changed(value: Any, rng: random.Random) -> Any:
    """A shorter list with some items changed; a number from half to double."""
    if isinstance(value, list):
        kept = sorted(rng.sample(range(len(value)), rng.randint(min(1, len(value)), len(value))))
        items = [_changed(value[i], rng) if rng.random() < 0.3 else value[i] for i in kept]
        return items if all(items.count(item) == 1 for item in items) else [value[i] for i in kept]
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


REFUSED = [
    ("fedoui", {"per_round": 30}, "'per_round' is 30; at most 20, the clients"),
    ("fedoui", {"methods": []}, r"'methods' is \[\]; give at least one"),
    ("fedoui", {"train_size": 2000}, "train_size must leave some of the 1797 digits over"),
    ("ouidecay", {"gaps": [6, 61]}, r"'gaps' is \[6, 61\]; a run has 60 steps"),
    ("ouidecay", {"train_size": 49, "batch_size": 50}, "a run has 0 steps"),
    ("regime_change", {"epochs": 4}, "'epochs' is 4; there are 21 steps an epoch"),
    ("regime_change", {"variants": [{"name": "cosine", "only": ["adam"]}]}, "'variants' .*none takes one"),
    ("oui_weight_decay", {"image_size": 16}, "'image_size' is 16; images of digits have one size: give 0"),
    ("oui_weight_decay", {"batch_size": 7}, "'pairs' is 28; a batch of 7 images has 21 pairs"),
    ("ppo_learning_rate", {"early": 0.12}, "'early' is 0.12; a run is read at multiples of 1/20"),
    ("ppo_learning_rate", {"recall": [0.9, 1.4]}, "'recall' .*give shares"),
    ("atypical_clients", {"anomalous": 20}, "'anomalous' is 20; some of the clients, 1 to 19"),
    ("gemm_mixed_precision", {"networks": ["resnet18"]}, "'networks' .*there are resnet50"),
    ("oui_observable", {"early": 0.001}, "'early' is 0.001; a run has 400 steps"),
    ("stablegrad", {"equations": [{"name": "poisson", "ends": 1}]}, "'equations' .*poisson has 2 faces"),
    ("gemm_generators", {"mirrored": [3]}, r"'mirrored' is \[3\]; give some of layers"),
    ("gemm_generators", {"rounds": 3}, "'rounds' is 3; give an even number"),
    ("stablegrad", {"starts": ["he", "fixup"]}, "'starts' .*give some of aware, bn, default"),
]


@pytest.mark.parametrize(("slug", "settings", "words"), REFUSED)
def test_what_cannot_be_run_is_refused_with_the_fix_before_anything_is_computed(slug, settings, words, sweep):
    with pytest.raises(ValueError, match=words):
        run(slug, settings)
    assert not sweep.called


def test_fedoui_without_a_rival_judges_what_is_left(sweep):
    settings = SHORT["fedoui"] | {"methods": ["fedavg", "fedoui"], "settings": [{"protocol": "as_described"}]}
    names = run("fedoui", settings)
    assert [figure["name"] for figure in names["study"]._figures] == [
        *("dynamics", "differences", "gaps", "histogram", "weights", "confounders"),
    ]
    metrics = names["study"]._record["result"]["metrics"]
    assert "area.fedoui.converged_0.1_as_described" in metrics
    assert not any("alignment" in name or "shuffled" in name for name in metrics)


def test_fedoui_without_fedavg_has_nothing_to_compare_with(sweep):
    names = run("fedoui", SHORT["fedoui"] | {"methods": ["fedprox"], "seeds": [0]})
    assert {figure["name"] for figure in names["study"]._figures} == {"dynamics", "weights"}
    assert set(verdicts(names).values()) <= {"not run", "reproduced"}  # the round that is computed again


def test_fedsq_with_one_partition_and_no_other_list(sweep):
    settings = {"settings": [{"alpha": 0.2}], "reckless": [], "proximal": []}
    names = run("fedsq", SHORT["fedsq"] | settings)
    assert "best.high_0.2" in names["study"]._record["result"]["metrics"]


def test_fedsq_in_a_cnn_alone_leaves_the_map_of_the_plain_network_out(sweep):
    settings = {"settings": [{"alpha": 0.2, "drift": "low", "model": "convnet3"}], "proximal": []}
    names = run("fedsq", SHORT["fedsq"] | settings)
    assert {figure["name"] for figure in names["study"]._figures} == {"accuracy", "paired", "rounds", "gates"}
    assert "mean.low_0.2_plain" in names["study"]._record["result"]["metrics"]


@pytest.mark.parametrize(("lr", "seeds"), [([1e-5], [0, 1]), ([1e-5, 1e-3], [0])])
def test_ppo_where_nothing_succeeds_or_no_seed_can_be_left_out(lr, seeds, sweep):
    names = run("ppo_learning_rate", SHORT["ppo_learning_rate"] | {"lr": lr, "seeds": seeds})
    assert "screening" not in {figure["name"] for figure in names["study"]._figures}
    metrics = names["study"]._record["result"]["metrics"]
    assert ("critic_trend.cartpole" in metrics) == (len(lr) > 1)
    assert ("critic_fall.cartpole" in metrics) == (len(lr) > 1)


def test_texts_of_a_cpu_without_dot_products_speak_of_none(sweep, monkeypatch):
    from ouikit.products import precisions

    here = {arm: rung for arm, rung in precisions.rungs().items() if arm not in ("dot", "tiles")}
    monkeypatch.setattr(precisions, "rungs", lambda: here)
    names = run(
        "gemm_mixed_precision",
        SHORT["gemm_mixed_precision"] | {"networks": ["bert_large"], "orientations": ["filters × pixels"]},
    )
    figures = {figure["name"]: figure["alt"] for figure in names["study"]._figures}
    assert figures.keys() == {"panels", "ladder", "layers", "roofline", "stages"}
    for name in ("layers", "roofline", "stages"):
        assert not re.search(r"dot products|dot \d", figures[name])
    assert verdicts(names)["dot_instruction"] == verdicts(names)["integers_gain"] == "not run"
