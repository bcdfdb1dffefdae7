"What the documentation is made of: names read from the code, diagrams of its imports, and checks of both"
import ast
import json
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ('apidocs', 'docs', 'drawing', 'gates', 'house', 'layers', 'notebooks', 'public', 'symbols')


@pytest.fixture
def tool(monkeypatch):
    "Import one of the scripts in .ci, with its siblings in reach"
    monkeypatch.syspath_prepend(ROOT/'.ci')
    yield import_module
    for name in TOOLS: sys.modules.pop(name, None)


MODULE = '''
__all__ = ['LIMIT', 'count', 'Box', 'Round']
LIMIT = 3 # Most of them
def count(
    what:str|None, # Which ones
    *,
    least:int=1, # Fewest
    # Said above,
    # on two lines
    most:int=9,
    **options, # For `other`
)->int: # How many
    "Count them"
    return 1
class Box:
    "A box"
    def __init__(self, side:float=1.): self.side = side # No docment of `side`: it is the return's line
    def area(self)->float: # Square units
        "Its area"
        return self.side**2
    def _hidden(self): pass
class Round(Box):
    def area(self): return 3*self.side**2
def private(): pass
'''


@pytest.fixture
def names(tool, tmp_path):
    (tmp_path/'m.py').write_text(MODULE)
    return tool('symbols').read_symbols(tmp_path/'m.py')


def test_names_are_read(names):
    assert list(names) == ['LIMIT', 'count', 'Box', 'Round']
    assert names['LIMIT'].doc == 'Most of them' and names['count'].doc == 'Count them'
    found = [(p.name, p.type, p.default, p.text, p.keyword) for p in names['count'].parameters]
    assert found == [('what', 'str|None', '', 'Which ones', False), ('least', 'int', '1', 'Fewest', True),
                     ('most', 'int', '9', 'Said above, on two lines', True),
                     ('**options', '', '', 'For `other`', False)]
    assert (names['count'].returns.type, names['count'].returns.text) == ('int', 'How many')
    assert [m.name for m in names['Box'].methods] == ['Box.area']
    # A method that a class takes over keeps what was said of it
    assert names['Round'].methods[0].returns.text == 'Square units'


def test_tables_show_what_was_read(names, tool):
    pytest.importorskip('nbdev', reason="nbdev comes with the dev extra")
    apidocs = tool('apidocs')
    known = apidocs.Names(ROOT, 'https://example.org/blob/main')
    text = apidocs.describe(names['count'], 'snakeid/m.py', known)
    assert '### count {#count .symbol}' in text and 'https://example.org/blob/main/snakeid/m.py#L4' in text
    assert 'count(what, *, least=1, most=9, **options)' in text
    assert '| `what` | <code>str<wbr>&#124;None</code> |  | Which ones |' in text
    assert '| *returns* | `int` |  | How many |' in text
    assert apidocs.plain('a_b *c* `d_e` <f>') == r'a\_b \*c\* `d_e` &lt;f&gt;'
    assert known.link('`make_rng` and `nothing`', 'api/data.clean.html') \
        == '[`make_rng`](../api/core.html#make_rng) and `nothing`'
    # A word that other libraries use too is ours only inside its package
    assert known.link('`Figure`', 'api/report.collection.html') == '`Figure`'
    assert known.link('`Figure`', 'api/samples.pose.html') == '[`Figure`](../api/samples.figure.html#figure)'
    assert known.link('[`make_rng`](x) `make_rng()`', 'api/core.html') == '[`make_rng`](x) [`make_rng()`](#make_rng)'


def test_diagrams_say_what_the_code_imports(tool):
    "Mermaid and SVG have the same lines, and these are the imports"
    house = tool('house')
    found = house.read_house(ROOT)
    assert len(found) > 90 and 'data.manifest' in found['data.clean'].imports and found['core'].imports == []
    for name in ('data.clean', 'predict.batch', 'cli'):      # once more, by another way
        source = (ROOT/'snakeid'/Path(*name.split('.')).with_suffix('.py')).read_text()
        lines = re.findall(r'^\s*from (\.+|snakeid\.)([\w.]+) import', source, re.M)
        package = name.rpartition('.')[0]
        wanted = {f'{package}.{m}' if dots == '.' and package else m for dots, m in lines}
        assert set(found[name].imports) == wanted
    for room in sorted({m.room for m in found.values()}):
        text, svg = house.mermaid_room(found, room), house.svg_room(found, room)
        own = [m for m in found.values() if m.room == room]
        inside = {(m.name, o) for m in own for o in m.imports if o.split('.')[0] == room}
        drawn = set(re.findall(r'^  (\w+) --> (\w+)$', text, re.M))
        assert {(a.replace('.', '_'), b.replace('.', '_')) for a, b in inside} <= drawn
        assert all(f'href="../{m.page}"' in svg or f'href="../house/{m.name}.html"' in svg for m in own)
        if len(own) > 1: assert svg.count('<path') == len(inside) and svg.count('<rect') == len(own)
    assert house.mermaid_house(found).count('-->') == len(house.room_edges(found))


def test_pages_of_the_house(tool, tmp_path):
    "Quarto gets Mermaid, smalldocs the same as SVG, and neither loads anything"
    house = tool('house')
    for quarto in (True, False):
        pages = house.write_house(tmp_path, ROOT, quarto)
        texts = {page: (tmp_path/page).read_text(encoding='utf-8') for page in pages}
        assert pages[0] == 'house/index.qmd' and 'house/data.qmd' in pages
        for text in texts.values():
            assert ('```{mermaid}' in text, '<svg' in text) == (quarto, not quarto) and 'flowchart TD' in text
            assert not re.search(r'(src|href)="?https?:', text)
        listed = ''.join(texts.values())
        assert all(f'](../{m.page})' in listed for m in house.read_house(ROOT).values())


