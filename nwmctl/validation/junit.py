"""Check results as JUnit XML, which every CI system draws.

One test suite per platform and build, one test case per result. ``failed`` is a failure; ``inconclusive`` is an error,
since the check came to no answer (both turn a pipeline red: nothing inconclusive passes); ``not_run`` is skipped, with
the reason and what would settle it. No time and no host, so the same evidence gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never
from xml.etree import ElementTree

from nwmctl.domain.evidence import CheckResult, Evidence, Verdict

_KEPT_CONTROLS = "\t\n\r"


def junit(packs: Iterable[Evidence]) -> bytes:
    """UTF-8 XML of one or more evidence packs, in their order."""
    root = ElementTree.Element("testsuites", name="nwmctl")
    for pack in packs:
        root.append(_suite(pack))
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _suite(pack: Evidence) -> ElementTree.Element:
    verdicts = [result.verdict for result in pack.results]
    suite = ElementTree.Element(
        "testsuite",
        name=_text(f"{pack.platform}/{pack.build}"),
        tests=str(len(verdicts)),
        failures=str(verdicts.count(Verdict.FAILED)),
        errors=str(verdicts.count(Verdict.INCONCLUSIVE)),
        skipped=str(verdicts.count(Verdict.NOT_RUN)),
    )
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (("model", pack.model), ("artifact", pack.artifact)):
        ElementTree.SubElement(properties, "property", name=name, value=str(value))
    for result in pack.results:
        suite.append(_case(pack, result))
    return suite


def _case(pack: Evidence, result: CheckResult) -> ElementTree.Element:
    judge = f", judged by {result.judge}" if result.judge else ""
    name = _text(f"{result.check} ({result.obtained}{judge})")
    case = ElementTree.Element("testcase", name=name, classname=_text(f"nwmctl.{pack.platform}.{pack.build}"))
    match result.verdict:
        case Verdict.PASSED:
            pass
        case Verdict.FAILED:
            _add(case, "failure", result)
        case Verdict.INCONCLUSIVE:
            _add(case, "error", result)
        case Verdict.NOT_RUN:
            _add(case, "skipped", result)
        case _:
            assert_never(result.verdict)
    lines = [result.summary, *(_figure_lines(result))]
    ElementTree.SubElement(case, "system-out").text = _text("\n".join(lines))
    return case


def _add(case: ElementTree.Element, tag: str, result: CheckResult) -> None:
    note = ElementTree.SubElement(case, tag, message=_text(result.summary))
    if tag != "skipped":
        note.set("type", str(result.verdict))
    note.text = _text(f"next: {result.next}") if result.next else None


def _figure_lines(result: CheckResult) -> list[str]:
    return [
        f"{f.name} = {f.value:g} {f.unit}".rstrip()
        + (f" (at most {f.limit:g})" if f.limit is not None else "")
        + f" [{f.obtained}]"
        for f in result.figures
    ]


def _text(text: str) -> str:
    """Without the characters that XML 1.0 cannot hold; a crashed compiler's message may contain any."""
    return "".join(c if c in _KEPT_CONTROLS or _allowed(ord(c)) else "\N{REPLACEMENT CHARACTER}" for c in text)


def _allowed(code: int) -> bool:
    return 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or 0x10000 <= code <= 0x10FFFF
