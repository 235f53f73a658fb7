"""deltas: a census of the fleet and the signed bundles -> which deltas there are, built.

What each candidate would take is predicted from a sample of its chunks; of those that are worth while the set is chosen
that lets the counted mix of versions download least; the chosen are built, and one whose real size turns out not to be
worth while is left out. Pure: what the fleet has comes in as the census. Each delta leads from a version straight to
the release, since a vehicle installs one bundle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from nwmctl.bundling.delta_choice import Limits
from nwmctl.bundling.delta_plan import DeltaPlan, Installed, plan_deltas
from nwmctl.bundling.delta_roads import Delta, Goal, Rules, Way
from nwmctl.domain.bundle import BundleKind
from nwmctl.domain.delta import BuiltDelta, DeltaSet, FleetCensus, VersionDeltas
from nwmctl.domain.digest import Digest
from nwmctl.domain.step import Outcome
from nwmctl.domain.traffic import DeltaOrder, LinkClass
from nwmctl.domain.work import DeltasWork, StepName
from nwmctl.errors import DeltasSealedError
from nwmctl.formats import canonical, documents
from nwmctl.formats import delta as wire
from nwmctl.formats.codec import to_plain
from nwmctl.steps.base import Progress, Step
from nwmctl.steps.delta_versions import Version, bring_out, exact_delta, predicted_delta, read_versions
from nwmctl.steps.deltas import VERSION as CODE
from nwmctl.steps.deltas import made_delta
from nwmctl.storage.content import ContentStore
from nwmctl.toolchains.files import versions

VERSION = 1


@dataclass(frozen=True, slots=True)
class Versions:
    """What vehicles shall have, by platform, and all that they may have. ``counted`` are the vehicles that need the
    release, by platform and version."""

    goals: Mapping[str, Version]
    known: Mapping[str, list[Version]]
    counted: tuple[Installed, ...]

    @property
    def aims(self) -> list[Goal]:
        """The goals, as a plan takes them."""
        return [Goal(platform, goal.name, goal.full_bytes) for platform, goal in self.goals.items()]

    def candidates(self) -> list[tuple[Version, Version]]:
        """From each version that somebody has to the goal of its platform."""
        held = {(row.line, row.version) for row in self.counted}
        return [
            (old, goal)
            for platform, goal in self.goals.items()
            for old in self.known.get(platform, ())
            if (platform, old.name) in held and old.name != goal.name and any(goal.pairs(old))
        ]

    def find(self, platform: str, name: str) -> Version:
        """The version of that name."""
        return next(one for one in self.known[platform] if one.name == name)


def gather_versions(
    store: ContentStore,
    census: FleetCensus,
    release: Mapping[str, Digest],
    back: Mapping[str, Digest],
    sequence: int,
    factory_sequence: int,
) -> Versions:
    """The versions that a release has to do with. ``release`` and ``back`` are its bundles and its return bundles by
    platform; what the latter bring is what virtual vehicles left their factory with, unless the census knows better."""
    needing = [row for row in census.rows if row.sequence <= sequence]
    held = {(row.platform, row.sequence) for row in needing}
    told = {(one.platform, one.sequence) for one in census.bundles}
    alone: list[tuple[Digest, tuple[int, ...]]] = [(digest, ()) for _, digest in sorted(release.items())]
    goals = {platform: found[0] for platform, found in read_versions(store, alone).items()}
    bundles: list[tuple[Digest, tuple[int, ...]]] = [
        (one.bundle, (one.sequence,)) for one in census.bundles if (one.platform, one.sequence) in held
    ]
    for platform, digest in sorted(back.items()):
        unknown = factory_sequence and (platform, factory_sequence) not in told
        bundles.append((digest, (factory_sequence,) if unknown else ()))
    known = read_versions(store, bundles)
    names = {(platform, sequence): goal.name for platform, goal in goals.items()}
    names |= {(one.platform, seq): one.name for own in known.values() for one in own for seq in one.sequences}
    counts: Counter[tuple[str, str, LinkClass]] = Counter()
    for row in needing:
        if row.platform in goals:
            name = names.get((row.platform, row.sequence), f"sequence {row.sequence}")
            counts[row.platform, name, row.link] += row.vehicles
    counted = tuple(sorted(Installed(*place, vehicles) for place, vehicles in counts.items()))
    return Versions(goals, known, counted)


def rules_of(order: DeltaOrder) -> Rules:
    """A release's order as a plan takes it."""
    return Rules(Limits(order.most, order.cpu_s, order.storage), order.least_saving)


