"""The scripts that a bundle brings: what each must be, given the description alone and the template.

A script joins the parts of a file, or makes a file out of a delta. Nothing goes into one but what the signed
description says, so whoever holds the templates can tell whether a script is the one it has to be. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath

from nwmctl.domain.digest import digest_bytes
from nwmctl.errors import ScriptTemplateError
from nwmctl.formats.swu import InstalledFile, Script

JOIN_TEMPLATE_NAME = "join.sh.j2"
APPLY_TEMPLATE_NAME = "apply-delta.sh.j2"


def script_of(file: InstalledFile, slots: tuple[str, str], templates: Mapping[str, str]) -> tuple[Script, bytes] | None:
    """The script that a file needs, with its bytes; None for one that lies in the archive as it is installed.

    ``slots`` are both folders in the vehicle, ``templates`` texts by their names. Raises ScriptTemplateError.
    """
    packing = file.packing
    if packing is None or not (packing.base or packing.split):
        return None
    values = {"file": file.filename, "sha256": file.digest.hex}
    first = packing.parts[0].name
    if packing.base:
        kind, name = "apply", APPLY_TEMPLATE_NAME
        base = {"base": packing.base.name, "base_sha256": packing.base.digest.hex}
        values |= {"delta": first, **base, "slot_a": slots[0], "slot_b": slots[1]}
        data = _render(name, templates[name], values, tuple(values.values()))
    else:
        kind, name = "join", JOIN_TEMPLATE_NAME
        others = [part.name for part in packing.parts[1:]]
        data = _render(name, templates[name], {**values, "first": first, "others": others}, (file.digest.hex, *others))
    filename = f"{kind}-{file.digest.hex[:16]}.sh"
    return Script(filename, digest_bytes(data), digest_bytes(templates[name].encode())), data


def _render(name: str, template: str, values: Mapping[str, str | list[str]], needed: Sequence[str]) -> bytes:
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    try:
        text = environment.from_string(template).render(values)
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as problem:
        line = getattr(problem, "lineno", None)
        raise _refuse(name, f"{f'line {line}: ' if line else ''}{problem}") from problem
    if not text.startswith("#!") or not all(word in text for word in needed):
        raise _refuse(name, "it does not name every part, file, digest and folder that the description gives it")
    return text.encode()


def _refuse(name: str, why: str) -> ScriptTemplateError:
    return ScriptTemplateError(
        f"the template of the script '{PurePath(name).name.removesuffix('.sh.j2')}' gives no script",
        why=why,
        next=f"correct templates/{name}",
    )
