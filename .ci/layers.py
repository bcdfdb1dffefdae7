"""Check that imports inside `snakeid` only point down: `python .ci/layers.py [ROOT]`.

The floors are those of the design: a module may import modules of lower floors, and, inside its own package, modules
whose notebook has a lower number. Siblings, which share a floor, do not import each other.
"""
import ast
import json
import re
import sys
from pathlib import Path

LIBRARY = 'snakeid'
# From top to bottom; names on one floor are siblings. A new package or module gets its place here
FLOORS = (
    ('all',),
    ('cli',),
    ('explore', 'export', 'scale', 'runs'),
    ('report',),
    ('predict',),
    ('train',),
    ('samples',),
    ('data', 'models', 'metrics', 'scores'),
    ('core',),
)
# Modules that may not be imported below a floor: that floor, and what nothing below it does
PARSERS = ('argparse', 'optparse', 'getopt', 'click', 'typer', 'fire', 'fastcore.script')
RESERVED = {**dict.fromkeys(PARSERS, ('cli', 'parses arguments')), 'ipywidgets': ('explore', 'shows widgets'),
            'anywidget': ('explore', 'shows widgets')}


def floor_of(
    name:str, # A module's name without the library's, such as 'data.clean'
)->int|None: # Its floor, counted from the top; None where no floor lists it
    "Find the floor of a module by the first part of its name"
    room = name.split('.')[0]
    return next((i for i, rooms in enumerate(FLOORS) if room in rooms), None)


def notebook_numbers(
    root:Path, # Top of the checkout
)->dict[str, int]: # Number of the notebook that makes each module, such as {'data.clean': 15}
    "Read which notebook makes which module"
    numbers = {}
    for path in sorted((root/'nbs'/'api').glob('*.ipynb')):
        number, rest = re.match(r'(\d*)_?(.*)', path.stem).groups()
        sources = (''.join(cell['source']) for cell in json.loads(path.read_text(encoding='utf-8'))['cells'])
        named = (re.search(r'^#\|\s*default_exp\s+(\S+)', source, flags=re.M) for source in sources)
        name = next((match[1] for match in named if match), rest)
        if number: numbers[name] = int(number)
    return numbers


def imported(
    tree:ast.AST, # A parsed module
    package:str, # Full name of the package the module lies in, for relative imports
    modules:set[str], # Full names of all modules of the library
)->list[tuple[int, str]]: # Line and full name of each module imported, wherever in the module that is
    "List all imports, also those inside functions and those by `import_module('...')`"
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import): found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package.split('.')
            base = '.'.join(parts[:len(parts)-node.level+1]) if node.level else ''
            base = '.'.join(part for part in (base, node.module) if part)
            # `from snakeid.data import clean` imports a module, `from snakeid.data.clean import flag_broken` a name
            inner = [f'{base}.{alias.name}' for alias in node.names if f'{base}.{alias.name}' in modules]
            only_modules = len(inner) == len(node.names)
            found += [(node.lineno, name) for name in inner] + ([] if only_modules else [(node.lineno, base)])
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, 'id', '')
            name = node.args[0].value
            if called in ('import_module', '__import__') and isinstance(name, str): found.append((node.lineno, name))
    return found


def check_layers(
    root:Path, # Top of the checkout
)->list[str]: # One line for each import or module that breaks the rules; empty when all is well
    "Check every module of the library in `root` against the floors"
    library, numbers, problems = root/LIBRARY, notebook_numbers(root), []
    paths = {path: path.relative_to(root).with_suffix('').parts for path in sorted(library.rglob('*.py'))}
    paths = {path: parts for path, parts in paths.items() if parts[-1] != '_modidx'}
    full_names = {'.'.join(parts[:-1] if parts[-1] == '__init__' else parts) for parts in paths.values()}
    rooms = {parts[1] for parts in paths.values() if len(parts) > 2 or parts[-1] != '__init__'}

    for path, parts in paths.items():
        where, is_init = path.relative_to(root).as_posix(), parts[-1] == '__init__'
        package = '.'.join(parts[:-1])
        name = '.'.join(parts[1:-1] if is_init else parts[1:])
        imports = imported(ast.parse(path.read_text(encoding='utf-8')), package, full_names)
        ours = [(line, other) for line, other in imports if other == LIBRARY or other.startswith(f'{LIBRARY}.')]
        if is_init:
            # It runs before every module of its package, so what it imports would bind them all
            problems += [f"{where}:{line}: imports {other}: keep `__init__.py` empty, import from the modules"
                         for line, other in ours]
            continue
        room = name.split('.')[0]
        if (floor := floor_of(name)) is None:
            problems.append(f"{where}: {name!r} stands on no floor: add {room!r} to FLOORS in .ci/layers.py")
            continue

        for line, other in imports:
            for reserved, (lowest, what) in RESERVED.items():
                if (other == reserved or other.startswith(f'{reserved}.')) and floor > floor_of(lowest):
                    problems.append(f"{where}:{line}: imports {other}: nothing below `{lowest}` {what}")

        for line, other in ours:
            target = other.removeprefix(LIBRARY).lstrip('.')
            if not target: continue # `snakeid` itself holds the version and nothing else
            below, here = floor_of(target), f"{where}:{line}: {name} imports {target}"
            other_room = target.split('.')[0]
            if below is None:
                # Said once, where that module lies, and here only if it lies nowhere
                if other_room not in rooms:
                    problems.append(f"{here}, which stands on no floor: add {other_room!r} to FLOORS in .ci/layers.py")
            elif room == other_room:
                problems += [f"{here}{why}" for why in same_package(name, target, numbers)]
            elif below < floor:
                problems.append(f"{here}, which lies above it: hand it in as an argument, or move the code")
            elif below == floor:
                problems.append(f"{here}, its sibling on the same floor: move what they share to a lower floor")
    return sorted(set(problems))


def same_package(
    name:str, # The importing module
    target:str, # The imported module, in the same package
    numbers:dict[str, int], # Number of the notebook that makes each module
)->list[str]: # Why `name` may not import `target`; empty when it may
    "Inside a package the notebooks' numbers are the floors"
    if name == target: return [": a module needs not import itself"]
    if '.' not in target: return [": name the module, not its package"]
    missing = [module for module in (name, target) if module not in numbers]
    if missing: return [f", but no numbered notebook in nbs/api makes {module}" for module in missing]
    if numbers[target] < numbers[name]: return []
    return [f", whose notebook has number {numbers[target]}, not below {numbers[name]}"]


if __name__ == '__main__':
    found = check_layers(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]))
    print('\n'.join(found) or 'Imports only point down')
    sys.exit(bool(found))
