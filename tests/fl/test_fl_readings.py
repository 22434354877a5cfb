"""What a run's readings say, by hand and against a run."""

import math

import numpy as np
import pytest
import torch

from ouikit.fl.read.averaging import mean_state
from ouikit.fl.read.readings import curve, mechanism, rows
from ouikit.fl.run.simulate import simulate
from ouikit.fl.setting.federation import Federation
from ouikit.fl.setting.population import Holdings, Population

PEOPLE = Holdings(
    indices=(np.arange(4), np.arange(4, 6), np.arange(6, 9)),
    labels=np.array([0, 0, 1, 1, 2, 2, 0, 1, 2]),
    rare=(1,),
    noisy=(2,),
)


def entry(server_round, client, weight, size, oui, norm=1.0, loss=1.0):
    found = {"round": server_round, "client": client, "weight": weight, "size_weight": size, "oui": oui}
    return {**found, "num-examples": float(len(PEOPLE.indices[client])), "update_norm": norm, "loss": loss}


def test_mechanism_by_hand():
    found = mechanism(
        [
            entry(1, 0, 0.5, 0.8, 0.3, norm=1.0),
            entry(1, 1, 0.5, 0.2, 0.1, norm=2.0),
            entry(2, 2, 1.0, 1.0, 0.2, norm=1.5),
        ],
        PEOPLE,
    )
    assert found["moved"] == pytest.approx((0.3 + 0.0) / 2)
    assert found["effective"] == pytest.approx((2.0 + 1.0) / 2)
    assert found["effective_size"] == pytest.approx((1 / 0.68 + 1.0) / 2)
    assert found["shift_rare"] == pytest.approx(0.3)
    assert found["shift_noisy"] == pytest.approx(0.0)
    assert found["rho_examples"] == pytest.approx(1.0)  # OUI .3, .1, .2 with sizes 4, 2, 3
    assert found["rho_norm"] == pytest.approx(-1.0)
    # entropies ln 2, 0, ln 3 have the ranks 2, 1, 3; OUI has 3, 1, 2
    assert found["rho_entropy"] == pytest.approx(0.5)
    assert math.isnan(found["rho_loss"])


def test_where_nobody_is_rare_or_noisy_nothing_is_said_of_them():
    clean = Holdings(PEOPLE.indices, PEOPLE.labels)
    found = mechanism([entry(1, 0, 1.0, 1.0, 0.3)], clean)
    assert not {"shift_rare", "shift_noisy"} & found.keys()
    absent = mechanism([entry(1, 0, 1.0, 1.0, 0.3)], PEOPLE)
    assert math.isnan(absent["shift_rare"])
    with pytest.raises(ValueError, match="no mechanism"):
        mechanism([], clean)


def test_the_area_of_a_constant_curve_is_its_height():
    assert curve([0.4] * 7) == pytest.approx({"final": 0.4, "best": 0.4, "area": 0.4})
    assert curve([0.3])["area"] == 0.3


def test_rows_of_a_run():
    federation = Federation(
        method="fedoui",
        rounds=3,
        epochs=1,
        clients=6,
        per_round=4,
        population=Population(protocol="as_released"),
    )
    outcome = simulate(federation)
    table = list(rows(outcome, federation.holdings(), window=2))
    accuracy = [row["value"] for row in table if row["metric"] == "accuracy"]
    assert accuracy == [found["accuracy"] for found in outcome.rounds]
    ends = {row["metric"]: row["value"] for row in table if row["step"] == 3 and "client" not in row}
    assert ends["final"] == accuracy[-1]
    assert ends["best"] == max(accuracy[1:])
    assert ends["faults"] == 0
    assert 0 < ends["moved"] < 1
    assert 1 <= ends["effective"] <= ends["effective_size"] + 1 <= 5
    replies = [row for row in table if "client" in row]
    assert {row["step"] for row in replies} == {2, 3}
    assert len(replies) == 3 * 2 * 4
    for step in (2, 3):
        weights = [row["value"] for row in replies if row["metric"] == "weight" and row["step"] == step]
        assert sum(weights) == pytest.approx(1.0, abs=3e-4)


def test_the_mean_of_state_dicts_keeps_types_and_averages_complex_weights():
    states = [
        {
            "z": torch.tensor([1j * k]),
            "h": torch.tensor([k / 2], dtype=torch.float16),
            "on": torch.tensor([k > 0]),
        }
        for k in (1, 3)
    ]
    mean = mean_state(states, [0.25, 0.75])
    assert {name: tensor.dtype for name, tensor in mean.items()} == {n: t.dtype for n, t in states[0].items()}
    assert [mean["z"].item(), mean["h"].item(), mean["on"].item()] == [2.5j, 1.25, True]
