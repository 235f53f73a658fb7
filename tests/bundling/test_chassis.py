"""Chassis adaptations: the vehicle can work the examples again; a bad template cannot leave the house."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.bundling.chassis import render_chassis
from nwmctl.bundling.chassis_check import limits_of
from nwmctl.domain.chassis import REFERENCE_WHEELBASE, Chassis, ChassisAdaptation, adapt, adaptation
from nwmctl.domain.figure import Figure
from nwmctl.domain.platform import Envelope, EnvelopeLimit, VehicleModel
from nwmctl.driving.constants import WHEELBASE
from nwmctl.errors import ChassisEnvelopeError, ChassisTemplateError, NwmError
from nwmctl.formats import canonical, documents
from nwmctl.formats.platform_files import parse_platform_files
from tests.bundling.samples import TEMPLATE, VEHICLES, figure, vehicle

ROOT = Path(__file__).resolve().parents[2]
FILES = parse_platform_files({path.name: path.read_bytes() for path in (ROOT / "platforms").glob("*.yaml")})


def most(value: float, unit: str) -> EnvelopeLimit:
    return EnvelopeLimit(figure(value, unit))


ENVELOPE = Envelope(
    most(0.15, "1/m"), most(3, "m/s2"), most(5, "m/s3"), most(4, "m/s2"), most(5, "m/s2"), most(5, "m/s3")
)


def test_the_adaptation_is_canonical_and_works_its_examples() -> None:
    data = render_chassis(VEHICLES[0], TEMPLATE, ENVELOPE)
    found = documents.decode(ChassisAdaptation, data, "v1")
    assert documents.encode(found) == data == render_chassis(VEHICLES[0], TEMPLATE, ENVELOPE)
    assert found.chassis == VEHICLES[0].chassis
    assert any(probe.limited for probe in found.probes)
    assert any(not probe.limited and probe.steer for probe in found.probes)
    for probe in found.probes:
        assert found.command(probe.steer, probe.acceleration).steering_wheel == probe.steering_wheel


@settings(deadline=None)
@given(
    base=st.floats(1.5, 6), ratio=st.floats(5, 30), reach=st.floats(0.1, 1.2), pull=st.floats(0.5, 15),
    brake=st.floats(2, 15),
)  # fmt: skip
def test_every_possible_chassis_survives_the_template_exactly(
    base: float, ratio: float, reach: float, pull: float, brake: float
) -> None:
    one = vehicle("x")
    chassis = Chassis(
        figure(base, "m"),
        figure(ratio, "rad/rad"),
        figure(reach, "rad"),
        figure(pull, "m/s2"),
        figure(brake, "m/s2"),
        one.chassis.actuation_delay,
    )
    object.__setattr__(one, "chassis", chassis)
    found = documents.decode(ChassisAdaptation, render_chassis(one, TEMPLATE, None), "x")
    assert found.chassis == chassis
    assert all(math.isfinite(probe.steering_wheel) for probe in found.probes)


@settings(deadline=None)
@given(steer=st.floats(-0.5, 0.5), base=st.floats(1.5, 6))
def test_every_wheelbase_drives_the_curvature_that_was_commanded(steer: float, base: float) -> None:
    chassis = replace(VEHICLES[0].chassis, wheelbase=figure(base, "m"), max_road_wheel_angle=figure(1.2, "rad"))
    command = adapt(chassis, steer, 0.0)
    assert not command.limited
    curvature = math.tan(command.steering_wheel / 14.5) / base
    assert math.isclose(curvature, math.tan(steer) / REFERENCE_WHEELBASE, abs_tol=1e-12)


def test_the_reference_car_is_the_one_that_the_network_learned_to_drive() -> None:
    assert REFERENCE_WHEELBASE == WHEELBASE


@pytest.mark.parametrize("one", FILES.catalogue.vehicles, ids=lambda one: one.code)
def test_each_of_the_vehicle_models_has_an_adaptation_within_its_platforms_envelope(one: VehicleModel) -> None:
    envelope = FILES.profiles[one.platform].envelope
    assert envelope is not None
    found = documents.decode(ChassisAdaptation, render_chassis(one, TEMPLATE, envelope), one.code)
    ratio, base = one.chassis.steering_ratio.value, one.chassis.wheelbase.value
    assert ratio is not None
    assert base is not None
    for steer, pedal in ((1.4, 99.0), (-1.4, -99.0)):
        hardest = found.command(steer, pedal)
        assert hardest.limited
        curvature = abs(math.tan(hardest.steering_wheel / ratio) / base)
        assert curvature <= (envelope.curvature.limit.value or 0) + 1e-9
        limit = envelope.acceleration if pedal > 0 else envelope.deceleration
        assert abs(hardest.acceleration) <= (limit.limit.value or 0)


def test_there_are_eighteen_vehicle_models() -> None:
    assert len([one for one in FILES.catalogue.vehicles if one.platform != "virtual"]) == 18


def test_what_limits_a_chassis_is_said() -> None:
    found = documents.decode(ChassisAdaptation, render_chassis(VEHICLES[0], TEMPLATE, ENVELOPE), "v1")
    assert found.limits.acceleration.source == "the platform's acceleration limit: made up for tests"
    assert found.limits.road_wheel_angle.value == math.atan(0.15 * 3.06)
    wide = documents.decode(ChassisAdaptation, render_chassis(VEHICLES[0], TEMPLATE, None), "v1")
    assert wide.limits.deceleration == VEHICLES[0].chassis.max_deceleration


def test_the_policy_s_braking_holds_every_vehicle_model() -> None:
    """What drives were held to is what vehicles are held to, and it never widens what the envelope allows."""
    limit = replace(figure(3.0, "m/s2"), source="the safety role's choice")
    for one in FILES.catalogue.vehicles:
        envelope = FILES.profiles[one.platform].envelope
        found = documents.decode(ChassisAdaptation, render_chassis(one, TEMPLATE, envelope, limit), one.code)
        assert found.command(0.0, -99.0).acceleration == -3.0
        assert found.limits.deceleration.source == "the policy's braking: the safety role's choice"
        assert found.limits.deceleration.confidence is limit.confidence
        loose = render_chassis(one, TEMPLATE, envelope, figure(6.0, "m/s2"))
        assert loose == render_chassis(one, TEMPLATE, envelope)
    table = json.loads(render_chassis(VEHICLES[0], TEMPLATE, ENVELOPE))
    with pytest.raises(ChassisEnvelopeError) as refused:
        render_chassis(VEHICLES[0], json.dumps(table), ENVELOPE, limit)
    assert "limits.deceleration is 5 m/s2, the policy allows 3" in refused.value.why


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("acceleration", 4.5, "limits.acceleration is 4.5 m/s2, the platform's envelope allows 4"),
        ("deceleration", 9.0, "limits.deceleration is 9 m/s2, the platform's envelope allows 5"),
        ("deceleration", 12.0, "limits.deceleration is 12 m/s2, the chassis reaches 9"),
        ("road_wheel_angle", 0.61, "limits.road_wheel_angle is 0.61 rad, the platform's envelope allows 0.43"),
    ],
)
def test_a_template_that_widens_a_limit_is_refused_with_the_figure(name: str, value: float, said: str) -> None:
    """The template's author also writes examples that agree with it: only the envelope can tell."""
    limits = limits_of(VEHICLES[0].chassis, ENVELOPE)
    wide = replace(limits, **{name: figure(value, getattr(limits, name).unit)})
    table = json.loads(documents.encode(adaptation("v1", "p1", VEHICLES[0].chassis, wide)))
    with pytest.raises(ChassisEnvelopeError, match="v1") as refused:
        render_chassis(VEHICLES[0], json.dumps(table), ENVELOPE)
    assert said in refused.value.why


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"wheelbase": figure(306, "cm")}, "chassis.wheelbase is in 'cm', it must be in m"),
        ({"actuation_delay": figure(150, "s")}, "chassis.actuation_delay is 150 s, no car lies outside 0.001 to 0.4 s"),
        ({"actuation_delay": figure(150, "ms")}, "chassis.actuation_delay is in 'ms', it must be in s"),
        ({"steering_ratio": figure(0.07, "rad/rad")}, "chassis.steering_ratio is 0.07"),
        ({"max_road_wheel_angle": figure(35, "rad")}, "chassis.max_road_wheel_angle is 35 rad"),
    ],
)
def test_a_figure_that_no_car_has_is_refused(change: dict[str, Figure], said: str) -> None:
    one = replace(VEHICLES[0], chassis=replace(VEHICLES[0].chassis, **change))
    with pytest.raises(ChassisEnvelopeError) as refused:
        render_chassis(one, TEMPLATE, ENVELOPE)
    assert said in refused.value.why


