"""Draw who imports whom: `python .ci/house.py [ROOM]` prints the Mermaid text of a room, or of the whole house.

Everything is read from the code. The documentation gets a page a floor from here, with diagrams as Mermaid where Quarto
renders them, and as SVG where no script from outside may be loaded.
"""
import ast
import re
import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path

from drawing import Box, draw_boxes
from layers import FLOORS, LIBRARY, floor_of, imported, notebook_numbers
from notebooks import ROOT, directives, find_notebooks, read_notebook
from symbols import find_modules

# What the floors are for, by their first room
ABOUT = {
    'all': "Every public name by one import, for notebooks.",
    'cli': "The command line: the only place where arguments are parsed.",
    'explore': "What people look at and click on, and what goes on in runs of many steps.",
    'report': "What was found, told per species and per place.",
    'predict': "Answers for photos: votes, doubts, two stages, tables that are written part by part.",
    'train': "Losses, recipes, callbacks and the fit itself.",
    'samples': "Drawn photos, seasons and broken files, to try everything on.",
    'data': "The collection as a table, the networks, and numbers about both.",
    'core': "Errors, seeds and optional packages: what everybody needs.",
}


@dataclass
class Module:
    "One module of the library"
    name:str # Without the library's, such as 'data.clean'
    imports:list[str] # Other modules of the library that it imports
    number:int=0 # Of its notebook
    title:str='' # Of its notebook
    about:str='' # Subtitle of its notebook

    @property
    def room(self)->str: return self.name.split('.')[0]
    @property
    def short(self)->str: return self.name.split('.')[-1]
    @property
    def page(self)->str: return f'api/{self.name}.html'


def read_house(
    root:Path=ROOT, # Top of the checkout
)->dict[str, Module]: # By name, those of a package in the order of their notebooks
    "Read from the code which module imports which, and from the notebooks what each is for"
    paths, numbers = find_modules(root), notebook_numbers(root)
    full = {LIBRARY, *(f'{LIBRARY}.{name}' for name in paths)} | {f'{LIBRARY}.{name.split(".")[0]}' for name in paths}
    heads = {}
    for path in find_notebooks(root):
        nb = read_notebook(path)
        name = next((found['default_exp'] for found in (directives(c['source']) for c in nb['cells'])
                     if 'default_exp' in found), None)
        if name is None: continue
        text = '\n'.join(c['source'] for c in nb['cells'] if c['cell_type'] == 'markdown')
        title, about = re.search(r'^#\s+(.+)$', text, re.M), re.search(r'^>\s+(.+)$', text, re.M)
        heads[name] = title[1].strip() if title else name, about[1].strip() if about else ''
    house = {}
    for name in sorted(paths, key=lambda n: (numbers.get(n, 999), n)):
        package = f'{LIBRARY}.{name}'.rpartition('.')[0]
        found = {other for _, other in imported(ast.parse(paths[name].read_text(encoding='utf-8')), package, full)}
        ours = sorted(other.removeprefix(f'{LIBRARY}.') for other in found if other.startswith(f'{LIBRARY}.'))
        house[name] = Module(name, [o for o in ours if o in paths], numbers.get(name, 0), *heads.get(name, (name, '')))
    return house


def find_floors(
    house:dict[str, Module], # From `read_house`
)->list[tuple[str, ...]]: # Rooms that are there, from the top floor down
    "List the floors, leaving out rooms that are not built"
    there = {m.room for m in house.values()}
    floors = [tuple(room for room in rooms if room in there) for rooms in FLOORS]
    return [rooms for rooms in floors if rooms]


def floor_page(
    room:str, # Such as 'data'
)->str: # Such as 'house/data.html'
    "Name the page of a room's floor: after the first room that the floor was given"
    return f'house/{floor_first(room)}.html'


# ---- Mermaid

def mermaid_house(
    house:dict[str, Module], # From `read_house`
)->str: # Mermaid's text
    "The rooms, floor by floor, and which imports which"
    lines = ['flowchart TD']
    for rooms in find_floors(house):
        lines += [f'  subgraph floor_{rooms[0]}[" "]', '    direction LR', *(f'    {room}["{room}"]' for room in rooms),
                  '  end']
    return '\n'.join([*lines, *(f'  {a} --> {b}' for a, b in room_edges(house))])