def test_boxes_do_not_lie_on_each_other(tool):
    drawing, house = tool('drawing'), tool('house')
    found = house.read_house(ROOT)
    for svg in [house.svg_house(found), *(house.svg_room(found, room) for room in ('data', 'predict', 'samples'))]:
        places = re.findall(r'<rect x="(-?\d+)" y="(\d+)" width="(\d+)"', svg)
        rows = {}
        for x, y, w in places: rows.setdefault(y, []).append((int(x), int(w)))
        for row in rows.values():
            row.sort()
            assert all(x + w < other for (x, w), (other, _) in zip(row, row[1:]))
        assert min(int(x) for x, *_ in places) >= 0 and drawing.BOX


def test_the_site_is_checked(tool, tmp_path):
    pytest.importorskip('nbdev', reason="nbdev comes with the dev extra")
    docs = tool('docs')
    (tmp_path/'a.html').write_text('<h1 id="top">a</h1><a href="b.html#there">b</a><img src="b.png" alt="b">')
    (tmp_path/'b.html').write_text('<p id="there">b</p>')
    (tmp_path/'b.png').write_bytes(b'')
    assert docs.check_site(tmp_path) == []
    (tmp_path/'a.html').write_text('<a href="b.html#gone">b</a><a href="c.html">c</a><a href="#no">no</a>'
                                   '<img src="b.png">'
                                   '<script src="https://cdn.example.org/katex.js"></script>'
                                   '<a href="https://example.org">fine</a>')
    (tmp_path/'s.css').write_text('@import url("https://fonts.example.org/a?b;c"); p { color: red }')
    found = docs.check_site(tmp_path)
    assert len(found) == 6 and all(part in ' '.join(found) for part in (
        'b.html#gone: no such place', 'c.html leads nowhere', '#no: no such place', 'loads https://cdn',
        'without words', 's.css: loads'))
    assert 'in Unicode' in ' '.join(found)
    docs.stay_home(tmp_path)
    assert (tmp_path/'s.css').read_text().strip() == 'p { color: red }'


# ---- everything public is explained

@pytest.fixture
def library(tool, tmp_path):
    "Write a library of one module and its notebook, and check it"
    def _library(exported, *cells, names):
        source = f"__all__ = {names!r}\n{exported}"
        (tmp_path/'snakeid').mkdir(exist_ok=True)
        (tmp_path/'snakeid'/'m.py').write_text(source)
        (tmp_path/'nbs'/'api').mkdir(parents=True, exist_ok=True)
        (tmp_path/'settings.ini').write_text('[DEFAULT]\ntst_flags = slow\n')
        texts = ['#| default_exp m', f'#| export\n{exported}', *cells]
        made = [dict(cell_type='code', source=[text], outputs=[], metadata={}) for text in texts]
        (tmp_path/'nbs'/'api'/'10_m.ipynb').write_text(json.dumps(dict(cells=made, metadata={}, nbformat=4)))
        return tool('public').check_public(tmp_path)
    return _library


GOOD = 'def f(\n    x:int, # A number\n)->int: # Its double\n    "Double it"\n    return 2*x\n'


def test_what_is_explained(library):
    problems, counts = library(GOOD, 'assert f(2) == 4', names=['f'])
    assert problems == [] and counts.startswith('100% of 1 public names') and 'with 1 arguments' in counts


@pytest.mark.parametrize('exported, cell, missing', [
    (GOOD.replace(' # A number', ''), 'f(2)', 'a docment for x'),
    (GOOD.replace('x:int', 'x'), 'f(2)', 'a type for x'),
    (GOOD.replace(' # Its double', ''), 'f(2)', 'a docment for what it returns'),
    (GOOD.replace('->int', ''), 'f(2)', 'a type for what it returns'),
    (GOOD.replace('    "Double it"\n', ''), 'f(2)', 'a docstring'),
    (GOOD, '', 'an example that runs'),
    (GOOD, '#| eval: false\nf(2)', 'an example that runs'),
    (GOOD, '#| slow\nf(2)', 'an example that runs'),
    (GOOD.replace('def f', '#| hide\ndef f'), 'f(2)', 'its place on a page')])
def test_what_is_not_explained(library, exported, cell, missing):
    problems, counts = library(exported, cell, names=['f'])
    assert problems == [f'm.f lacks {missing}'] and counts.startswith('0.0% of 1')


def test_classes_count_where_they_are_made(library):
    both = 'class A:\n    "An A"\ndef f()->A: # One\n    "Make one"\n    return A()\n'
    assert library(both, 'f()', names=['A', 'f'])[0] == []
    lacking = [f'm.{name} lacks an example that runs' for name in 'Af']
    assert library(both, 'pass', names=['A', 'f'])[0] == lacking


def test_the_library_is_explained(tool):
    problems, counts = tool('public').check_public(ROOT)
    assert problems == [], counts
    listed = sum(len(ast.literal_eval(re.search(r'^__all__ = (\[.*?\])', p.read_text(), re.S | re.M)[1]))
                 for p in (ROOT/'snakeid').rglob('*.py') if p.stem[0] != '_')
    assert int(re.search(r'of (\d+) public', counts)[1]) >= listed
