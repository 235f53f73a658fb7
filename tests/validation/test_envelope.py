"""The control envelope: commands by hand, whose curvature, acceleration and jerk can be worked out on paper."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from nwmctl.domain.evidence import CheckResult, Verdict
from nwmctl.domain.figure import Obtained
from nwmctl.domain.platform import Envelope, EnvelopeLimit, VehicleModel
from nwmctl.domain.policy import Rule
from nwmctl.validation.commands import Commands, Drive
from nwmctl.validation.envelope import QUANTITIES, check_envelope
from tests.validation import plant

RATE = 5.0
CAR, ENVELOPE = plant.vehicle(), plant.envelope()
NOTHING = Rule(Obtained.PROXY, margins={"infeasible_share": 0.0})


def drive(
    speed: float | tuple[float, ...],
    steer: tuple[float, ...],
    acceleration: tuple[float, ...] | None = None,
    reference: tuple[float, ...] | None = None,
) -> Drive:
    calm = tuple(0.0 for _ in steer)
    speeds = speed if isinstance(speed, tuple) else tuple(speed for _ in steer)
    return Drive(speeds, reference or steer, acceleration or calm, steer, acceleration or calm)


def check(
    *drives: Drive,
    rule: Rule = NOTHING,
    vehicles: tuple[VehicleModel, ...] = (CAR,),
    envelope: Envelope | None = ENVELOPE,
) -> CheckResult:
    commands = Commands(Obtained.PROXY, "host twin", 7, drives)
    return check_envelope(commands, vehicles, envelope, RATE, rule)


def values(result: CheckResult) -> dict[str, float]:
    return {figure.name: figure.value for figure in result.figures}


def test_a_constant_bend_is_curvature_and_lateral_acceleration_without_jerk() -> None:
    found = values(check(drive(10.0, (0.05,) * 10)))
    bend = math.tan(0.05) / 2.8
    assert found["curvature.max"] == pytest.approx(bend, rel=1e-5)
    assert found["lateral_acceleration.max"] == pytest.approx(100.0 * bend, rel=1e-5)
    assert found["lateral_jerk.max"] == found["guarded_share"] == found["infeasible_share"] == 0.0


def test_a_longer_car_turns_its_wheels_further_for_the_same_curvature() -> None:
    long = plant.vehicle("long", wheelbase=3.5)
    calm = values(check(drive(10.0, (0.05,) * 5), vehicles=(long,)))
    assert calm["curvature.max"] == pytest.approx(math.tan(0.05) / 2.8, rel=1e-5)
    reach = plant.vehicle().chassis.max_road_wheel_angle.value
    assert reach is not None
    hard = drive(2.0, (0.9 * reach,) * 5)
    assert values(check(hard, vehicles=(plant.vehicle(),)))["limited_share"] == 0.0
    assert values(check(hard, vehicles=(plant.vehicle(), long)))["limited_share"] == 1.0, "the worst one counts"


def test_jerk_is_averaged_over_the_time_of_its_source() -> None:
    # One jump of 1 m/s2 in one decision: 5 m/s3 at once, 1 m/s3 over the second that ISO 15622 averages over.
    found = values(check(drive(10.0, (0.0,) * 12, (0.0,) * 6 + (1.0,) * 6)))
    assert found["longitudinal_jerk.max"] == pytest.approx(1.0)
    lateral = values(check(drive(10.0, (0.0,) * 6 + (0.02,) * 6)))
    assert lateral["lateral_jerk.max"] == pytest.approx(100.0 * math.tan(0.02) / 2.8 / 0.6, rel=1e-4)


def test_shares_count_decisions_beyond_the_limit() -> None:
    found = values(check(drive(10.0, (0.0,) * 10, (0.0,) * 7 + (-5.5,) * 3)))
    assert found["deceleration.max"] == 5.5
    assert found["deceleration.excess_share"] == pytest.approx(0.3)
    assert found["deceleration.excess_shift"] == 0.0, "the model itself asks for it"
    assert found["acceleration.max"] == 0.0
    assert found["guarded_share"] == pytest.approx(0.3)


def test_brakes_that_hold_a_standing_car_decelerate_nothing() -> None:
    found = values(check(drive(0.0, (0.0,) * 5, (-6.0,) * 5)))
    assert found["deceleration.max"] == found["guarded_share"] == 0.0


def test_what_the_chassis_cannot_do_is_counted_per_vehicle_model_and_not_clipped_away() -> None:
    weak = plant.vehicle("weak", max_deceleration=4.0)
    rule = Rule(Obtained.PROXY, margins={"limited_share": 0.1})
    result = check(drive(10.0, (0.0,) * 10, (-4.5,) * 10), vehicles=(plant.vehicle(), weak), rule=rule)
    found = values(result)
    assert result.verdict is Verdict.FAILED
    assert (found["limited_share.car"], found["limited_share.weak"], found["limited_share"]) == (0.0, 1.0, 1.0)
    assert "limited_share is 1, at most 0.1 is allowed" in result.summary


def test_a_car_that_became_faster_in_a_bend_has_no_feasible_command() -> None:
    # 2.9 m/s2 at 10 m/s are 6.5 m/s2 at 15: one decision of the permitted jerk cannot bring that below 3.
    wheel = math.atan(2.9 / 100.0 * 2.8)
    result = check(drive((10.0, 10.0, 15.0, 15.0), (wheel,) * 4))
    assert values(result)["infeasible_share"] == pytest.approx(0.25)
    assert result.verdict is Verdict.FAILED
    assert "infeasible_share is 0.25" in result.summary
    slower = check(drive((10.0, 10.0, 10.1, 10.1), (wheel,) * 4))
    assert values(slower)["infeasible_share"] == 0.0


def test_an_artifact_that_needs_more_than_its_model_is_a_shift() -> None:
    rule = Rule(Obtained.PROXY, margins={"guarded_shift": 0.05})
    calm, wild = (0.0,) * 10, (0.0, 0.2) * 5
    result = check(drive(15.0, wild, reference=calm), rule=rule)
    assert result.verdict is Verdict.FAILED
    assert values(result)["guarded_shift"] == pytest.approx(0.5)
    assert check(drive(15.0, wild), rule=rule).verdict is Verdict.PASSED
    smoother = check(drive(15.0, calm, reference=wild), rule=rule)
    assert smoother.verdict is Verdict.FAILED, "an artifact that does less than its model is another model"


@pytest.mark.parametrize("name", list(QUANTITIES))
def test_a_limit_that_nobody_knows_is_named(name: str) -> None:
    blind = replace(plant.envelope(), **{name: EnvelopeLimit(plant.known(None, QUANTITIES[name]))})
    result = check(drive(10.0, (0.0,) * 5), envelope=blind)
    assert result.verdict is Verdict.NOT_RUN
    assert result.summary == f"the profile does not know the limit of {name.replace('_', ' ')}"


def test_without_limits_vehicles_or_margins_nothing_passes() -> None:
    calm = drive(10.0, (0.0,) * 5)
    assert check(calm, envelope=None).verdict is Verdict.NOT_RUN
    assert check(calm, vehicles=()).verdict is Verdict.NOT_RUN
    assert check(calm, rule=Rule(Obtained.PROXY)).verdict is Verdict.INCONCLUSIVE
    odd = check(calm, rule=Rule(Obtained.PROXY, margins={"comfort": 1.0}))
    assert odd.verdict is Verdict.INCONCLUSIVE
    assert "comfort, which this check does not measure" in odd.summary


def test_an_artifact_that_did_not_answer_fails() -> None:
    silent = Commands(Obtained.PROXY, "host twin", 7, (), "it crashed: SIGSEGV", "compile again")
    result = check_envelope(silent, (plant.vehicle(),), plant.envelope(), RATE, NOTHING)
    assert (result.verdict, result.summary, result.next) == (Verdict.FAILED, "it crashed: SIGSEGV", "compile again")


def test_drives_shorter_than_a_window_say_nothing_about_it() -> None:
    found = values(check(drive(10.0, (0.1,)), drive(10.0, ())))
    assert found["longitudinal_jerk.max"] == found["longitudinal_jerk.excess_share"] == 0.0
    assert found["curvature.max"] > 0.0


@pytest.mark.parametrize("bad", [0.0, -1.0])
def test_a_limit_must_be_positive(bad: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        EnvelopeLimit(plant.known(bad, "m/s2"))
    with pytest.raises(ValueError, match="over_s"):
        EnvelopeLimit(plant.known(1.0, "m/s2"), -0.1)
