#!/usr/bin/env python3
"""Measures the source: sizes, names, documentation, circles between files, dependencies.

    scripts/figures.py             the working tree
    scripts/figures.py REVISION    a commit of this repository
    scripts/figures.py --list      also names what is counted, so that it can be mended

Counts tokens, not text: comments and string literals are taken out first. Test modules, `tests` folders
and files that only tests build are left out, except in the line counts.
"""

import argparse
import collections
import io
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LITERAL = re.compile(
    r'(?P<comment>//[^\n]*|/\*.*?\*/)'
    r'|(?P<text>b?c?r(?P<hashes>#*)".*?"(?P=hashes)|b?c?"(?:\\.|[^"\\])*"|b?\'(?:\\(?:[^u]|u\{[0-9a-fA-F]+\})|[^\'\\])\')',
    re.DOTALL,
)
FUNCTION = re.compile(r'(?P<head>(?:pub(?:\([^)]*\))?\s+)?(?:const\s+|async\s+)*)fn\s+(?P<name>\w+)')
TYPE = re.compile(r'(?m)^\s*(?:pub(?:\([^)]*\))?\s+)?(?:struct|enum|trait|union)\s+(\w+)')


def blank(match):
    """Blanks what a match covers, and keeps its line breaks, so that places stay."""
    return re.sub(r'[^\n]', ' ', match.group(0))


def without_literals(text):
    return LITERAL.sub(blank, text)


def end_of_block(code, opened):
    depth = 0
    for at in range(opened, len(code)):
        if code[at] == '{':
            depth += 1
        elif code[at] == '}':
            depth -= 1
            if depth == 0:
                return at + 1
    return len(code)


def without_tests(code):
    """Cuts modules and items that only tests build."""
    while True:
        found = re.search(r'#\[cfg\((?:all\()?test\b[^\n]*\]\s*(?:#\[[^\n]*\]\s*)*[^\n;{]*([;{])', code)
        if not found:
            return code
        end = found.end() if found.group(1) == ';' else end_of_block(code, found.end(1) - 1)
        code = code[: found.start()] + re.sub(r'[^\n]', ' ', code[found.start():end]) + code[end:]


class Source:
    """One file: its text, its code without literals, and its code without tests."""

    def __init__(self, src, path):
        self.path = path.relative_to(src)
        self.text = path.read_text()
        self.all_code = without_literals(self.text)
        self.code = without_tests(self.all_code)
        parts = list(self.path.with_suffix('').parts)
        self.module = tuple([] if parts in (['lib'], ['main']) else parts)

    def functions(self):
        for found in FUNCTION.finditer(self.code):
            body = re.compile(r'[;{]').search(self.code, found.end())
            if body and body.group(0) == '{':
                end = end_of_block(self.code, body.start())
                yield found, self.code.count('\n', found.start(), end) + 1


def test_files(src):
    """Files that only tests build: below `tests`, or declared under `#[cfg(test)]`."""
    found = {path for path in src.rglob('*.rs') if 'tests' in path.with_suffix('').relative_to(src).parts}
    for path in src.rglob('*.rs'):
        for name in re.findall(r'#\[cfg\(test\)\]\s*(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+);', path.read_text()):
            folder = path.parent if path.stem in ('lib', 'main') else path.with_suffix('')
            found.add(folder / f'{name}.rs')
    return found


def paths_of_use(tree, prefix=()):
    """The paths of one `use` tree, with the name each gives."""
    tree = tree.strip()
    found = re.match(r'((?:\w+\s*::\s*)*)\{(.*)\}$', tree, re.DOTALL)
    if found:
        prefix = prefix + tuple(re.findall(r'\w+', found.group(1)))
        depth, start, inner = 0, 0, found.group(2)
        for at, sign in enumerate(inner + ','):
            depth += (sign == '{') - (sign == '}')
            if sign == ',' and depth == 0:
                if inner[start:at].strip():
                    yield from paths_of_use(inner[start:at], prefix)
                start = at + 1
        return
    path, _, name = tree.partition(' as ')
    path = prefix + tuple(re.findall(r'\w+|\*', path))
    if path and path[-1] == 'self':
        path = path[:-1]
    if path:
        yield path, name.strip() or path[-1]


