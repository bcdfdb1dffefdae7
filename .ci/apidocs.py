"""Names with tables of their arguments, links to them, and words for pictures, in the notebooks that become pages.

Processors of nbdev's, in place of those that run the notebooks: nothing is imported, all is read from the modules.
"""
import ast
import re
from html import escape
from pathlib import Path

from execnb.nbio import mk_cell
from nbdev.doclinks import _nbpath2html
from nbdev.process import Processor
from nbdev.processors import FilterDefaults

from notebooks import directives
from symbols import Symbol, find_modules, read_symbols

# A constant longer than this shows its beginning
LINES = 14
# Code in a table's cell that is longer may be broken
LONG = 20
WIDGET = 'application/vnd.jupyter.widget-view+json'


class Names:
    "Every public name of the library, and the place of its description on the site"
    def __init__(
        self,
        root:Path, # Top of the checkout
        source:str, # Where the repository's files are shown, such as 'https://github.com/me/lib/blob/main'
    ):
        self.source, self.modules, self.places = source, {}, {}
        for name, path in find_modules(root).items():
            if name == 'all': continue                   # it repeats the names of the others
            self.modules[name] = read_symbols(path), path.relative_to(root).as_posix()
            for symbol in self.modules[name][0].values():
                for part in (symbol, *symbol.methods):
                    self.places.setdefault(part.name, f'api/{name}.html#{part.name.lower()}')

    def link(
        self,
        text:str, # Markdown
        page:str, # Path of the page it stands on, such as 'api/core.html'
        shown:str|None=None, # A name that is explained right here, and needs no link
    )->str: # With links at the names of the library in backticks
        "Link names to their descriptions"
        up = '../'*page.count('/')
        def _link(match):
            name = match[1].removesuffix('()')
            place = self.places.get(name) or self.places.get(name.removeprefix('snakeid.').rpartition('.')[2]
                                                             if name.startswith('snakeid.') else None)
            if place is None and name.startswith('snakeid.') and name.removeprefix('snakeid.') in self.modules:
                place = f"api/{name.removeprefix('snakeid.')}.html"
            if place is None or name == shown: return match[0]
            file, _, anchor = place.partition('#')
            # Words such as `Figure` and `main` mean something else as often as not: they are known inside their package
            plain_word = '.' not in name and '_' not in name and sum(c.isupper() for c in name) < 2
            if plain_word and package_of(file) != package_of(page): return match[0]
            return f"[{match[0]}]({'#' + anchor if file == page else up + place})"
        # Not where the name is a link already, nor in a fence of code
        parts = re.split(r'(^```.*?^```|\[[^\]\n]*\]\([^)\n]*\))', text, flags=re.S | re.M)
        return ''.join(part if i % 2 else re.sub(r'(?<!`)`([\w.]+(?:\(\))?)`(?!`)', _link, part)
                       for i, part in enumerate(parts))


def package_of(
    page:str, # Path of a page, such as 'api/data.clean.html'
)->str: # Such as 'api/data'
    "The package whose page it is"
    return page.removesuffix('.html').rpartition('.')[0] or page


def plain(
    text:str, # A comment or docstring
)->str: # Markdown that shows it as it is
    "Escape what Markdown would take for its own, but for code in backticks"
    parts = re.split(r'(`[^`]+`)', text)
    return ''.join(code(p[1:-1]) if i % 2 else re.sub(r'([\\*_\[\]#~^$|{}])', r'\\\1', escape(p, quote=False))
                   for i, p in enumerate(parts))


def code(
    text:str, # Python, on one line
)->str: # Markdown for a table's cell
    "Code in a table: a `|` in backticks would end the cell, in some renderers even behind a backslash"
    if not text: return ''
    if len(text) <= LONG and not re.search(r'[|`]', text): return f'`{text}`'
    text = re.sub(r'[|`*_\\\[\]$~^]', lambda m: f'&#{ord(m[0])};', escape(text))
    # Where a long one may be broken: before a `|`, behind a comma, a bracket and a dot
    return '<code>' + re.sub(r'(&#124;)', r'<wbr>\1', re.sub(r'(,|&#91;|\.)', r'\1<wbr>', text)) + '</code>'


def call_line(
    symbol:Symbol, # A function, method or class
)->str: # Python; on several lines where one would be long
    "How it is called, without types and comments"
    given, starred = [], False
    for p in symbol.parameters:
        if p.name.startswith('*') and not p.name.startswith('**'): starred = True
        if p.keyword and not starred:
            given.append('*')
            starred = True
        given.append(f'{p.name}={p.default}' if p.default else p.name)
    line = f"{symbol.name}({', '.join(given)})"
    if len(line) <= 76: return line
    rows, row = [], ''
    for part in given:
        if row and len(row) + len(part) > 70: rows, row = [*rows, row.rstrip()], ''
        row += f'{part}, '
    return '\n    '.join([f'{symbol.name}(', *rows, row.rstrip(' ,')]) + ')'


