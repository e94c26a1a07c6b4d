#!/usr/bin/env python3
"""Makes `docs/reference/dockerfile-support.md` of `constructs.py` and of the cases that prove each construct.

    support_page.py            compares the page; UPDATE_DOCS=1 writes it
"""

import os
import sys

import builders
import cases
import constructs
import refused

PAGE = os.path.join(builders.PROJECT, "docs", "reference", "dockerfile-support.md")
STATES = {
    constructs.EQUAL: "equal to BuildKit",
    constructs.DIFFERENT: "different on purpose",
    constructs.REFUSED: "refused with an error",
    constructs.WINDOWS: "not applicable",
}
SHOWN = 4


def proofs():
    """Construct id -> the names of what proves it: cases, `refused/` files, test files."""
    found = {}
    for case in cases.load():
        for construct in case.options.get("covers", []):
            found.setdefault(construct, []).append(f"cases/{case.name}")
    for file in refused.load():
        for construct in file.options.get("covers", []):
            found.setdefault(construct, []).append(f"refused/{file.name}.dockerfile")
    for construct in constructs.by_id().values():
        if construct.test:
            found.setdefault(construct.id, []).append(construct.test)
    return found


def problems():
    """What is wrong with the table and the cases, as lines."""
    known, proved = constructs.by_id(), proofs()
    lines = [f"unknown construct `{name}` in {', '.join(where)}" for name, where in sorted(proved.items()) if name not in known]
    lines += [
        f"no case covers `{construct.id}`"
        for construct in known.values()
        if construct.id not in proved and construct.state != constructs.WINDOWS
    ]
    lines += [
        f"`{construct.id}`: there is no {construct.test}"
        for construct in known.values()
        if construct.test and not os.path.exists(os.path.join(builders.HERE, construct.test))
    ]
    lines += [
        f"`{construct.id}` is {construct.state} without a reason"
        for construct in known.values()
        if construct.state != constructs.EQUAL and not construct.note
    ]
    return lines


def code(text):
    """Inline code, also of what holds backticks or a bar."""
    text = text.replace("|", "\\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def link(name):
    shown = name.removeprefix("cases/").removeprefix("refused/")
    return f"[{shown}](../../tests/e2e/{name})"


def row(construct, proved):
    where = proved.get(construct.id, [])
    shown = ", ".join(link(name) for name in where[:SHOWN])
    if len(where) > SHOWN:
        shown += f" and {len(where) - SHOWN} more"
    state = STATES[construct.state] + (f": {construct.note}" if construct.note else "")
    return f"| {code(construct.id)} | {state} | {shown} |"


def page():
    proved = proofs()
    every = list(constructs.by_id().values())
    counts = ", ".join(
        f"{sum(construct.state == state for construct in every)} {text}" for state, text in STATES.items()
    )
    lines = [
        "<!-- Generated from the tests by tests/e2e/support_page.py; UPDATE_DOCS=1 writes it. -->",
        "# Dockerfile support",
        "",
        "Every construct of the Dockerfile reference (syntax version 1, as in BuildKit 0.33), by its sections, with the tests",
        "that prove its state. *Equal* means: from the same Dockerfile and context, BuildKit and memobuild-ci make the same root file system and the",
        "same image configuration, but for what [limits](../limitations.md) tells; or both refuse it.",
        "",
        f"{len(every)} constructs: {counts}. {len(cases.load())} Dockerfiles are built and compared, {len(refused.load())} must be refused.",
    ]
    for section, entries in constructs.SECTIONS.items():
        lines += ["", f"## {section}", "", "| construct | state | tests |", "|---|---|---|"]
        lines += [row(construct, proved) for construct in entries]
    return "\n".join(lines) + "\n"


def main():
    lines = problems()
    text = page()
    if os.environ.get("UPDATE_DOCS"):
        with open(PAGE, "w") as file:
            file.write(text)
    elif not os.path.exists(PAGE) or open(PAGE).read() != text:
        lines.append("docs/reference/dockerfile-support.md is out of date: UPDATE_DOCS=1 tests/e2e/support_page.py writes it")
    print("\n".join(lines))
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