def test_an_adaptation_to_another_interface_cannot_be_loaded() -> None:
    data = render_chassis(VEHICLES[0], TEMPLATE, ENVELOPE).replace(b'"interface":1', b'"interface":2')
    with pytest.raises(NwmError, match="control interface 2"):
        documents.decode(ChassisAdaptation, data, "v1")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{{ platform | tojson }}", "{{ plattform | tojson }}", "Undefined"),
        ("{{ platform | tojson }}", "{{ plattform }}", "undefined"),
        ("{{ platform | tojson }}", "{{ platform | tojson }", "line"),
        ("{{ platform | tojson }}", "{{ 1 / 0 }}", "division"),
        ("{{ platform | tojson }}", "{{ platform", "line"),
        ("{{ platform | tojson }}", "platform", "not JSON"),
        ('"platform"', '"platfrom"', "platfrom"),
        ("{{ figure.value | tojson }}", "{{ (figure.value * 2) | tojson }}", "wrong"),
        ("{{ figure.source | tojson }}", '"somebody said so"', "catalogue"),
        ("{{ vehicle_model | tojson }}", '"v2"', "catalogue"),
        ("nwmctl.chassis/1", "nwmctl.chassis/2", "version 1"),
        ("{{ platform | tojson }}", "{{ ''.__class__.__mro__ }}", "unsafe"),
    ],
)
def test_a_broken_template_is_refused(old: str, new: str, said: str) -> None:
    assert old in TEMPLATE
    with pytest.raises(ChassisTemplateError, match="v1") as refused:
        render_chassis(VEHICLES[0], TEMPLATE.replace(old, new), ENVELOPE)
    assert said in refused.value.why


def test_a_changed_figure_cannot_be_loaded_by_a_vehicle() -> None:
    table = json.loads(render_chassis(VEHICLES[0], TEMPLATE, ENVELOPE))
    table["chassis"]["steering_ratio"]["value"] = 15.0
    with pytest.raises(NwmError, match="probe"):
        documents.decode(ChassisAdaptation, canonical.encode(table), "v1")