def describe(
    symbol:Symbol, # A public name
    path:str, # Of its module in the repository
    names:Names, # For the link to the source
    level:int=3, # Of its heading
)->str: # Markdown
    "A heading, how it is called, what it does, and a table of its arguments"
    anchor, where = symbol.name.lower(), f'{names.source}/{path}#L{symbol.line}'
    parts = [f"{'#'*level} {symbol.name} {{#{anchor} .symbol}}", f'[source]({where}){{.source-link}}']
    if symbol.kind == 'constant':
        lines = symbol.source.splitlines()
        text = '\n'.join(lines[:LINES] + (['# …'] if len(lines) > LINES else []))
        return '\n\n'.join([*parts, f'```python\n{text}\n```', *([plain(symbol.doc)] if symbol.doc else [])]) + '\n'
    if symbol.kind != 'property' and (symbol.kind != 'class' or symbol.parameters):
        parts.append(f'```python\n{call_line(symbol)}\n```')
    if symbol.doc: parts.append('\n\n'.join(plain(p) for p in re.split(r'\n\s*\n', symbol.doc)))
    if symbol.kind == 'class' and symbol.signature and symbol.signature != 'NamedTuple':
        parts.append(f"A kind of {', '.join(f'`{base.strip()}`' for base in symbol.signature.split(','))}.")
    rows = [f'| {code(p.name)} | {code(p.type)} | {code(p.default)} | {plain(p.text)} |' for p in symbol.parameters]
    if symbol.returns and symbol.returns.type != 'None':
        rows.append(f'| *returns* | {code(symbol.returns.type)} |  | {plain(symbol.returns.text)} |')
    if rows:
        what = 'field' if symbol.kind == 'class' and not any('def __init__' in line for line in
                                                             symbol.source.splitlines()) else 'argument'
        parts += ['::: {.docments}', '\n'.join([f'| {what} | type | default | details |', '|---|---|---|---|', *rows]),
                  ':::']
    parts += [describe(m, path, names, level + 1) for m in symbol.methods]
    return '\n\n'.join(parts) + '\n'


def defined_names(
    cell, # A cell of a notebook, with nbdev's `parsed_`
)->list[str]: # In the order in which they stand
    "Names that a cell defines at its top level"
    found = []
    for node in cell.parsed_() or []:
        if hasattr(node, 'name'): found.append(node.name)
        elif isinstance(node, ast.Assign|ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found += [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
    return found


class ShowNames(Processor):
    "After each exported cell: what it offers"
    names = None                                         # `Names`, set before a site is built

    def begin(self):
        nb, made = self.nb, []
        module = next((c.directives_['default_exp'][0] for c in nb.cells if 'default_exp' in c.directives_), None)
        symbols, path = self.names.modules.get(module, ({}, ''))
        for cell in nb.cells:
            made.append(cell)
            if cell.cell_type != 'code' or not {'export', 'exports'} & cell.directives_.keys() \
                or 'hide' in cell.directives_: continue
            for name in defined_names(cell):
                if name in symbols: made.append(mk_cell(describe(symbols[name], path, self.names), 'markdown'))
        nb.cells = made
        for i, cell in enumerate(nb.cells): cell.idx_ = i


class LinkNames(Processor):
    "In text: names of the library lead to their descriptions"
    names = None

    def cell(self, cell):
        page = page_of(self.nb)
        if cell.cell_type == 'markdown': cell.source = self.names.link(cell.source, page)


class DescribePictures(Processor):
    "Pictures get words for people who do not see them, from the text before them; widgets a line in their place"
    def begin(self): self.said = getattr(self.nb, 'frontmatter_', {}).get('title', '')

    def cell(self, cell):
        if cell.cell_type == 'markdown':
            said = last_sentence(cell.source)
            if said: self.said = said
        if cell.cell_type != 'code': return
        for output in cell.outputs:
            data = output.get('data', {})
            if WIDGET in data and 'text/html' not in data and not any(k.startswith('image/') for k in data):
                data.pop('text/plain', None)
                data['text/html'] = '<p class="widget-note">Here a running notebook shows a widget.</p>'
        pictures = any(k.startswith('image/') for o in cell.outputs for k in o.get('data', {}))
        if pictures and 'fig-alt' not in directives(cell.source):
            words = self.said.replace('\\', '').replace('"', "'")
            cell.source = f'#| fig-align: left\n#| fig-alt: "Picture made by the code above: {words}"\n{cell.source}'


def page_of(
    nb, # A notebook
)->str: # Such as 'api/data.clean.html'
    "Path of a notebook's page on the site"
    path = Path(nb.path_)
    return '/'.join([*path.parts[path.parts.index('nbs') + 1:-1], _nbpath2html(Path(path.name)).name])


def last_sentence(
    text:str, # Markdown
)->str: # Plain text; empty where there is none
    "The last sentence of a text, which most often announces what comes next"
    text = re.sub(r'^```.*?^```|^:::.*$|^\|.*$|^---$|<[^>]+>', '', text, flags=re.S | re.M)
    text = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', text)
    text = re.sub(r'^#+\s*|[*_`]|\{[^}]*\}', '', text, flags=re.M)
    blocks = [b for b in re.split(r'\n\s*\n', text.strip()) if b.strip()]
    if not blocks: return ''
    parts = re.split(r'(?<=[.!?:])\s+', ' '.join(blocks[-1].split()))
    return parts[-1].rstrip(':')[:160]


class SiteDefaults(FilterDefaults):
    "nbdev's processors, without those that run the notebooks"
    def base_procs(self):
        kept, out = super().base_procs(), []
        for proc in kept:
            name = proc.__name__
            if name == 'add_show_docs': out.append(ShowNames)
            elif name == 'add_links': out += [DescribePictures, LinkNames]
            elif name not in ('exec_show_docs', 'clean_show_doc', 'mv_exports', 'add_fold'): out.append(proc)
        return out
