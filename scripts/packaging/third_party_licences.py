#!/usr/bin/env python3
"""Prints the licences of the crates that are in the program, with their texts, each text once.

    third_party_licences.py TARGET
"""

import collections
import json
import pathlib
import re
import subprocess
import sys


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


target = sys.argv[1]
tree = run("cargo", "tree", "--locked", "--features", "kube", "--edges", "normal", "--target", target, "--prefix", "none", "--format", "{p}")
linked = {tuple(line.split()[:2]) for line in tree.splitlines() if "(proc-macro)" not in line}
metadata = json.loads(run("cargo", "metadata", "--locked", "--features", "kube", "--format-version", "1", "--filter-platform", target))
own = set(metadata["workspace_members"])

crates_by_text = collections.defaultdict(list)
print("Crates in tenantd, with their licences; the texts follow. Rust's standard library: MIT OR Apache-2.0.\n")
for package in sorted(metadata["packages"], key=lambda package: (package["name"], package["version"])):
    if package["id"] in own or (package["name"], "v" + package["version"]) not in linked:
        continue
    name = f"{package['name']} {package['version']}"
    print(f"{name}: {package['license'] or package['license_file']}")
    folder = pathlib.Path(package["manifest_path"]).parent
    # Also what a crate bundles, such as C sources.
    for file in sorted(folder.rglob("*")):
        if re.match(r"(?i)(licen[cs]e|copying|notice|copyright|unlicense)", file.name) and file.suffix not in (".rs", ".py", ".go"):
            if file.is_file():
                text = file.read_text(errors="replace").strip()
                crates_by_text[text].append(f"{name}: {file.relative_to(folder)}")

for text, crates in sorted(crates_by_text.items(), key=lambda item: item[1][0]):
    print("\n" + "=" * 100)
    print("\n".join(crates))
    print("=" * 100 + "\n\n" + text)
