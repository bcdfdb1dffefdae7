"""Read what a module of the library offers, without importing it: names, types, defaults and docments.

The pages of the documentation and the check that nothing public is undocumented see the same.
"""
import ast
import io
import tokenize
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

DEFINED = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Parameter:
    "An argument, a field, or what is returned"
    name:str # As it is written, with its stars; 'return' for what is returned
    type:str='' # As it is written; empty where there is none
    default:str='' # As it is written; empty where there is none
    text:str='' # Its docment; empty where there is none
    keyword:bool=False # Can it be given by its name only?


@dataclass
class Symbol:
    "A function, class, method or constant"
    name:str # With its class, such as 'Cascade.save'
    kind:str # 'function', 'class', 'method', 'property' or 'constant'
    line:int # Where it begins in its module
    source:str # Its source
    doc:str='' # Its docstring
    signature:str='' # What stands before the arguments, such as 'def' or 'async def'; a class's bases
    parameters:list[Parameter]=field(default_factory=list) # Arguments without `self`, or fields
    returns:Parameter|None=None # None where nothing is annotated
    methods:list['Symbol']=field(default_factory=list) # Public ones of a class
    yields:bool=False # Does it give back something, whether or not it is annotated?


def read_comments(
    source:str, # A module
)->dict[int, tuple[str, bool]]: # By line: the comment without its mark, and whether it stands alone on its line
    "Collect the comments of a module"
    found = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT: continue
        found[token.start[0]] = token.string.lstrip('#').strip(), not token.line[:token.start[1]].strip()
    return found


def comment_of(
    node:ast.AST, # An argument, or the annotation of a field or of what is returned
    last:int, # Line on which its source ends, with its default
    comments:dict, # From `read_comments`
    shared:bool=False, # Does another argument end on the same line?
)->str: # Empty where there is none
    "Find a docment: on the line, or on lines of its own right above"
    if last in comments and not comments[last][1] and not shared: return comments[last][0]
    above, line = [], node.lineno - 1
    while line in comments and comments[line][1]:
        above.insert(0, comments[line][0])
        line -= 1
    return ' '.join(above)


@lru_cache(2)
def split_lines(
    source:str, # A module
)->list[bytes]: # Its lines, as Python counts them
    "The lines of a module, as bytes: Python counts columns in bytes"
    return source.encode('utf-8').splitlines(keepends=True)


def cut_out(
    node:ast.AST, # Part of a module
    source:str, # The module
)->str: # As it is written
    "The source of a part; `ast.get_source_segment` splits the module anew for each"
    lines = split_lines(source)[node.lineno-1:node.end_lineno]
    lines[-1] = lines[-1][:node.end_col_offset]
    lines[0] = lines[0][node.col_offset:]
    return b''.join(lines).decode('utf-8')


def text_of(
    node:ast.AST|None, # An expression
    source:str, # The module it stands in
)->str: # On one line
    "What is written there"
    return ' '.join(cut_out(node, source).split()) if node is not None else ''


def read_parameters(
    node:DEFINED, # A function
    source:str, # Its module
    comments:dict, # From `read_comments`
    method:bool=False, # Leave out the first argument?
)->list[Parameter]: # In the order in which they stand
    "Arguments of a function, with their docments"
    args = node.args
    positional = [*args.posonlyargs, *args.args]
    given = [(a, None, '') for a in positional[:len(positional)-len(args.defaults)]]
    given += [(a, d, '') for a, d in zip(positional[len(positional)-len(args.defaults):], args.defaults)]
    if args.vararg: given.append((args.vararg, None, '*'))
    given += [(a, d, '') for a, d in zip(args.kwonlyargs, args.kw_defaults)]
    if args.kwarg: given.append((args.kwarg, None, '**'))
    keywords = {a.arg for a in args.kwonlyargs}
    ends = [(d or a).end_lineno for a, d, _ in given]
    if node.returns is not None: ends.append(node.returns.end_lineno)
    found = [Parameter(stars + a.arg, text_of(a.annotation, source), text_of(d, source),
                       comment_of(a, end, comments, ends.count(end) > 1), a.arg in keywords)
             for (a, d, stars), end in zip(given, ends)]
    static = any(getattr(d, 'id', '') == 'staticmethod' for d in node.decorator_list)
    return found[1:] if method and not static else found


def read_returns(
    node:DEFINED, # A function
    source:str, # Its module
    comments:dict, # From `read_comments`
)->Parameter|None: # None where nothing is annotated
    "What a function returns, with its docment"
    if node.returns is None: return None
    end = node.returns.end_lineno
    # `def f(x:int)->str: # ...` says what is returned
    alone = all(a.lineno != end for a in ast.walk(node.args) if isinstance(a, ast.arg) and a.arg not in ('self', 'cls'))
    text = comment_of(node.returns, end, comments)
    return Parameter('return', text_of(node.returns, source), '', text if alone or end in comments else '')


