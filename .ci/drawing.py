"""Draw boxes and the lines between them, from the top down, as SVG in the colours of the page."""
import re
from dataclasses import dataclass, field
from html import escape

# Height of a box, distance of rows, gap between boxes, width of a letter: in pixels
BOX, ROW, GAP, SIGN = 40, 78, 14, 7.3


@dataclass
class Box:
    "A box of a diagram"
    key:str # Unlike any other's
    label:str # What it says
    link:str # Where it leads
    note:str='' # In small letters below
    x:float=0 # Its middle
    y:float=0 # Its middle

    @property
    def width(self)->float: return max(len(self.label)*SIGN*1.09, len(self.note)*SIGN*.82) + 20


@dataclass
class Layout:
    "Where the boxes of a diagram lie, and the points that its lines pass"
    rows:list[list[str]] # Keys of boxes and of passing points, from the top row down
    lines:dict[tuple[str, str], list[str]]=field(default_factory=dict) # Keys on the way, for each pair
    x:dict[str, float]=field(default_factory=dict) # Middle of each


def stack_rows(
    keys:list[str], # Boxes
    edges:list[tuple[str, str]], # Upper and lower box of each line
    most:int, # Boxes in a row, at most
)->list[list[str]]: # From the top row down
    "Give each box a row above all that it leads to, few rows and none too full"
    lower = {k: {b for a, b in edges if a == k} for k in keys}
    depth = {}

    def measure(k):
        if k not in depth: depth[k] = 1 + max((measure(b) for b in lower[k]), default=-1)
        return depth[k]

    for k in keys: measure(k)
    upper = {k: sum(b == k for _, b in edges) for k in keys}
    rows, at = [], {}
    # From the bottom up; those that many others stand on come first
    for k in sorted(keys, key=lambda k: (depth[k], -upper[k], k)):
        row = 1 + max((at[b] for b in lower[k]), default=-1)
        while row < len(rows) and len(rows[row]) >= most: row += 1
        if row == len(rows): rows.append([])
        rows[row].append(k)
        at[k] = row
    return rows[::-1]


def lay_out(
    rows:list[list[str]], # Boxes, from the top row down
    edges:list[tuple[str, str]], # Upper and lower box of each line
    widths:dict[str, float], # Of the boxes
)->Layout: # With a point for each row that a line passes
    "Order the boxes of each row so that few lines cross, and place them"
    at = {k: i for i, row in enumerate(rows) for k in row}
    layout, links = Layout([list(row) for row in rows]), []
    for a, b in edges:
        way = [a, *(f'{a}>{b}@{i}' for i in range(at[a] + 1, at[b])), b]
        for i, k in enumerate(way[1:-1], at[a] + 1): layout.rows[i].append(k)
        layout.lines[a, b] = way
        links += list(zip(way, way[1:]))
    near = {}
    for a, b in links:
        near.setdefault(a, ([], []))[1].append(b)
        near.setdefault(b, ([], []))[0].append(a)

    def crossings():
        spot = {k: j for row in layout.rows for j, k in enumerate(row)}
        count = 0
        for row in layout.rows:
            pairs = sorted((spot[a], spot[b]) for a in row for b in near.get(a, ((), ()))[1])
            count += sum(p[1] > q[1] for i, p in enumerate(pairs) for q in pairs[i+1:])
        return count

    best, kept = crossings(), [list(row) for row in layout.rows]
    for turn in range(24):                               # down and up in turn, as Sugiyama's method does
        side = turn % 2
        for row in (layout.rows if side == 0 else layout.rows[::-1]):
            spot = {k: j/max(len(r) - 1, 1) for r in layout.rows for j, k in enumerate(r)}
            def middle(k, spot=spot, side=side):
                others = near.get(k, ((), ()))[side]
                return sum(spot[o] for o in others)/len(others) if others else spot[k]
            row.sort(key=middle)
        if (now := crossings()) < best: best, kept = now, [list(row) for row in layout.rows]
    layout.rows = kept

    def wide(k): return widths[k] + GAP if k in widths else 9
    total = max(sum(wide(k) for k in row) for row in layout.rows)
    for row in layout.rows:
        left = (total - sum(wide(k) for k in row))/2
        for k in row:
            layout.x[k] = left + wide(k)/2
            left += wide(k)
    for turn in range(40):                               # towards what each is joined to, keeping order and distance
        for row in layout.rows if turn % 2 else layout.rows[::-1]:
            wish = []
            for k in row:
                others = [o for side in near.get(k, ((), ())) for o in side]
                wish.append(sum(layout.x[o] for o in others)/len(others) if others else layout.x[k])
            place_row(row, wish, [wide(k) for k in row], layout.x, total)
    return layout