class Modules:
    """Which module uses which, through re-exports."""

    def __init__(self, sources):
        self.known = {source.module for source in sources}
        self.exports = {}
        for source in sources:
            for tree in re.findall(r'(?m)^\s*pub(?:\([^)]*\))?\s+use\s+([^;]+);', source.code):
                for path, name in paths_of_use(tree):
                    self.exports[source.module + (name,)] = self.absolute(source.module, path)
        self.uses = collections.defaultdict(set)
        for source in sources:
            for path in self.paths(source):
                target = self.resolve(self.absolute(source.module, path))
                if target is not None and target != source.module:
                    self.uses[source.module].add(target)

    def paths(self, source):
        for tree in re.findall(r'(?m)^\s*(?:pub(?:\([^)]*\))?\s+)?use\s+([^;]+);', source.code):
            for path, _ in paths_of_use(tree):
                yield path
        code = re.sub(r'(?m)^\s*(?:pub(?:\([^)]*\))?\s+)?use\s+[^;]+;', '', source.code)
        for found in re.findall(r'\b(?:crate|super|self)(?:::\w+)+', code):
            yield tuple(found.split('::'))

    def absolute(self, module, path):
        if path[0] == 'crate':
            return path[1:]
        base = module
        while path and path[0] in ('self', 'super'):
            base = base[:-1] if path[0] == 'super' else base
            path = path[1:]
            if not path or path[0] != 'super':
                return base + path
        child = module + path[:1]
        return module + path if child in self.known else ()

    def resolve(self, path, depth=0):
        if not path or depth > 8:
            return None
        for length in range(len(path), 0, -1):
            if path[:length] in self.exports and path[:length] not in self.known:
                target = self.exports[path[:length]]
                return self.resolve(target + path[length:], depth + 1) if target else path[:length - 1] or None
            if path[:length] in self.known:
                return path[:length]
        return None

    def circles(self):
        """Sets of siblings that use one another, at each level; a parent and its child are not counted."""
        for parent in sorted({module[:-1] for module in self.known if module}):
            edges = collections.defaultdict(set)
            depth = len(parent)
            for module, targets in self.uses.items():
                for target in targets:
                    if module[:depth] == target[:depth] == parent and len(module) > depth < len(target):
                        if module[depth] != target[depth]:
                            edges[module[depth]].add(target[depth])
            for circle in strongly_connected(edges):
                if len(circle) > 1:
                    yield '::'.join(parent) or 'crate', sorted(circle)


def strongly_connected(edges):
    reach = {}
    for start in edges:
        seen, waiting = set(), [start]
        while waiting:
            for target in edges.get(waiting.pop(), ()):
                if target not in seen:
                    seen.add(target)
                    waiting.append(target)
        reach[start] = seen
    left = set(edges)
    while left:
        one = left.pop()
        circle = {one} | {other for other in reach[one] if one in reach.get(other, ())}
        left -= circle
        yield circle


def undocumented(source):
    """Public items and fields without a line of documentation in front of them."""
    lines = source.text.split('\n')
    code = source.code.split('\n')
    for number, line in enumerate(code):
        found = re.match(r'\s*pub\s+(?:const\s+|async\s+)*(?:(fn|struct|enum|trait|type|const|static)\s+(\w+)|(\w+)\s*:)', line)
        if not found:
            continue
        above = number - 1
        while above >= 0 and lines[above].endswith(']'):
            # An attribute may take several lines.
            while above > 0 and not lines[above].lstrip().startswith('#['):
                above -= 1
            above -= 1
        if above < 0 or not lines[above].lstrip().startswith('///'):
            yield f'{source.path}:{number + 1} {found.group(2) or found.group(3)}'


