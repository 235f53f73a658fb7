"""Renders the chassis adaptation of a vehicle model from the template, and believes nothing that comes out of it.

A template is text that people edit, so the result is parsed, read as ``ChassisAdaptation`` (whose examples are worked
again), compared with the catalogue's figures and written as canonical JSON. Pure: the template's text is an argument.
"""

from __future__ import annotations

import json

from nwmctl.domain.chassis import ChassisAdaptation, probe
from nwmctl.domain.platform import VehicleModel
from nwmctl.errors import ChassisTemplateError, NotCanonicalError, SchemaError, SchemaVersionError
from nwmctl.formats import canonical, documents
from nwmctl.formats.codec import to_plain

TEMPLATE_NAME = "chassis.json.j2"


def render_chassis(vehicle: VehicleModel, template: str) -> bytes:
    """The adaptation of ``vehicle`` as canonical JSON. Raises ChassisTemplateError."""
    wanted = ChassisAdaptation(vehicle.code, vehicle.platform, vehicle.chassis, probe(vehicle.chassis))
    text = _render(wanted, template)
    try:
        plain = canonical.encode(json.loads(text))
        found = documents.decode(ChassisAdaptation, plain, f"adaptation of '{vehicle.code}'")
    except (ValueError, RecursionError) as problem:
        raise _refuse(vehicle.code, f"it is not JSON: {problem}") from problem
    except (NotCanonicalError, SchemaError, SchemaVersionError) as problem:
        raise _refuse(vehicle.code, f"{problem.what}; {problem.why}") from problem
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