def place_row(
    row:list[str], # Keys from left to right
    wish:list[float], # Where each would like its middle to be
    widths:list[float], # What each takes up
    x:dict[str, float], # Middles by key; changed in place
    total:float, # Width of the diagram
):
    "Come as near to the wishes as order, distance and the edges of the diagram allow"
    blocks = []                                          # [sum of wishes less offsets, members, width, first member]
    for i, (w, want) in enumerate(zip(widths, wish)):
        blocks.append([want - w/2, 1, w, i])
        while len(blocks) > 1:
            (s, n, wa, first), (t, m, wb, _) = blocks[-2:]
            if s/n + wa <= t/m: break
            blocks[-2:] = [[s + t - m*wa, n + m, wa + wb, first]]
    starts = [[s/n, w, first] for s, n, w, first in blocks]
    left = 0.
    for part in starts: left = part[0] = max(part[0], left); left += part[1]
    right = total
    for part in starts[::-1]: part[0] = min(part[0], right - part[1]); right = part[0]
    ends = [first for *_, first in starts[1:]] + [len(row)]
    for (start, _, first), end in zip(starts, ends):
        for i in range(first, end):
            x[row[i]] = start + widths[i]/2
            start += widths[i]


def draw_boxes(
    boxes:list[Box], # In any order
    edges:list[tuple[str, str]], # Keys of upper and lower box
    *,
    name:str, # Of the diagram, for people who do not see it and for its style
    rows:list[list[str]]|None=None, # Boxes by row; found unless given
    most:int=6, # Boxes in a row, at most, where rows are found
)->str: # An `svg` element whose colours are those of the page
    "Draw a diagram whose lines lead down"
    by_key = {b.key: b for b in boxes}
    rows = rows or stack_rows(list(by_key), edges, most)
    layout = lay_out(rows, edges, {b.key: b.width for b in boxes})
    y = {k: 6 + BOX/2 + i*ROW for i, row in enumerate(layout.rows) for k in row}
    width = max(layout.x[k] + by_key[k].width/2 for k in by_key) + 8
    height = 12 + BOX + (len(layout.rows) - 1)*ROW
    ident = 'house-' + re.sub(r'\W+', '-', name.lower())
    number = {b.key: i for i, b in enumerate(boxes)}
    # Pointing at a box shows its own lines: above it who imports it, below it what it imports
    rules = ''.join(f'#{ident}:has(.n{i}:hover) .f{i},#{ident}:has(.n{i}:hover) .t{i}'
                    '{stroke:var(--house-line-on);stroke-width:2.5;opacity:1}' for i in number.values())
    parts = [f'<svg id="{ident}" class="house" role="img" aria-label="{escape(name)}" '
             f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" '
             f'xmlns="http://www.w3.org/2000/svg"><style>{rules}</style>']
    for (a, b), way in layout.lines.items():
        points = [(layout.x[k], y[k]) for k in way]
        points[0], points[-1] = (points[0][0], points[0][1] + BOX/2), (points[-1][0], points[-1][1] - BOX/2)
        path = f'M{points[0][0]:.0f} {points[0][1]:.0f}'
        for (x0, y0), (x1, y1) in zip(points, points[1:]):
            half = (y1 - y0)/2
            path += f'C{x0:.0f} {y0 + half:.0f} {x1:.0f} {y1 - half:.0f} {x1:.0f} {y1:.0f}'
        parts.append(f'<path class="f{number[a]} t{number[b]}" d="{path}"/>')
    for box in boxes:
        x, middle, half = layout.x[box.key], y[box.key], box.width/2
        parts.append(f'<a href="{escape(box.link)}" class="n{number[box.key]}"><rect x="{x - half:.0f}" '
                     f'y="{middle - BOX/2:.0f}" width="{box.width:.0f}" height="{BOX}" rx="5"/>'
                     f'<text x="{x:.0f}" y="{middle + (-2 if box.note else 5):.0f}">{escape(box.label)}</text>'
                     + (f'<text class="small" x="{x:.0f}" y="{middle + 13:.0f}">{escape(box.note)}</text>'
                        if box.note else '') + '</a>')
    return ''.join([*parts, '</svg>'])