def room_edges(
    house:dict[str, Module], # From `read_house`
)->list[tuple[str, str]]: # Importing and imported room, each pair once
    "Which room imports from which"
    return sorted({(m.room, o.split('.')[0]) for m in house.values() for o in m.imports if o.split('.')[0] != m.room})


def mermaid_room(
    house:dict[str, Module], # From `read_house`
    room:str, # Such as 'data'
)->str: # Mermaid's text
    "The modules of a room, and what each imports: modules of the room, and other rooms"
    def key(name): return name.replace('.', '_')
    own = [m for m in house.values() if m.room == room]
    lines = ['flowchart TD', f'  subgraph room_{room}["{room}"]', *(f'    {key(m.name)}["{m.short}"]' for m in own),
             '  end']
    edges = {(key(m.name), key(o) if o.split('.')[0] == room else f"floor_{o.split('.')[0]}")
             for m in own for o in m.imports}
    below = sorted({b for _, b in edges if b.startswith('floor_')})
    lines += [f'  {b}(["{b.removeprefix("floor_")}"])' for b in below]
    lines += [f'  {a} --> {b}' for a, b in sorted(edges)]
    lines += [f'  click {key(m.name)} "../{m.page}"' for m in own]
    lines += [f'  click {b} "../{floor_page(b.removeprefix("floor_"))}"' for b in below]
    return '\n'.join(lines)


# ---- SVG, of the same edges

def svg_house(
    house:dict[str, Module], # From `read_house`
)->str: # An `svg` element
    "The rooms, floor by floor, and which imports which"
    count = {}
    for m in house.values(): count[m.room] = count.get(m.room, 0) + 1
    floors = find_floors(house)
    boxes = [Box(room, room, '../' + floor_page(room), f"{count[room]} module{'s' if count[room] > 1 else ''}")
             for rooms in floors for room in rooms]
    # `all` imports every room, which would only hide what the others do
    edges = [(a, b) for a, b in room_edges(house) if a != 'all']
    return draw_boxes(boxes, edges, name='The house', rows=[list(rooms) for rooms in floors])


def svg_room(
    house:dict[str, Module], # From `read_house`
    room:str, # Such as 'data'
)->str: # An `svg` element
    "The modules of a room and their imports of each other; rooms below in small letters"
    own = [m for m in house.values() if m.room == room]
    below = {m.name: sorted({o.split('.')[0] for o in m.imports if o.split('.')[0] != room}) for m in own}
    if len(own) == 1:
        rooms = below[own[0].name]
        boxes = [Box(own[0].name, own[0].short, f'../{own[0].page}'),
                 *(Box(r, r, '../' + floor_page(r)) for r in rooms)]
        edges = [(own[0].name, r) for r in rooms]
        rows = None
        if room == 'core':                               # stands on nothing: show who stands on it
            upper = [r for r in dict.fromkeys(m.room for m in house.values() if 'core' in m.imports) if r != 'all']
            boxes += [Box(r, r, '../' + floor_page(r)) for r in upper]
            edges, rows = [(r, 'core') for r in upper], [upper, ['core']]
        return draw_boxes(boxes, edges, name=f'Imports of {room}', rows=rows, most=99)
    boxes = [Box(m.name, m.short, f'../{m.page}', ', '.join(below[m.name])) for m in own]
    edges = [(m.name, o) for m in own for o in m.imports if o.split('.')[0] == room]
    return draw_boxes(boxes, edges, name=f'Imports inside {room}')


# ---- Pages

def show_diagram(
    svg:str, # An `svg` element
    mermaid:str, # The same as Mermaid's text
    quarto:bool, # Is the page for Quarto, which draws Mermaid itself?
)->str: # Markdown
    "A diagram, in the form that the renderer can show without loading anything"
    if quarto: return f'```{{mermaid}}\n{mermaid}\n```\n'
    return ('```{=html}\n<div class="house-box" tabindex="0" role="group" aria-label="Diagram, may be scrolled">'
            f'{svg}</div>\n<details class="house-text"><summary>The same as Mermaid</summary>\n'
            f'<pre><code>{escape(mermaid)}</code></pre></details>\n```\n')


