"""Renders the chassis adaptation of a vehicle model from the template, and believes nothing that comes out of it.

A template is text that people edit, so the result is parsed, read as ``ChassisAdaptation`` (whose examples are worked
again), held against the platform's control envelope, compared with the catalogue's figures and written as canonical
JSON. Pure: the template's text is an argument.
"""

from __future__ import annotations

import json

from nwmctl.bundling.chassis_check import limits_of, violations
from nwmctl.domain.chassis import ChassisAdaptation, adaptation
from nwmctl.domain.figure import Figure
from nwmctl.domain.platform import Envelope, VehicleModel
from nwmctl.errors import (
    ChassisEnvelopeError,
    ChassisTemplateError,
    NotCanonicalError,
    SchemaError,
    SchemaVersionError,
)
from nwmctl.formats import canonical, documents
from nwmctl.formats.codec import to_plain

TEMPLATE_NAME = "chassis.json.j2"


def render_chassis(
    vehicle: VehicleModel, template: str, envelope: Envelope | None, braking: Figure | None = None
) -> bytes:
    """The adaptation of ``vehicle`` as canonical JSON; ``envelope`` is its platform's, ``braking`` the policy's.

    Raises ChassisTemplateError, and ChassisEnvelopeError for figures that no car has or the envelope does not allow.
    """
    limits = limits_of(vehicle.chassis, envelope, braking)
    wanted = adaptation(vehicle.code, vehicle.platform, vehicle.chassis, limits)
    text = _render(wanted, template)
    try:
        plain = canonical.encode(json.loads(text))
        found = documents.decode(ChassisAdaptation, plain, f"adaptation of '{vehicle.code}'")
    except (ValueError, RecursionError) as problem:
        raise _refuse(vehicle.code, f"it is not JSON: {problem}") from problem
    except (NotCanonicalError, SchemaError, SchemaVersionError) as problem:
        raise _refuse(vehicle.code, f"{problem.what}; {problem.why}") from problem
    wrong = violations(found, envelope, braking)
    if wrong:
        raise ChassisEnvelopeError(
            f"the chassis adaptation of vehicle model '{vehicle.code}' violates what '{vehicle.platform}' allows",
            why="; ".join(wrong),
            next=f"correct templates/{TEMPLATE_NAME}, the catalogue's figure, or the platform's envelope",
        )
    if found != wanted:
        raise _refuse(vehicle.code, "it does not hold the catalogue's figures and examples")
    return documents.encode(found)


def _render(wanted: ChassisAdaptation, template: str) -> str:
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    values = to_plain(wanted)
    assert isinstance(values, dict)
    try:
        return environment.from_string(template).render(values)
    except jinja2.TemplateError as problem:
        line = getattr(problem, "lineno", None)
        raise _refuse(wanted.vehicle_model, f"{f'line {line}: ' if line else ''}{problem}") from problem
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as problem:
        raise _refuse(wanted.vehicle_model, str(problem) or type(problem).__name__) from problem


def _refuse(code: str, why: str) -> ChassisTemplateError:
    return ChassisTemplateError(
        f"the chassis template gives no adaptation for vehicle model '{code}'",
        why=why,
        next=f"correct templates/{TEMPLATE_NAME}, or the vehicle model's figures in the catalogue",
    )
