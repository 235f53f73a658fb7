"""`nwmctl split`: one model over two chips of a vehicle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nwmctl.cli.common import JsonOption, PlatformsOption, emit, page, settings_of

if TYPE_CHECKING:
    from nwmctl.domain.split import SplitPlan


def split(
    model: Annotated[Path, typer.Argument(help="A model package's folder.", show_default=False)],
    platform: Annotated[str, typer.Option("--platform", "-p", help="The platform.")],
    variant: Annotated[str, typer.Option("--variant", help="Its compute variant.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A new folder for both graphs and artifacts.")],
    build: Annotated[str, typer.Option("--build", help="The build whose chip and first recipe are used.")] = "gpu",
    link: Annotated[
        float | None,
        typer.Option("--link", min=1e-6, help="GB/s between the chips to assume where the profile knows none."),
    ] = None,
    platforms: PlatformsOption = None,
    json_: JsonOption = False,
) -> None:
    """Cut a model over two chips, so that they finish as many control steps per second as they can.

    One single control step does not become faster: it takes both stages and the transfer. All times are predicted.
    """
    from nwmctl.app.settings import COMPILE_TIMEOUT_S
    from nwmctl.app.split import SplitRequest, split_package
    from nwmctl.formats.codec import to_plain

    folder = settings_of(None, platforms=platforms).platforms
    plan = split_package(SplitRequest(model, platform, variant, build, out, folder, COMPILE_TIMEOUT_S, link))
    if json_:
        plain = to_plain(plan)
        assert isinstance(plain, dict)
        emit({"out": str(out), **plain})
        return
    _print(plan, out)


def _print(plan: SplitPlan, out: Path) -> None:
    from rich.markup import escape
    from rich.table import Table

    from nwmctl.cli.words import size

    console = page()
    recipe = f"{plan.recipe.toolchain} {plan.recipe.precision}"
    console.print(f"[bold]{recipe} on two {plan.chip}.{plan.unit}[/]  [dim]balanced by {plan.balanced_by}[/]\n")
    stages = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for title in ("stage", "layers", "operations", "weights", "activations", "predicted", "bound by"):
        stages.add_column(title, justify="left" if title in ("stage", "layers", "bound by") else "right")
    for number, stage in enumerate(plan.stages, start=1):
        first, last = escape(stage.layers[0]), escape(stage.layers[-1])
        stages.add_row(
            str(number), f"{len(stage.layers)}: {first} … {last}", f"{stage.flops / 1e6:.1f} M",
            size(stage.weight_bytes), size(stage.activation_bytes), _ms(stage.ms), str(stage.bound or "not known"),
        )  # fmt: skip
    console.print(stages)
    names = ", ".join(f"{escape(each.tensor.name)} {list(each.tensor.shape)}" for each in plan.crossings)
    rate = f"{plan.gb_per_s * 1e3:.3g} MB/s at {plan.rate_hz:g} Hz"
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    facts.add_row("over the link", f"{size(plan.bytes_per_frame)} per frame, {rate}: {names}")
    facts.add_row("inputs of stage 2", f"{size(plan.forwarded_bytes)} per frame besides (sensors or link)")
    facts.add_row("weights in both", size(plan.shared_weight_bytes))
    speed = "unknown" if plan.link.value is None else f"{plan.link.value:g} {plan.link.unit}"
    facts.add_row("link", f"{speed}  [dim]{plan.link.confidence}: {escape(plan.link.source)}[/]")
    facts.add_row("one frame", f"{_ms(plan.latency_ms)} over two chips, {_ms(plan.whole_ms)} on one")
    throughput = "not known" if plan.throughput_hz is None else f"{plan.throughput_hz:.3g} per s"
    facts.add_row("frames", f"{throughput} with both chips at work")
    error = f"within a factor of {1 + plan.error.worst:.3g} ({'assumed' if plan.error.assumed else 'measured'})"
    facts.add_row("figures", f"{plan.obtained}, {error}; {escape(plan.source)}")
    same = {True: "bit for bit what the whole gives (onnxruntime, this host)", False: "DIFFERS", None: "not compared"}
    facts.add_row("both parts", same[plan.identical])
    console.print()
    console.print(facts)
    for reason in plan.why:
        console.print(f"[dim]{escape(reason)}[/]")
    console.print(f"\nwritten to {escape(str(out))}", soft_wrap=True)


def _ms(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3g} ms"
