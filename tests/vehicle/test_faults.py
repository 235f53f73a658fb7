"""Fault plans: how they are written, whom they strike, how often."""

from __future__ import annotations

import pytest

from nwmctl.errors import FaultPlanError, SchemaError
from nwmctl.vehicle.faults import FaultKind, FaultPlan, FaultRule, PowerLoss, Trouble, plan_from_text, plan_from_yaml
from nwmctl.vehicle.pending import Stage


def test_the_short_form() -> None:
    plan = plan_from_text("drop=200000:*:20%:3, health:LNW*7,power=trial", seed=4)
    assert plan == FaultPlan(
        (
            FaultRule(FaultKind.DROP, "200000", "*", 0.2, 3),
            FaultRule(FaultKind.HEALTH, "", "LNW*7"),
            FaultRule(FaultKind.POWER, "trial"),
        ),
        4,
    )
    assert plan_from_text("") == FaultPlan()


def test_the_long_form() -> None:
    data = b"seed: 4\nrules:\n  - {kind: silent, argument: installed, select: 'ET*', share: 0.5}\n"
    rule = FaultRule(FaultKind.SILENT, "installed", "ET*", 0.5)
    assert plan_from_yaml(data, "faults.yaml") == FaultPlan((rule,), 4)
    with pytest.raises(SchemaError, match=r"faults\.yaml:3: rules\[0\]"):
        plan_from_yaml(b"seed: 4\nrules:\n  - {kind: drop, argument: soon}\n", "faults.yaml")


@pytest.mark.parametrize(
    "text", ["explode", "drop", "drop=x", "power=now", "health=3", "health:*:20", "health:*:0%", "health:*:5%:0",
             "health:*:101%", "health:*:5%:1:1", "health:*:x%"],
)  # fmt: skip
def test_a_fault_that_is_not_one(text: str) -> None:
    with pytest.raises(FaultPlanError, match="is not a fault"):
        plan_from_text(text)


def test_a_share_strikes_the_same_vehicles_every_time() -> None:
    plan = plan_from_text("health:*:20%", seed=1)
    struck = [vin for vin in range(1000) if Trouble.of(plan, f"VIN{vin}", "et5").unhealthy("main-1")]
    assert 150 < len(struck) < 250
    assert struck == [vin for vin in range(1000) if Trouble.of(plan, f"VIN{vin}", "et5").unhealthy("main-1")]
    assert struck != [
        vin for vin in range(1000) if Trouble.of(FaultPlan(plan.rules, 2), f"VIN{vin}", "").unhealthy("main-1")
    ]


def test_selection_by_vin_or_vehicle_model_and_counting_down() -> None:
    plan = plan_from_text("health:et5::2")
    assert not Trouble.of(plan, "VIN1", "es8").unhealthy("main-1")
    trouble = Trouble.of(plan, "VIN1", "et5")
    assert [trouble.unhealthy("main-1") for _ in range(4)] == [True, True, False, False]


def test_power_and_silence_wait_for_their_stage() -> None:
    trouble = Trouble.of(plan_from_text("power=trial,silent=installed"), "VIN1", "et5")
    trouble.reach(Stage.DOWNLOADED)
    assert not trouble.silent
    trouble.reach(Stage.INSTALLED)
    assert trouble.silent
    with pytest.raises(PowerLoss):
        trouble.reach(Stage.TRIAL)
    trouble.reach(Stage.TRIAL)


def test_without_a_plan_the_world_is_well() -> None:
    trouble = Trouble()
    trouble.writes("main-1")
    for stage in Stage:
        trouble.reach(stage)
    assert trouble.breaks_at(0, 1 << 40) is None
    assert not any(
        [trouble.silent, trouble.corrupts(), trouble.endless(), trouble.unhealthy("main-1"), trouble.garbles()]
    )


def test_a_fault_of_one_computer_strikes_that_one() -> None:
    trouble = Trouble.of(plan_from_text("health=backup-1,power=main-2,no_space=fleet_learning-1"), "VIN", "et5")
    assert not trouble.unhealthy("main-1")
    assert trouble.unhealthy("backup-1")
    trouble.switched("main-1")
    with pytest.raises(PowerLoss):
        trouble.switched("main-2")
    trouble.switched("main-2")
    trouble.writes("main-1")
    with pytest.raises(OSError, match="on purpose"):
        trouble.writes("fleet_learning-1")