def list_modules(
    modules:list[Module], # Those of a room
    house:dict[str, Module], # All
)->str: # A Markdown list
    "One line a module: where its page is, what it is for, and who imports it"
    lines = []
    for m in modules:
        users = [o.name for o in house.values() if m.name in o.imports and o.room != 'all']
        who = f" Imported by {len(users)} modules." if len(users) > 4 else \
            f" Imported by {', '.join(f'[{u}](../{house[u].page})' for u in users)}." if users else ''
        about = m.about or m.title
        lines.append(f"- [`{m.name}`](../{m.page}): {about}{'' if about.endswith(('.', '?', '!')) else '.'}{who}")
    return '\n'.join(lines) + '\n'


def write_house(
    folder:Path, # Where the pages go: of the site's source
    root:Path=ROOT, # Top of the checkout
    quarto:bool=False, # For Quarto?
)->list[str]: # Their paths below `folder`, the overview first
    "Write a page for the house and one for each floor"
    house = read_house(root)
    floors = find_floors(house)
    (folder/'house').mkdir(exist_ok=True)
    rows, made = [], ['house/index.qmd']
    for rooms in floors:
        own = [m for m in house.values() if m.room in rooms]
        page = folder/Path(floor_page(rooms[0])).with_suffix('.qmd')
        about = ABOUT[floor_first(rooms[0])]
        head = ', '.join(rooms)
        links = ' · '.join(f'[{room}](#{room})' for room in rooms) if len(rooms) > 1 else ''
        parts = [f'---\ntitle: "{head}"\ndescription: "{about}"\n---\n', links]
        for room in rooms:
            modules = [m for m in own if m.room == room]
            diagram = show_diagram(svg_room(house, room), mermaid_room(house, room), quarto)
            parts += [f'## {room} {{#{room}}}\n', diagram,
                      explain(room, modules), list_modules(modules, house)]
        parts.append('[The whole house](index.qmd)\n')
        page.write_text('\n'.join(parts), encoding='utf-8')
        made.append(page.relative_to(folder).as_posix())
        named = ', '.join(f'[{room}]({page.name}#{room})' for room in rooms)
        rows.append(f'| {named} | {len(own)} | {about} |')
    text = f"""---
title: "The house"
description: "Floors of modules whose imports only point down, drawn from the code"
---

`{LIBRARY}` has {len(house)} modules on {len(floors)} floors. A module imports from floors below its own, and inside its
package from modules whose notebook has a lower number; rooms on one floor do not know each other. So each floor can be
read, tested and used without those above it. A check in CI holds the code to this, and these pages are drawn from the
imports that it reads. (`all`, which gathers every public name for notebooks, imports from every room; its lines are
left out.)

{show_diagram(svg_house(house), mermaid_house(house), quarto)}

| floor, from the top | modules | what it is for |
|---|---|---|
""" + '\n'.join(rows) + '\n'
    (folder/'house'/'index.qmd').write_text(text, encoding='utf-8')
    return made


def floor_first(
    room:str, # Such as 'runs'
)->str: # Such as 'explore'
    "The room that a floor is named after"
    return FLOORS[floor_of(room)][0]


def explain(
    room:str, # Such as 'data'
    modules:list[Module], # Those of the room
)->str: # Markdown
    "How to read the diagram of a room"
    if room == 'core': return "Every line leads from a room to `core`, which imports nothing of the library.\n"
    if len(modules) == 1: return "Lines lead to the rooms that it imports from.\n"
    return ("A line leads from a module to one below it that it imports; small letters name the rooms on lower floors "
            "that it imports from. Point at a box to see its own lines, click it for its page.\n")


if __name__ == '__main__':
    found = read_house()
    print(mermaid_room(found, sys.argv[1]) if len(sys.argv) > 1 else mermaid_house(found))
