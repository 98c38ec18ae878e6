#!/usr/bin/env python3
"""Writes the table of values in helm/tern/README.md from the `# --` comments of values.yaml.

  helm/values-table.py            writes the table
  helm/values-table.py --check    fails if the table is out of date, or if a value has no comment
"""

from __future__ import annotations

import json
import pathlib
import re
import sys

import yaml

CHART = pathlib.Path(__file__).parent / "tern"
MARK = "<!-- values -->\n"
KEY = re.compile(r"^( *)([A-Za-z][A-Za-z0-9-]*):(.*)$")
COMMENT = re.compile(r"^ *# -- (.*)$")
MORE = re.compile(r"^ *# (?!-- )(.*)$")


def comments(text: str) -> dict[str, str]:
    """Returns the comment of each key by the key's path. The comment stands above the key and begins with `# --`."""
    found, stack, comment = {}, [], None
    for line in text.splitlines():
        if begun := COMMENT.match(line):
            comment = begun[1]
        elif comment and (more := MORE.match(line)):
            comment += " " + more[1]
        elif key := KEY.match(line):
            depth = len(key[1])
            stack = [(at, name) for at, name in stack if at < depth] + [(depth, key[2])]
            if comment:
                found[".".join(name for _, name in stack)] = comment
            comment = None
        else:
            comment = None
    return found


def rows(values: dict, known: dict[str, str], path: str = "") -> list[tuple[str, str, str | None]]:
    """Returns path, default and comment of each value. A map that has a comment is one value."""
    result = []
    for name, value in values.items():
        at = f"{path}.{name}" if path else name
        if isinstance(value, dict) and value and at not in known:
            result += rows(value, known, at)
        else:
            result.append((at, json.dumps(value, ensure_ascii=False), known.get(at)))
    return result


def main() -> int:
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    listed = rows(yaml.safe_load(text), comments(text))
    bare = [path for path, _, comment in listed if comment is None]
    lines = ["| value | default | what it is |", "|---|---|---|"]
    lines += [f"| `{path}` | `{default}` | {comment} |" for path, default, comment in listed]
    table = "\n".join(lines).replace("\\", "\\\\") + "\n"
    readme = CHART / "README.md"
    head, mark, old = readme.read_text(encoding="utf-8").partition(MARK)
    if "--check" not in sys.argv:
        readme.write_text(head + MARK + table, encoding="utf-8")
    elif mark == "" or old != table:
        print("values: the table in helm/tern/README.md is out of date: run helm/values-table.py")
        return 1
    for path in bare:
        print(f"values: {path} has no `# --` comment")
    return 1 if bare else 0


if __name__ == "__main__":
    sys.exit(main())
