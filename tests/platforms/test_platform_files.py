"""The shipped profiles and catalogues, and every way in which a user's own ones are refused."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nwmctl.domain.artifact import Precision
from nwmctl.domain.assumptions import assumptions, vehicle_assumptions
from nwmctl.domain.figure import Confidence
from nwmctl.domain.platform import Role
from nwmctl.errors import NwmError, SchemaError
from nwmctl.formats.platform_files import PlatformFiles, parse_platform_files
from nwmctl.toolchains.iree_options import plan

FOLDER = Path(__file__).parents[2] / "platforms"
SHIPPED = {path.name: path.read_bytes() for path in sorted(FOLDER.glob("*.yaml"))}


@pytest.fixture(scope="module")
def shipped() -> PlatformFiles:
    return parse_platform_files(SHIPPED)


def changed(name: str, old: str, new: str, count: int = 1) -> dict[str, bytes]:
    text = SHIPPED[name].decode()
    assert old in text, f"{old!r} is not in {name}"
    return {**SHIPPED, name: text.replace(old, new, count).encode()}


def line_of(data: bytes, needle: str, occurrence: int = 1) -> int:
    lines = [number for number, line in enumerate(data.decode().splitlines(), 1) if needle in line]
    return lines[occurrence - 1]


# --- what is shipped ----------------------------------------------------------------------------------------------


def test_the_eighteen_models_on_their_platforms(shipped: PlatformFiles) -> None:
    counts = Counter(vehicle.platform for vehicle in shipped.catalogue.vehicles)
    assert counts == {"nt2.0": 8, "nt2.5": 4, "nt3.0": 6, "virtual": 1}
    baselines = Counter(v.baseline for v in shipped.catalogue.vehicles)
    assert baselines == {"Banyan": 8, "Cedar": 7, "Coconut": 3, "Bench": 1}


def test_quad_orin_has_two_main_one_backup_one_fleet_learning(shipped: PlatformFiles) -> None:
    variant = shipped.profiles["nt2.0"].variant("quad-orin")
    assert variant is not None
    assert {seat.role: seat.count for seat in variant.seats} == {Role.MAIN: 2, Role.BACKUP: 1, Role.FLEET_LEARNING: 1}
    by_role = {role: build for build in variant.builds for role in build.roles}
    assert by_role[Role.MAIN].unit == "gpu"
    assert by_role[Role.BACKUP].unit == "cpu", "the backup takes another code path than the main chips"


def test_what_is_shared_between_files_is_the_same_in_them(shipped: PlatformFiles) -> None:
    """One artifact serves NT2.0 and the L60 only if chip, recipes and driver agree to the letter."""
    nt20, nt25, nt30 = (shipped.profiles[name] for name in ("nt2.0", "nt2.5", "nt3.0"))
    assert nt20.chip("orin-x") == nt30.chip("orin-x")
    assert nt25.chip("nx9031") == nt30.chip("nx9031")
    assert nt20.runtime_driver == nt30.runtime_driver
    orin, single = nt20.variant("quad-orin"), nt30.variant("orin-single")
    assert orin
    assert single
    assert orin.builds[0].recipes == single.builds[0].recipes
    dual, alone = nt30.variant("nx9031-dual"), nt25.variant("nx9031-single")
    assert dual
    assert alone
    assert dual.builds[0].recipes == alone.builds[0].recipes


def test_models_without_a_published_chip_say_so(shipped: PlatformFiles) -> None:
    unknown = {v.code for v in shipped.catalogue.vehicles if v.variant.startswith("assumed-")}
    assert unknown == {"es9", "l90", "l80"}
    for vehicle in shipped.catalogue.vehicles:
        variant = shipped.profiles[vehicle.platform].variant(vehicle.variant)
        assert variant is not None
        assert (vehicle.code in unknown) == (variant.confidence is Confidence.ASSUMED)
        if vehicle.code in unknown:
            assert vehicle.confidence is Confidence.ASSUMED
            found = vehicle_assumptions(vehicle, shipped.profiles[vehicle.platform])
            assert any("variant assumed-nx9031" in item.where for item in found)


def test_an_assumed_figure_says_so_in_its_source(shipped: PlatformFiles) -> None:
    hedges = re.compile(r"assumed|not confirmed|third-party")
    for profile in shipped.profiles.values():
        for item in assumptions(profile):
            if item.confidence is Confidence.ASSUMED:
                assert hedges.search(item.source), f"{profile.name}: {item}"
    for vehicle in shipped.catalogue.vehicles:
        for item in vehicle_assumptions(vehicle, shipped.profiles[vehicle.platform]):
            assert hedges.search(item.source), item


def test_no_build_uses_the_npu(shipped: PlatformFiles) -> None:
    units = {b.unit for p in shipped.profiles.values() for v in p.variants for b in v.builds}
    assert units == {"gpu", "cpu", "host"}


def test_every_iree_recipe_is_one_that_the_toolchain_reads(shipped: PlatformFiles) -> None:
    for profile in shipped.profiles.values():
        for build in (build for variant in profile.variants for build in variant.builds):
            for recipe in build.recipes:
                assert recipe.toolchain == ("onnxruntime" if profile.name == "virtual" else "iree")
                if recipe.toolchain == "iree":
                    assert plan(recipe, build.unit).precision is recipe.precision


def test_unknown_figures_are_listed_as_open(shipped: PlatformFiles) -> None:
    found = {item.where: item.confidence for item in assumptions(shipped.profiles["nt2.5"])}
    assert found["chip nx9031: memory"] is Confidence.UNKNOWN
    assert "chip nx9031: memory_bandwidth" not in found, "a published figure is not an assumption"


def test_a_peak_belongs_to_a_unit(shipped: PlatformFiles) -> None:
    chip = shipped.profiles["nt2.0"].chip("orin-x")
    gpu, cpu = chip.peak("gpu", Precision.FP32), chip.peak("cpu", Precision.FP32)
    assert gpu
    assert cpu
    assert gpu.value
    assert cpu.value
    assert gpu.value > 10 * cpu.value
    assert chip.peak("npu", Precision.INT8) is None


# --- what is refused ----------------------------------------------------------------------------------------------

Files = dict[str, bytes]
NT20 = "nt2.0.yaml"
CASES: dict[str, tuple[Callable[[], Files], str, str]] = {
    "unknown key": (lambda: changed(NT20, "board: nt20", "bord: nt20"), NT20, "unknown key 'bord'"),
    "missing key": (lambda: changed(NT20, "board: nt20\n", ""), NT20, "key 'board' is missing"),
    "negative bandwidth": (lambda: changed(NT20, "value: 204.8", "value: -204.8"), NT20, "it must be positive"),
    "zero latency": (lambda: changed(NT20, "value: 50.0", "value: 0"), NT20, "it must be positive"),
    "share above one": (lambda: changed(NT20, "value: 0.5,", "value: 1.5,"), NT20, "a share lies above 0"),
    "negative peak": (lambda: changed(NT20, "value: 42.0", "value: -42"), NT20, "it must be positive"),
    "infinite figure": (lambda: changed(NT20, "value: 42.0", "value: .inf"), NT20, "a finite number"),
    "guess as fact": (lambda: changed(NT20, "value: null", "value: 32"), NT20, "null exactly where"),
    "fact without value": (lambda: changed(NT20, "value: 42.0", "value: null"), NT20, "null exactly where"),
    "no source": (
        lambda: changed(NT20, '"dense tensor-core peak of AGX Orin, as a proxy"', '""'), NT20, "where it comes from",
    ),
    "unknown confidence word": (lambda: changed(NT20, "confidence: public", "confidence: sure"), NT20, "one of stated"),
    "unknown precision": (lambda: changed(NT20, "precision: fp16", "precision: fp8"), NT20, "one of fp32"),
    "unknown role": (lambda: changed(NT20, "role: backup", "role: spare"), NT20, "one of main"),
    "unknown chip": (lambda: changed(NT20, "chip: orin-x, count: 2", "chip: orin-y, count: 2"), NT20, "'orin-y'"),
    "no chips in a seat": (lambda: changed(NT20, "count: 2", "count: 0"), NT20, "at least one chip"),
    "role without a seat": (
        lambda: changed("nt2.5.yaml", "roles: [main]", "roles: [backup]"), "nt2.5.yaml", "no chip has a seat",
    ),
    "role built twice": (lambda: changed(NT20, "roles: [backup]", "roles: [main]"), NT20, "listed twice"),
    "revision twice": (
        lambda: changed("nt3.0.yaml", "revision: orin-single", "revision: nx9031-dual"), "nt3.0.yaml", "listed twice",
    ),
    "odd revision": (lambda: changed(NT20, "revision: quad-orin", 'revision: "a:b"'), NT20, "is not a name"),
    "driver without confidence": (
        lambda: changed(NT20, "runtime_driver_confidence: assumed\n", ""), NT20, "runtime_driver_confidence",
    ),
    "same platform twice": (lambda: changed(NT20, "name: nt2.0", "name: nt2.5"), "nt2.5.yaml", "'nt2.5' is taken"),
    "same board twice": (lambda: changed(NT20, "board: nt20", "board: nt25"), "nt2.5.yaml", "'nt25' is taken"),
    "other document": (
        lambda: changed(NT20, "nwmctl.platform/2", "nwmctl.release/1"), NT20, "does not belong into a folder",
    ),
    "vehicle twice in a file": (
        lambda: changed("vehicles.yaml", "code: es7", "code: et7"), "vehicles.yaml", "'et7' is listed twice",
    ),
    "vehicle twice over files": (
        lambda: changed("virtual-vehicles.yaml", "code: virtual-car", "code: et7"),
        "virtual-vehicles.yaml", "'et7' is listed twice",
    ),
    "unknown platform": (
        lambda: changed("vehicles.yaml", "platform: nt2.5", "platform: nt4.0"), "vehicles.yaml", "platform 'nt4.0'",
    ),
    "unknown variant": (
        lambda: changed("vehicles.yaml", "variant: nx9031-dual", "variant: nx9031-triple"),
        "vehicles.yaml", "variant 'nx9031-triple'",
    ),
    "unknown baseline": (
        lambda: changed("vehicles.yaml", "baseline: Coconut", "baseline: Walnut"), "vehicles.yaml", "baseline 'Walnut'",
    ),
    "negative wheelbase": (
        lambda: changed("vehicles.yaml", "value: 3.06", "value: -3.06"), "vehicles.yaml", "it must be positive",
    ),
    "odd vehicle code": (
        lambda: changed("vehicles.yaml", "code: et7", "code: ../et7"), "vehicles.yaml", "is not a name",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_refused_with_file_and_line(case: str) -> None:
    make, file, message = CASES[case]
    with pytest.raises(SchemaError) as caught:
        parse_platform_files(make())
    assert message in str(caught.value)
    assert re.match(rf"{re.escape(file)}:\d+: ", caught.value.what), caught.value.what
    assert caught.value.why
    assert caught.value.next


def test_the_line_is_the_right_one() -> None:
    files = changed("vehicles.yaml", "platform: nt2.5", "platform: nt4.0")
    with pytest.raises(SchemaError) as caught:
        parse_platform_files(files)
    line = line_of(files["vehicles.yaml"], "platform: nt4.0")
    assert caught.value.what.startswith(f"vehicles.yaml:{line}: vehicles[8].platform: ")

    files = changed(NT20, "name: orin-x\n", "name: orin-x\n    colour: green\n")
    with pytest.raises(SchemaError) as caught:
        parse_platform_files(files)
    line = line_of(files[NT20], "colour: green")
    assert caught.value.what.startswith(f"{NT20}:{line}: chips[0].colour: unknown key")


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(SHIPPED)), st.integers(0, 1 << 20), st.binary(max_size=12), st.integers(0, 30))
def test_damaged_files_are_refused_or_read_never_a_traceback(name: str, at: int, new: bytes, cut: int) -> None:
    data = SHIPPED[name]
    at %= len(data)
    with contextlib.suppress(NwmError):
        parse_platform_files({**SHIPPED, name: data[:at] + new + data[at + cut :]})
