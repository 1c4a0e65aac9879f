"""The comparison as JUnit XML, which CI systems show beside the tests of the code."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence

from visxai.compare.comparison import Comparison, Gate
from visxai.foreign import shown

_NAMED = 10  # inputs that a failure names


def junit(found: Comparison, gates: Sequence[Gate]) -> bytes:
    """Format the gates as test cases.

    Args:
        found: The comparison.
        gates: What was required of it.

    Returns:
        The XML, UTF-8. A gate that doesn't hold is a failure that names the inputs whose reason
        changed most.
    """
    failed = sum(not one.passed for one in gates)
    suites = ET.Element("testsuites")
    suite = ET.SubElement(
        suites,
        "testsuite",
        name=shown(f"visxai compare {found.a['out']} {found.b['out']}"),
        tests=str(len(gates)),
        failures=str(failed),
        errors="0",
        skipped="0",
    )
    for one in gates:
        case = ET.SubElement(suite, "testcase", classname="visxai.compare", name=one.name)
        if one.passed:
            ET.SubElement(case, "system-out").text = one.said
            continue
        failure = ET.SubElement(case, "failure", message=one.said)
        failure.text = "\n".join(
            f"{shown(pair.id)}: agreement {pair.agreement:.3f}, "
            f"{shown(pair.a.label)} -> {shown(pair.b.label)}"
            for pair in found.pairs[:_NAMED]
        )
    ET.indent(suites)
    text: bytes = ET.tostring(suites, "utf-8", xml_declaration=True)
    return text
