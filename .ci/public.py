"""Check that everything public is explained: `python .ci/public.py [ROOT]`.

Each public name of each module is shown on its module's page, says what it is, gives each argument (and what it
returns) a type and a docment, and is used in a cell of its notebook, or of a tutorial, that the tests run.
"""
import ast
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from notebooks import ROOT, directives, find_notebooks, is_skipped, read_notebook, skip_flags
from symbols import Symbol, find_modules, read_symbols

# Methods that fastai and PyTorch call while a network learns or photos are read: running those is their example
CALLED = re.compile(r'(before|after)_\w+|forward|activation|encodes|decodes|do_item|get_idxs|sample|randomize|subset'
                    r'|datasets|state_dict|load_state_dict|__call__')
# Methods of transforms: to fastai a type there is a rule of what they are applied to, and of what becomes of the result
UNTYPED = ('encodes', 'decodes')
# Functions that give back nothing that needs words
NOTHING = ('None', 'Iterator[None]')


@dataclass
class Notebook:
    "What a notebook shows and uses"
    shown:set[str]=field(default_factory=set) # Names that its exported cells define, hidden cells left out
    used:set[str]=field(default_factory=set) # Names in cells that the tests run; '.name' for what stands behind a dot


def read_notebooks(
    root:Path, # Top of the checkout
)->tuple[dict[str, Notebook], set[str]]: # By module; and what the tutorials use
    "Read what notebooks show and use"
    flags, found, tutorials = skip_flags(root), {}, set()
    for path in find_notebooks(root):
        own, module = Notebook(), None
        for cell in read_notebook(path)['cells']:
            if cell['cell_type'] != 'code': continue
            given = directives(cell['source'])
            module = given.get('default_exp', module)
            try: tree = ast.parse(cell['source'])
            except SyntaxError: continue                 # magics
            if given.keys() & {'export', 'exports'} and 'hide' not in given:
                for node in tree.body:
                    if hasattr(node, 'name'): own.shown.add(node.name)
                    elif isinstance(node, ast.Assign|ast.AnnAssign):
                        own.shown |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            if given.keys() & {'export', 'exports', 'exporti'} or is_skipped(cell['source'], flags): continue
            for node in ast.walk(tree):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load): own.used.add(node.id)
                elif isinstance(node, ast.Attribute): own.used.add(f'.{node.attr}')
        if module: found[module] = own
        elif path.parent.name == 'tutorials': tutorials |= own.used
    return found, tutorials


def lacks(
    symbol:Symbol, # A public name
)->list[str]: # What is not said; empty when all is well
    "Docstring, types and docments that a name lacks"
    found = []
    if symbol.kind == 'constant': return [] if symbol.doc else ["a comment that says what it is"]
    short = symbol.name.rpartition('.')[2]
    if short in UNTYPED: return [] if symbol.doc else ["a docstring"]
    if not symbol.doc and not CALLED.fullmatch(short): found.append("a docstring")
    for p in symbol.parameters:
        # What is handed on by name has many types; whose it is stands in the docment
        if not p.type and not p.name.startswith('**'): found.append(f"a type for {p.name}")
        if not p.text: found.append(f"a docment for {p.name}")
    if symbol.kind in ('function', 'method', 'property'):
        if symbol.returns is None and symbol.yields: found.append("a type for what it returns")
        elif symbol.returns and symbol.returns.type not in NOTHING and not symbol.returns.text:
            found.append("a docment for what it returns")
    return found


def has_example(
    symbol:Symbol, # A public name
    used:set[str], # Names in cells that run
    module:dict[str, Symbol], # All public names of its module
    asked:tuple[str, ...]=(), # Names that are being looked at, for classes that name each other
)->bool: # Is it used?
    "Does some cell that runs show it at work?"
    short = symbol.name.rpartition('.')[2]
    if symbol.kind in ('method', 'property'): return f'.{short}' in used or bool(CALLED.fullmatch(short))
    if symbol.kind != 'class' or symbol.name in used: return symbol.kind == 'constant' or symbol.name in used
    # A class also where another one that is used is made of it, or a function or method that is used returns it
    named = re.compile(rf'\b{symbol.name}\b')
    others = [part for other in module.values() if other.name not in (symbol.name, *asked)
              for part in (other, *other.methods)]
    others = [o for o in others if o.kind != 'constant' and named.search(' '.join(
        [o.signature, o.returns.type if o.returns else '', *(p.type for p in o.parameters)]))]
    return any(has_example(other, used, module, (*asked, symbol.name)) for other in others)


def check_public(
    root:Path=ROOT, # Top of the checkout
)->tuple[list[str], str]: # One line for each name that lacks something; the counts
    "Check all public names"
    notebooks, tutorials = read_notebooks(root)
    problems, names, arguments, told = [], 0, 0, {}
    for module, path in find_modules(root).items():
        symbols, own = read_symbols(path), notebooks.get(module)
        if own is None:
            if symbols: problems.append(f"{module}: no notebook makes it")
            continue
        used = own.used | tutorials
        for symbol in symbols.values():
            for part in (symbol, *symbol.methods):
                missing = lacks(part)
                if part is symbol and part.name not in own.shown: missing.append("its place on a page")
                if not has_example(part, used, symbols): missing.append("an example that runs")
                if missing: problems.append(f"{module}.{part.name} lacks {', '.join(missing)}")
                names, arguments = names + 1, arguments + len(part.parameters)
                told[part.kind] = told.get(part.kind, 0) + 1
    share = f"{1 - len(problems)/names:.1%}" if problems else '100%'
    kinds = ', '.join(f"{n} {'properties' if kind == 'property' else kind + ('es' if kind == 'class' else 's')}"
                      for kind, n in told.items())
    return problems, f"{share} of {names} public names are explained ({kinds}), with {arguments} arguments"


if __name__ == '__main__':
    found, counts = check_public(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT)
    print('\n'.join([*found, counts]))
    sys.exit(bool(found))
