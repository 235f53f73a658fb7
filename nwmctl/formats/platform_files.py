"""The files of ``platforms/``, read together: profiles and vehicle catalogues that must fit each other.

Bytes in, domain values out. What one file says wrongly is refused by its schema; what two files say in contradiction
(a vehicle model on an unknown platform or variant, a vehicle model or a platform twice, an unknown baseline) is
refused here. Every refusal names file, line and key. Does not read files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nwmctl.domain.platform import Catalogue, PlatformProfile, VehicleModel
from nwmctl.errors import SchemaError
from nwmctl.formats import yamldoc
from nwmctl.formats.codec import Path
from nwmctl.formats.documents import SCHEMAS, decode_yaml

_SCHEMA_LINE = re.compile(rb"^schema: *['\"]?([A-Za-z0-9._-]{1,60})", re.MULTILINE)

BASELINES = ("Banyan", "Cedar", "Coconut", "Bench")
"""The maker's three software baselines, and ``Bench`` for what is no maker's vehicle."""


@dataclass(frozen=True, slots=True)
class PlatformFiles:
    """Everything that ``platforms/`` says. Invariant: every vehicle model's platform and variant exist."""

    profiles: dict[str, PlatformProfile]
    catalogue: Catalogue


def parse_platform_files(files: Mapping[str, bytes]) -> PlatformFiles:
    """Read all files of a ``platforms/`` folder, told apart by their ``schema:``. Raises SchemaError."""
    catalogues = {name: data for name, data in files.items() if _is_catalogue(data, name)}
    profiles = parse_profiles({name: data for name, data in files.items() if name not in catalogues})
    return PlatformFiles(profiles, parse_catalogues(catalogues, profiles))


def parse_profiles(files: Mapping[str, bytes]) -> dict[str, PlatformProfile]:
    """Profiles by platform name; ``files`` maps file names to bytes. Raises SchemaError.

    Two profiles with one name, or with one board name (SWUpdate could not tell their vehicles apart), are refused.
    """
    profiles: dict[str, PlatformProfile] = {}
    names: dict[str, str] = {}
    boards: dict[str, str] = {}
    for file in sorted(files):
        profile = decode_yaml(PlatformProfile, files[file], file)
        for key, value, seen in (("name", profile.name, names), ("board", profile.board, boards)):
            if value in seen:
                raise _refuse(
                    files[file], file, (key,), f"the {key} '{value}' is taken",
                    f"{seen[value]} has it already", f"give this platform another {key}, or remove one of the files",
                )  # fmt: skip
            seen[value] = file
        profiles[profile.name] = profile
    return profiles


def parse_catalogues(files: Mapping[str, bytes], profiles: Mapping[str, PlatformProfile]) -> Catalogue:
    """One catalogue out of several files, checked against the profiles. Raises SchemaError."""
    vehicles: list[VehicleModel] = []
    seen: dict[str, str] = {}
    for file in sorted(files):
        for index, vehicle in enumerate(decode_yaml(Catalogue, files[file], file).vehicles):
            _check_vehicle(vehicle, index, files[file], file, profiles)
            if vehicle.code in seen:
                raise _refuse(
                    files[file], file, ("vehicles", index, "code"), f"vehicle model '{vehicle.code}' is listed twice",
                    f"{seen[vehicle.code]} lists it already", "remove one of the two entries",
                )  # fmt: skip
            seen[vehicle.code] = file
            vehicles.append(vehicle)
    return Catalogue(tuple(vehicles))


def _check_vehicle(
    vehicle: VehicleModel, index: int, data: bytes, file: str, profiles: Mapping[str, PlatformProfile]
) -> None:
    def refuse(key: str, value: str, known: Iterable[str]) -> SchemaError:
        return _refuse(
            data, file, ("vehicles", index, key), f"the {key} '{value}' of '{vehicle.code}' is unknown",
            f"known are {', '.join(known) or 'none'}", "correct the name, or add what is missing",
        )  # fmt: skip

    profile = profiles.get(vehicle.platform)
    if profile is None:
        raise refuse("platform", vehicle.platform, sorted(profiles))
    if profile.variant(vehicle.variant) is None:
        raise refuse("variant", vehicle.variant, (variant.name for variant in profile.variants))
    if vehicle.baseline not in BASELINES:
        raise refuse("baseline", vehicle.baseline, BASELINES)


def _is_catalogue(data: bytes, name: str) -> bool:
    # A look at one line: parsing every file twice would be felt at each start of the command line.
    found = _SCHEMA_LINE.search(data)
    schema = found.group(1).decode() if found else ""
    known = {SCHEMAS[kind].name: kind is Catalogue for kind in (PlatformProfile, Catalogue)}
    if schema not in known:
        tags = " or ".join(SCHEMAS[kind].tag for kind in (PlatformProfile, Catalogue))
        raise _refuse(
            data, name, ("schema",), "this file does not belong into a folder of platforms",
            f"its schema is '{schema}', {tags} is expected", f"write 'schema:' with {tags}, or move the file elsewhere",
        )  # fmt: skip
    return known[schema]


def _refuse(data: bytes, file: str, path: Path, what: str, why: str, next: str) -> SchemaError:
    _, source = yamldoc.parse(data, file)
    return source.refuse(path, what, why, next)
