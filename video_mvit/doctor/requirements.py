"""What the project asks of Python and packages, read with the standard library alone.

A broken environment may lack the library that other tools read requirements with.
"""

from __future__ import annotations

import ast
import operator
import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, Tuple  # noqa: UP035

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)\s*(?:\[[^\]]*\])?\s*([^;#]*)(?:;(.*))?")
CLAUSE = re.compile(r"(===|==|>=|<=|!=|~=|<|>)\s*([^,\s]+)")
Release = Tuple[int, ...]  # noqa: UP006
COMPARISONS: Dict[str, Callable[[Release, Release], bool]] = {  # noqa: UP006
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    "<": operator.lt,
    ">": operator.gt,
}
COMPARED = {ast.Eq: "==", ast.NotEq: "!=", ast.GtE: ">=", ast.LtE: "<=", ast.Lt: "<", ast.Gt: ">"}


@dataclass(frozen=True)
class Requirement:
    """A package and the versions of it that will do, e.g. "torch", ">=2.11,<2.14"."""

    name: str
    specifier: str


def release(version: str) -> Release:
    """Numbers of a version, without zeros at its end: "2.13.0+cu130" -> (2, 13)."""
    match = re.match(r"v?(\d+(?:\.\d+)*)", version)
    numbers = [int(part) for part in match.group(1).split(".")] if match else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def satisfies(version: str, specifier: str) -> bool:
    """Whether the numbers of a version fit all clauses: "2.13.0", ">=2.11,<2.14" -> True.

    Raises `ValueError` on a clause that this project does not use.
    """
    for clause in filter(None, (part.strip() for part in specifier.split(","))):
        match = CLAUSE.fullmatch(clause)
        if match is None or match.group(1) not in COMPARISONS or "*" in clause:
            raise ValueError(
                f"the requirement {specifier!r} has a clause {clause!r} of no known form"
            )
        if not COMPARISONS[match.group(1)](release(version), release(match.group(2))):
            return False
    return True


def applies(marker: str) -> bool:
    """Whether a requirement with this marker is for this machine: "sys_platform == 'linux'"."""
    facts = {
        "sys_platform": sys.platform,
        "platform_machine": platform.machine(),
        "platform_system": platform.system(),
        "platform_python_implementation": platform.python_implementation(),
        "python_version": "{}.{}".format(*sys.version_info),
        "python_full_version": platform.python_version(),
        "os_name": os.name,
        "extra": "",
    }

    def holds(node: ast.expr) -> bool:
        if isinstance(node, ast.BoolOp):
            combine = all if isinstance(node.op, ast.And) else any
            return combine([holds(value) for value in node.values])
        if not isinstance(node, ast.Compare) or not isinstance(node.left, ast.Name):
            raise ValueError(f"the marker {marker!r} is of no known form")
        name, wanted = node.left.id, ast.literal_eval(node.comparators[0])
        compare = COMPARISONS[COMPARED[type(node.ops[0])]]
        if "version" in name:
            return compare(release(facts[name]), release(wanted))
        return bool(facts[name] == wanted) == isinstance(node.ops[0], ast.Eq)

    return holds(ast.parse(marker.strip(), mode="eval").body)


def parse_requirements(text: str) -> List[Requirement]:  # noqa: UP006
    """Those of lines, comments left out, that are for this machine."""
    requirements = []
    for line in filter(None, (line.partition("#")[0].strip() for line in text.splitlines())):
        match = REQUIREMENT.fullmatch(line)
        if match is None:
            raise ValueError(f"the requirement {line!r} is of no known form")
        name, specifier, marker = match.groups()
        if marker is None or applies(marker):
            requirements.append(Requirement(name, specifier.strip()))
    return requirements


def python_range(pyproject: str) -> str:
    """The text of pyproject.toml -> ">=3.11,<3.14"; an old Python cannot read TOML."""
    match = re.search(r'^requires-python\s*=\s*"([^"]+)"', pyproject, re.MULTILINE)
    if match is None:
        raise ValueError("pyproject.toml has no line requires-python")
    return match.group(1)


def needed_packages(pyproject: str) -> List[Requirement]:  # noqa: UP006
    """Those that the package cannot do without, from the text of pyproject.toml."""
    import tomllib  # newer than the oldest Python that comes here

    return parse_requirements("\n".join(tomllib.loads(pyproject)["project"]["dependencies"]))


def pins(requirements: str) -> Dict[str, str]:  # noqa: UP006
    """Name -> version, from the text of requirements.txt."""
    return {normal_name(each.name): each.specifier[2:] for each in parse_requirements(requirements)}


def normal_name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