def gives_back(
    node:DEFINED, # A function
)->bool: # Is there a `return` of something, or a `yield`?
    "Whether a function gives back something, those inside it left aside"
    stack = list(node.body)
    while stack:
        part = stack.pop()
        if isinstance(part, ast.Yield|ast.YieldFrom): return True
        if isinstance(part, ast.Return) and part.value is not None:
            if not (isinstance(part.value, ast.Constant) and part.value.value is None): return True
        if not isinstance(part, DEFINED|ast.Lambda|ast.ClassDef): stack += ast.iter_child_nodes(part)
    return False


def read_function(
    node:DEFINED, # A function or method
    source:str, # Its module
    comments:dict, # From `read_comments`
    owner:str='', # Its class
)->Symbol: # With its arguments
    "Describe a function"
    decorators = [getattr(d, 'id', '') or getattr(d, 'attr', '') for d in node.decorator_list]
    kind = 'function' if not owner else 'property' if {'property', 'cached_property'} & set(decorators) else 'method'
    return Symbol(
        f'{owner}.{node.name}' if owner else node.name, kind, node.lineno, cut_out(node, source),
        ast.get_docstring(node) or '', 'async def' if isinstance(node, ast.AsyncFunctionDef) else 'def',
        read_parameters(node, source, comments, bool(owner)), read_returns(node, source, comments),
        yields=gives_back(node))


def read_class(
    node:ast.ClassDef, # A class
    source:str, # Its module
    comments:dict, # From `read_comments`
)->Symbol: # With its fields or the arguments of `__init__`, and its public methods
    "Describe a class"
    members = [read_function(n, source, comments, node.name) for n in node.body if isinstance(n, DEFINED)]
    init = next((m for m in members if m.name.endswith('.__init__')), None)
    made = [getattr(d, 'id', '') or getattr(getattr(d, 'func', None), 'id', '') for d in node.decorator_list]
    bases = [text_of(base, source) for base in node.bases]
    fields = []
    if init is None and ('dataclass' in made or 'NamedTuple' in bases):
        for part in node.body:
            if not isinstance(part, ast.AnnAssign) or part.target.id.startswith('_'): continue
            fields.append(Parameter(part.target.id, text_of(part.annotation, source), text_of(part.value, source),
                                    comment_of(part, part.end_lineno, comments)))
    public = [m for m in members if not m.name.split('.')[1].startswith('_') or m.name.endswith('.__call__')]
    return Symbol(node.name, 'class', node.lineno, cut_out(node, source), ast.get_docstring(node) or '',
                  ', '.join(bases), init.parameters if init else fields, methods=public)


def read_symbols(
    path:Path, # A module
)->dict[str, Symbol]: # Public ones by name, in the order in which they stand
    "Read what a module offers: the names in its `__all__`"
    source = path.read_text(encoding='utf-8')
    tree, comments, found = ast.parse(source), read_comments(source), {}
    listed = next((ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign)
                   and getattr(n.targets[0], 'id', '') == '__all__'), [])
    for node in tree.body:
        if isinstance(node, DEFINED): symbol = read_function(node, source, comments)
        elif isinstance(node, ast.ClassDef): symbol = read_class(node, source, comments)
        elif isinstance(node, ast.Assign|ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
            for name in names:
                if name not in listed: continue
                found[name] = Symbol(name, 'constant', node.lineno, cut_out(node, source),
                                     comment_of(node, node.end_lineno, comments))
            continue
        else: continue
        if symbol.name in listed: found[symbol.name] = symbol
    for symbol in found.values(): inherit(symbol, found)
    return found


def inherit(
    symbol:Symbol, # A class; changed in place
    others:dict[str, Symbol], # Those of its module, by name
):
    "Let an argument that a class takes from another one of its module have the type and docment that it has there"
    if symbol.kind != 'class': return
    for base in filter(None, (others.get(name.strip()) for name in symbol.signature.split(','))):
        inherit(base, others)
        theirs = {m.name.split('.')[1]: m for m in base.methods}
        pairs = [(symbol, base), *((m, theirs.get(m.name.split('.')[1])) for m in symbol.methods)]
        for own, other in pairs:
            if other is None: continue
            known = {p.name: p for p in other.parameters}
            for p in own.parameters:
                if p.name in known: p.type, p.text = p.type or known[p.name].type, p.text or known[p.name].text
            own.returns = own.returns or other.returns


def find_modules(
    root:Path, # Top of the checkout
    library:str='snakeid', # Its package
)->dict[str, Path]: # Such as {'data.clean': Path}, in the order of their names
    "List the modules of the library"
    paths = [p.relative_to(root/library) for p in sorted((root/library).rglob('*.py'))]
    paths = [p for p in paths if not p.stem.startswith('_')]
    return {'.'.join(p.with_suffix('').parts): root/library/p for p in paths}
