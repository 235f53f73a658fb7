"""The plan: reasons, sharing, what a change touches, and the parts that commands cut out of it. Nothing runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from nwmctl.agent.building import SearchOrder
from nwmctl.agent.graph import ordered
from nwmctl.agent.plan import FACTORY, restrict
from nwmctl.domain.artifact import Precision, Recipe
from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.delta import FleetCensus
from nwmctl.domain.evidence import Check
from nwmctl.domain.policy import Rule
from nwmctl.domain.release import FleetReference, Tighten
from nwmctl.domain.step import OutputRef, PlannedStep
from nwmctl.domain.traffic import DeltaOrder
from nwmctl.domain.work import StepName
from nwmctl.errors import PlanError
from nwmctl.storage.content import ContentStore
from tests.agent.plans import changed_build, changed_profile, example, meaning, plan_of, without

PLATFORMS = ("nt2.0", "nt2.5", "nt3.0", "virtual")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> tuple[PlannedStep, ...]:
    return plan_of(example(), tmp_path_factory.mktemp("plan"))


def ids(plan: tuple[PlannedStep, ...]) -> list[str]:
    return [step.id for step in plan]


def signed(plan: tuple[PlannedStep, ...]) -> set[str]:
    return {step.id for step in plan if step.step == StepName.SIGN}


def test_every_step_has_a_reason_and_comes_after_what_it_needs(plan: tuple[PlannedStep, ...]) -> None:
    assert all(step.reason for step in plan)
    seen: set[str] = set()
    for step in plan:
        assert step.needs <= seen
        seen.add(step.id)
    assert ordered(plan)


def test_the_same_project_gives_the_same_plan(plan: tuple[PlannedStep, ...], tmp_path: Path) -> None:
    assert plan_of(example(), tmp_path) == plan


def test_the_road_has_every_kind_of_step_for_every_platform(plan: tuple[PlannedStep, ...]) -> None:
    # There where they are asked for.
    others = {StepName.JUDGE, StepName.LOG_REPLAY, StepName.SEARCH, StepName.REBUILD}
    others |= {StepName.DELTAS, StepName.SIGN_DELTAS}
    assert {step.step for step in plan} - others == set(StepName) - others
    for platform in PLATFORMS:
        for kind in (*BundleKind, FACTORY):
            assert {f"bundle/{kind}/{platform}", f"sign/{kind}/{platform}"} <= set(ids(plan))
    assert ids(plan)[-4:] == ["certify", "stage", "publish", "rollout"]


def test_one_artifact_that_several_builds_need_is_compiled_once(plan: tuple[PlannedStep, ...]) -> None:
    compiles = [step for step in plan if step.step == StepName.COMPILE and "/release/" in step.id]
    checks = [step for step in plan if step.step == StepName.VALIDATE and "/release/" in step.id]
    assert len(compiles) == 4
    assert len(checks) == 9
    shared = next(step for step in compiles if step.id == "compile/release/orin-x.gpu")
    assert "nt2.0/quad-orin/gpu" in shared.reason
    assert "nt3.0/orin-single/gpu" in shared.reason
    users = [step.id for step in checks if shared.id in step.needs]
    places = ("nt2.0/quad-orin/gpu", "nt2.0/quad-orin/shadow", "nt3.0/orin-single/gpu")
    assert users == [f"validate/release/{place}" for place in places]


def test_a_check_can_send_its_own_compilation_to_the_next_recipe(plan: tuple[PlannedStep, ...]) -> None:
    by_id = {step.id: step for step in plan}
    for step in plan:
        if step.step == StepName.VALIDATE:
            assert step.repair in step.needs
            assert by_id[step.repair].adjustable["recipe"]
    gpu = by_id["compile/release/orin-x.gpu"]
    assert [recipe["precision"] for recipe in gpu.adjustable["recipe"]] == ["fp16", "fp16", "fp32"]  # type: ignore[index]
    assert gpu.parameters["recipe"] == gpu.adjustable["recipe"][0]  # type: ignore[index]


def test_builds_with_other_recipes_are_compiled_apart(plan: tuple[PlannedStep, ...], tmp_path: Path) -> None:
    only = (Recipe("iree", Precision.FP32, {"arch": "sm_87"}),)
    other = changed_profile(
        example(), "nt3.0", lambda profile: changed_build(profile, "gpu", lambda build: replace(build, recipes=only))
    )
    new = plan_of(other, tmp_path)
    assert {"compile/release/orin-x.gpu", "compile/release/orin-x.gpu-2"} <= set(ids(new))
    before, after = meaning(plan), meaning(new)
    assert after["sign/release/nt2.0"] == before["sign/release/nt2.0"]
    assert after["sign/release/nt3.0"] != before["sign/release/nt3.0"]


def test_another_driver_is_another_gpu_artifact_and_the_same_cpu_artifact(
    plan: tuple[PlannedStep, ...], tmp_path: Path
) -> None:
    other = changed_profile(example(), "nt2.0", lambda profile: replace(profile, runtime_driver="999.1"))
    new = plan_of(other, tmp_path)
    before, after = Counter(meaning(plan).values()), Counter(meaning(new).values())
    fresh = {step.id for step in new if meaning(new)[step.id] not in before}
    assert "compile/release/orin-x.cpu" not in fresh
    assert {name for name in fresh if name.startswith("compile/release")} == {"compile/release/orin-x.gpu"}
    assert after.total() == before.total() + 4, "nt3.0 has artifacts of its own, built twice, of both models"


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_changed_profile_redoes_its_platform_alone(
    platform: str, plan: tuple[PlannedStep, ...], tmp_path: Path
) -> None:
    other = changed_profile(example(), platform, lambda profile: replace(profile, description="another text"))
    before, after = meaning(plan), meaning(plan_of(other, tmp_path))
    assert before.keys() == after.keys()
    changed = {name for name in before if before[name] != after[name]}
    # What a drive log shows of an artifact does not depend on the profile's text.
    of_platform = {step.id for step in plan if step.platform == platform and step.step != StepName.LOG_REPLAY}
    assert changed == of_platform | {"certify", "stage", "publish", "rollout"}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_changed_vehicle_model_touches_its_platform_alone(
    platform: str, plan: tuple[PlannedStep, ...], tmp_path: Path
) -> None:
    gone = example().catalogue.on(platform)[0].code
    before, after = meaning(plan), meaning(plan_of(without(example(), gone), tmp_path))
    changed = {name for name in before if before[name] != after[name]}
    packing = {f"{step}/{kind}/{platform}" for step in ("bundle", "sign") for kind in (*BundleKind, FACTORY)}
    # The commands must suit the chassis of every vehicle model, so the platform's checks are made anew too.
    checks = {name for name in before if name.startswith("validate/") and name.split("/")[2] == platform}
    assert changed == packing | checks | {"certify", "stage", "publish", "rollout"}


def test_a_stricter_rule_for_one_platform_repeats_that_platforms_checks_alone(
    plan: tuple[PlannedStep, ...], tmp_path: Path
) -> None:
    project = example()
    rules = project.rules
    budget = rules.rule("virtual", Check.BUDGET)
    assert budget is not None
    table = {**rules.platforms["virtual"], "budget": Rule(budget.weakest, True, {"x": 1})}
    other = replace(project, rules=replace(rules, platforms={**rules.platforms, "virtual": table}))
    before, after = meaning(plan), meaning(plan_of(other, tmp_path))
    changed = {step.id for step in plan if before[step.id] != after[step.id] and step.step == StepName.VALIDATE}
    assert changed == {"validate/release/virtual/host/host", "validate/return/virtual/host/host"}


def test_waves_and_poll_interval_touch_the_rollout_alone(plan: tuple[PlannedStep, ...], tmp_path: Path) -> None:
    project = example()
    other = replace(project, release=replace(project.release, poll_s=9.0, waves=project.release.waves[:1]))
    before, after = meaning(plan), meaning(plan_of(other, tmp_path))
    assert {name for name in before if before[name] != after[name]} == {"rollout"}


def test_another_sequence_compiles_and_checks_nothing_again(plan: tuple[PlannedStep, ...], tmp_path: Path) -> None:
    project = example()
    other = replace(project, release=replace(project.release, sequence=260))
    before, after = meaning(plan), meaning(plan_of(other, tmp_path))
    changed = {name.split("/")[0] for name in before if before[name] != after[name]}
    assert changed == {"bundle", "sign", "certify", "stage", "publish", "rollout"}
    assert not {name for name in before if before[name] != after[name]} & {f"sign/factory/{p}" for p in PLATFORMS}


def test_a_tightened_release_is_signed_anew(plan: tuple[PlannedStep, ...], tmp_path: Path) -> None:
    project = example()
    other = replace(project, release=replace(project.release, tighten=Tighten(approvals=1)))
    before, after = meaning(plan), meaning(plan_of(other, tmp_path))
    changed = {name.split("/")[0] for name in before if before[name] != after[name]}
    assert changed == {"sign", "certify", "stage", "publish", "rollout"}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_one_platforms_job_has_what_its_two_bundles_need_and_nothing_else(
    platform: str, plan: tuple[PlannedStep, ...]
) -> None:
    part = restrict(plan, StepName.SIGN, [platform])
    assert signed(part) == {f"sign/{kind}/{platform}" for kind in BundleKind}
    assert {step.platform for step in part} <= {"", platform}
    assert not {"certify", "stage", "publish", "rollout"} & set(ids(part))
    whole = meaning(plan)
    assert all(meaning(part)[step.id] == whole[step.id] for step in part), "built alone or together: the same bytes"


def test_a_platforms_compile_command_compiles_what_the_platform_uses(plan: tuple[PlannedStep, ...]) -> None:
    part = restrict(plan, StepName.COMPILE, ["nt2.5"])
    compiled = {step.id for step in part if step.step == StepName.COMPILE}
    assert compiled == {"compile/release/nx9031.cpu", "compile/return/nx9031.cpu"}
    assert not [step for step in part if step.step == StepName.VALIDATE]


def test_kinds_can_be_cut_out(plan: tuple[PlannedStep, ...]) -> None:
    part = restrict(plan, StepName.SIGN, ["virtual"], [BundleKind.RETURN])
    assert signed(part) == {"sign/return/virtual"}
    assert not [step for step in part if "/release/" in step.id]


def test_factory_bundles_belong_to_the_rollout_and_to_no_train(plan: tuple[PlannedStep, ...]) -> None:
    by_id = {step.id: step for step in plan}
    assert not [need for need in by_id["stage"].needs if FACTORY in need]
    assert {f"sign/{FACTORY}/{platform}" for platform in PLATFORMS} <= by_id["rollout"].needs
    assert not [name for name in ids(restrict(plan, StepName.PUBLISH)) if FACTORY in name]


def test_only_virtual_fleets_have_factory_bundles(tmp_path: Path) -> None:
    project = example()
    fleet = FleetReference(project.release.fleet.name, project.release.fleet.inventory, virtual=False)
    real = plan_of(replace(project, release=replace(project.release, fleet=fleet)), tmp_path)
    assert not [name for name in ids(real) if FACTORY in name]
    signatures = [step for step in real if step.step == StepName.SIGN]
    assert {step.parameters["rules"]["virtual"] for step in signatures} == {False}  # type: ignore[index]


def test_a_platform_may_be_called_like_a_kind_of_bundle(tmp_path: Path) -> None:
    project = example()
    odd = {"return": replace(project.profiles["virtual"], name="return")}
    release = replace(project.release, platforms=("return",))
    plan = plan_of(replace(project, release=release, profiles=odd), tmp_path)
    part = restrict(plan, StepName.SIGN, ["return"], [BundleKind.RELEASE])
    assert signed(part) == {"sign/release/return"}


def test_a_platform_that_the_release_lacks_is_refused(plan: tuple[PlannedStep, ...]) -> None:
    with pytest.raises(PlanError, match="no 'sign' step for nt9") as caught:
        restrict(plan, StepName.SIGN, ["nt9"])
    assert "does not name that platform" in caught.value.why


def test_one_unknown_platform_among_known_ones_is_refused(plan: tuple[PlannedStep, ...]) -> None:
    with pytest.raises(PlanError, match="nt9"):
        restrict(plan, StepName.SIGN, ["virtual", "nt9"])


def searching(tmp_path: Path, effort: str = "full", pinned: frozenset[str] = frozenset()) -> tuple[PlannedStep, ...]:
    project = replace(example(), pinned=pinned)
    return project.plan(ContentStore(tmp_path / "store"), SearchOrder(effort))


def test_builds_that_may_share_an_artifact_share_a_search(tmp_path: Path) -> None:
    plan = searching(tmp_path)
    searches = [step for step in plan if step.step == StepName.SEARCH]
    assert [step.id.removeprefix("search/release/") for step in searches] == [
        "orin-x.gpu", "nx9031.cpu", "host.host", "orin-x.cpu",
    ]  # fmt: skip
    assert ordered(plan)
    by_id = {step.id: step for step in plan}
    for search in searches:
        compiled = by_id[search.id.replace("search/", "compile/")]
        assert compiled.inputs["recipes"] == OutputRef(search.id, "recipes")
        assert compiled.parameters["recipe"] is None  # type: ignore[index]
        assert compiled.adjustable == {"rank": (0, 1, 2, 3)}


def test_a_backup_is_searched_after_the_build_that_it_is_to_be_unlike(tmp_path: Path) -> None:
    search = next(step for step in searching(tmp_path) if step.id == "search/release/orin-x.cpu")
    assert search.inputs["unlike"] == OutputRef("search/release/orin-x.gpu", "recipes")


def test_what_is_pinned_is_not_searched_and_still_kept_away_from(tmp_path: Path) -> None:
    pinned = frozenset({"nt2.0/quad-orin/gpu", "nt2.0/quad-orin/shadow", "nt3.0/orin-single/gpu"})
    plan = searching(tmp_path, pinned=pinned)
    assert "search/release/orin-x.gpu" not in ids(plan)
    search = next(step for step in plan if step.id == "search/release/orin-x.cpu")
    assert "unlike" not in search.inputs
    assert search.parameters["avoid"] == ["iree"]  # type: ignore[index]


def test_the_way_back_is_not_searched(tmp_path: Path) -> None:
    assert not [step.id for step in searching(tmp_path) if step.id.startswith("search/return")]


def test_every_artifact_is_built_again_where_the_policy_asks_for_it(plan: tuple[PlannedStep, ...]) -> None:
    compiles = [step.id for step in plan if step.step == StepName.COMPILE]
    rebuilds = [step for step in plan if step.step == StepName.REBUILD]
    assert [step.id.replace("rebuild/", "compile/") for step in rebuilds] == compiles
    for step in plan:
        if step.step == StepName.VALIDATE:
            assert isinstance(step.inputs["rebuilt"], OutputRef)


def test_deltas_are_built_and_signed_before_anything_is_certified(tmp_path: Path) -> None:
    project = example()
    wanted = replace(project, release=replace(project.release, deltas=DeltaOrder(most=2)))
    assert plan_of(wanted, tmp_path) == plan_of(project, tmp_path), "nobody has counted the fleet"
    census = FleetCensus("showroom", True, (), ())
    plan = wanted.plan(ContentStore(tmp_path / "content"), census=census)
    assert ids(plan)[-6:] == ["deltas", "sign_deltas", "certify", "stage", "publish", "rollout"]
    steps = {step.id: step for step in plan}
    for name in ("certify", "stage"):
        assert steps[name].inputs["delta_bundles"] == OutputRef("sign_deltas", "bundles")
    assert steps["stage"].inputs["census"] == steps["deltas"].inputs["census"]
    until = ids(restrict(plan, StepName.SIGN))
    assert not {"deltas", "sign_deltas"} & set(until)