def measure(root):
    src = root / 'src'
    only_tests = test_files(src)
    every = sorted(src.rglob('*.rs'))
    sources = [Source(src, path) for path in every if path not in only_tests]
    lines = {path: path.read_text().count('\n') for path in every}
    test_lines = sum(lines[path] for path in only_tests if path in lines)
    for source in sources:
        cut = [one.strip() != '' and other.strip() == '' for one, other in
               zip(source.all_code.split('\n'), source.code.split('\n'))]
        test_lines += sum(cut)
    lengths, private, single = [], 0, []
    names = collections.defaultdict(set)
    for source in sources:
        for found, length in source.functions():
            lengths.append(length)
            if found.group('head').lstrip().startswith('pub') or found.group('name') == 'main':
                continue
            in_trait = re.search(r'\b(?:impl\b[^{;]*\bfor\b|trait\s)[^{;]*\{[^{}]*(?:\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}[^{}]*)*$',
                                 source.code[: found.start()])
            if in_trait:
                continue
            private += 1
            used = len(re.findall(r'\b' + found.group('name') + r'\b', source.code)) - 1
            if used <= 1:
                single.append(f'{source.path} {found.group("name")} {length}')
        for name in TYPE.findall(source.code):
            names[name].add(str(source.path))
    lengths.sort()
    at = lambda part: lengths[min(len(lengths) - 1, int(len(lengths) * part))]
    shared = {name: files for name, files in names.items() if len(files) > 1}
    circles = list(Modules(sources).circles())
    bare = [item for source in sources for item in undocumented(source)]
    wide = [f'{source.path}:{number}' for source in sources for number, line in enumerate(source.text.split('\n'), 1)
            if len(line) > 100 and line.lstrip().startswith('//')]
    whom = [f'{source.path}:{number}' for source in sources for number, line in enumerate(source.text.split('\n'), 1)
            if re.search(r'//.*\b(?:[Ww]hoever|[Ww]ho asks|[Nn]obody|[Ii]t is told|is told)\b', line)]
    public = sum(len(re.findall(r'(?m)^\s*pub\s', source.code)) for source in sources)
    figures = [
        ('files of production code', len(sources)),
        ('lines: production', sum(lines.values()) - test_lines),
        ('lines: tests in src', test_lines),
        ('functions', len(lengths)),
        ('function length p50 / p90 / p99 / max', f'{statistics.median_low(lengths)} / {at(.9)} / {at(.99)} / {lengths[-1]}'),
        ('type names in more than one file', len(shared)),
        ('private functions used at most once in their file', f'{len(single)} of {private}'),
        ('  of these with at most 8 lines', sum(int(item.split()[-1]) <= 8 for item in single)),
        ('circles between siblings', len(circles)),
        ('`pub` items and fields without docs', f'{len(bare)} of {public}'),
        ('comments over 100 columns', len(wide)),
        ('comments that lean on "whoever", "nobody", "is told"', len(whom)),
    ]
    details = [
        ('type names in more than one file', [f'{name}: {" ".join(sorted(files))}' for name, files in sorted(shared.items())]),
        ('private functions used once', single),
        ('circles', [f'{parent}: {" ".join(circle)}' for parent, circle in circles]),
        ('`pub` without docs', bare),
        ('comments over 100 columns', wide),
        ('comments that lean on pronouns', whom),
    ]
    return figures, details


def crates(root):
    """Crates on normal edges, as `cargo tree` lists them."""
    tree = subprocess.run(['cargo', 'tree', '--locked', '--edges', 'normal', '--prefix', 'none', '--no-dedupe'],
                          cwd=root, capture_output=True, text=True)
    if tree.returncode != 0:
        return 'unknown: ' + tree.stderr.strip().split('\n')[-1]
    return len({line.split(' (')[0] for line in tree.stdout.split('\n') if line})


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument('revision', nargs='?', help='a commit; without it, the working tree')
    options.add_argument('--list', action='store_true', help='name what is counted')
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = ROOT
        if given.revision:
            archive = subprocess.run(['git', 'archive', given.revision], cwd=ROOT, capture_output=True, check=True)
            tarfile.open(fileobj=io.BytesIO(archive.stdout)).extractall(folder, filter='data')
            root = Path(folder)
        figures, details = measure(root)
        figures.append(('crates on normal edges', crates(root)))
    width = max(len(name) for name, _ in figures)
    for name, value in figures:
        print(f'{name:<{width}}  {value}')
    if given.list:
        for name, items in details:
            print(f'\n== {name} ({len(items)})')
            for item in items:
                print(item)


if __name__ == '__main__':
    sys.exit(main())
