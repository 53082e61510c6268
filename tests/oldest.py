"""Prints pip's constraints that make of every lower bound in pyproject.toml the version."""

import pathlib
import re
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
TOOLS = "dev"  # the extra whose lower bounds are not those of the package


def bounds(text):
    """{package: lower bound} of the content of pyproject.toml, without its tools."""
    project = tomllib.loads(text)["project"]
    extras = project["optional-dependencies"]
    wanted = [line for name, lines in extras.items() if name != TOOLS for line in lines]
    found = (
        re.match(r"([\w.-]+)(?:\[.*\])?>=([\w.]+)", w) for w in project["dependencies"] + wanted
    )
    return {match[1].lower(): match[2] for match in found if match}


if __name__ == "__main__":
    for package, version in bounds((ROOT / "pyproject.toml").read_text()).items():
        print(f"{package}=={version}")