@dataclass(frozen=True, slots=True)
class _Deltas:
    store: ContentStore

    def __call__(self, work: DeltasWork, inputs: Mapping[str, Digest], progress: Progress) -> Outcome:
        census = documents.decode(FleetCensus, self.store.read(inputs["census"]), "census")
        bundles = {
            kind: {platform: inputs[f"swu:{kind}/{platform}"] for platform in work.platforms} for kind in BundleKind
        }
        progress("reading the versions that vehicles have", -1.0)
        found = gather_versions(
            self.store, census, bundles[BundleKind.RELEASE], bundles[BundleKind.RETURN], work.sequence,
            work.factory_sequence,
        )  # fmt: skip
        _refuse_sealed(found)
        rules = rules_of(work.order)
        plan = plan_deltas(found.counted, found.aims, self._candidates(found, progress), rules)
        built = self._build(found, plan, progress)
        plan = plan_deltas(found.counted, found.aims, built, rules)
        worth = {(pair.line, pair.old) for pair in plan.pairs if pair.way is Way.DELTA}
        kept = [self._deltas_of(found, one, work) for one in built if (one.line, one.old) in worth]
        return self._outcome(DeltaSet(tuple(kept)), plan)

    def _candidates(self, found: Versions, progress: Progress) -> list[Delta]:
        deltas = []
        for old, new in found.candidates():
            if not (bring_out(self.store, old) and bring_out(self.store, new)):
                continue  # the plan then says that the old artifact is not at hand
            progress(f"predicting the delta from {old.name} to {new.name}", -1.0)
            deltas.append(exact_delta(self.store, old, new) or predicted_delta(self.store, old, new))
        return deltas

    def _build(self, found: Versions, plan: DeltaPlan, progress: Progress) -> list[Delta]:
        """The chosen deltas with the sizes that they really have."""
        built = []
        wanted = [(pair.line, pair.old) for pair in plan.pairs if pair.way is Way.DELTA]
        for done, (platform, name) in enumerate(wanted):
            old, new = found.find(platform, name), found.goals[platform]
            progress(f"encoding {platform}: {old.name} to {new.name}", done / len(wanted))
            for pair in new.pairs(old):
                made_delta(self.store, pair.base.digest, pair.new)
            exact = exact_delta(self.store, old, new)
            assert exact is not None, "all of them have just been made"
            built.append(exact)
        return built

    def _deltas_of(self, found: Versions, delta: Delta, work: DeltasWork) -> VersionDeltas:
        old, new = found.find(delta.line, delta.old), found.goals[delta.line]
        files = []
        for pair in new.pairs(old):
            made = made_delta(self.store, pair.base.digest, pair.new)
            files.append(BuiltDelta(pair.filename, pair.base, made.digest, made.size, pair.size))
        sequences = tuple(one for one in old.sequences if one < work.sequence)
        return VersionDeltas(delta.line, old.name, sequences, tuple(files))

    def _outcome(self, deltas: DeltaSet, plan: DeltaPlan) -> Outcome:
        files = [file for one in deltas.deltas for file in one.files]
        outputs = {
            "deltas": self.store.put_bytes(documents.encode(deltas)),
            "plan": self.store.put_bytes(canonical.encode(to_plain(plan))),
            # Named, so that a result whose deltas or bases are gone is not taken for whole.
            **{f"delta:{file.digest.hex}": file.digest for file in files},
            **{f"base:{file.base.digest.hex}": file.base.digest for file in files},
        }
        return Outcome(
            outputs,
            {
                "versions": len(plan.pairs),
                "deltas": len(deltas.deltas),
                "size": sum(file.size for file in files),
                "vehicles_by_delta": plan.vehicles(Way.DELTA),
                "vehicles_by_full_bundle": plan.vehicles(Way.FULL),
                "bytes": plan.bytes,
                "bytes_if_all_were_full": plan.all_full,
            },
        )


def _refuse_sealed(found: Versions) -> None:
    sealed = sorted(platform for platform, goal in found.goals.items() if goal.sealed)
    if sealed:
        raise DeltasSealedError(
            f"the payloads for {', '.join(sealed)} are encrypted, and deltas are not",
            why="whoever has an old artifact could read the new one out of its delta",
            next="take 'deltas:' out of the release, or build its bundles without --aes-key",
        )


def deltas_step(store: ContentStore) -> Step[DeltasWork]:
    """The step."""
    fingerprint = f"delta {wire.VERSION}, {CODE}, {versions('numpy', 'zstandard')}"
    return Step(StepName.DELTAS, VERSION, True, DeltasWork, _Deltas(store), fingerprint=lambda _: fingerprint)
