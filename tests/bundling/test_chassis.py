"""Chassis adaptations: the vehicle can work the examples again; a bad template cannot leave the house."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.bundling.chassis import render_chassis
from nwmctl.domain.chassis import Chassis, ChassisAdaptation, adapt
from nwmctl.errors import ChassisTemplateError, NwmError
from nwmctl.formats import canonical, documents
from tests.bundling.samples import TEMPLATE, VEHICLES, figure, vehicle

_positive = st.floats(0.01, 100, allow_nan=False)


def test_the_adaptation_is_canonical_and_works_its_examples() -> None:
    data = render_chassis(VEHICLES[0], TEMPLATE)
    found = documents.decode(ChassisAdaptation, data, "v1")
    assert documents.encode(found) == data == render_chassis(VEHICLES[0], TEMPLATE)
    assert found.chassis == VEHICLES[0].chassis
    assert any(probe.limited for probe in found.probes)
    assert any(not probe.limited and probe.steer for probe in found.probes)
    for probe in found.probes:
        assert adapt(found.chassis, probe.steer, probe.acceleration).steering_wheel == probe.steering_wheel


@settings(deadline=None)
@given(ratio=_positive, reach=_positive, pull=_positive, brake=_positive)
def test_every_positive_chassis_survives_the_template_exactly(
    ratio: float, reach: float, pull: float, brake: float
) -> None:
    one = vehicle("x")
    chassis = Chassis(
        one.chassis.wheelbase,
        figure(ratio, "rad/rad"),
        figure(reach, "rad"),
        figure(pull, "m/s2"),
        figure(brake, "m/s2"),
        one.chassis.actuation_delay,
    )
    object.__setattr__(one, "chassis", chassis)
    found = documents.decode(ChassisAdaptation, render_chassis(one, TEMPLATE), "x")
    assert found.chassis == chassis
    assert all(math.isfinite(probe.steering_wheel) for probe in found.probes)


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
        render_chassis(VEHICLES[0], TEMPLATE.replace(old, new))
    assert said in refused.value.why


def test_a_changed_figure_cannot_be_loaded_by_a_vehicle() -> None:
    table = json.loads(render_chassis(VEHICLES[0], TEMPLATE))
    table["chassis"]["steering_ratio"]["value"] = 15.0
    with pytest.raises(NwmError, match="probe"):
        documents.decode(ChassisAdaptation, canonical.encode(table), "v1")
