"""Make README.md from nbs/index.ipynb: `python .ci/readme.py`, or `--check` to only compare them."""
import difflib
import re
import sys
from pathlib import Path

import nbformat
from jinja2 import DictLoader
from nbconvert import MarkdownExporter

from notebooks import ROOT, directives

NOTEBOOK, README, IMAGES = 'nbs/index.ipynb', 'README.md', 'nbs/images'
# What a cell prints stands fenced like its code: an indented block right after a list would become part of the list
TEMPLATE = """{% extends 'markdown/index.md.j2' %}
{% block stream %}
```text
{{ output.text | strip_ansi | trim }}
```
{% endblock stream %}
{% block data_text scoped %}
```text
{{ output.data['text/plain'] | trim }}
```
{% endblock data_text %}
{% block data_png %}
![What the code above draws]({{ output.metadata.filenames['image/png'] | path2url }})
{% endblock data_png %}
"""


def make_readme(
    root:Path, # Top of the checkout
)->tuple[str, dict[str, bytes]]: # The text, and pictures by their paths in the checkout
    "Render the index notebook as Markdown; nothing runs, saved outputs are shown"
    nb = nbformat.read(root/NOTEBOOK, as_version=4)
    cells = []
    for cell in nb.cells:
        if cell.cell_type == 'raw': continue # Front matter: the site's, not a reader's
        if cell.cell_type == 'code':
            found = directives(cell.source)
            if 'hide' in found or found.get('include') == 'false' or not cell.source.strip(): continue
            lines = (line for line in cell.source.splitlines() if not re.match(r'\s*#\s*\|', line))
            cell.source = '\n'.join(lines).strip()
            if found.get('output') == 'false': cell.outputs = []
        cells.append(cell)
    nb.cells = cells
    # The fences are named after the language, which `nbdev_clean` takes out of the notebook
    nb.metadata['language_info'] = dict(name='python')
    exporter = MarkdownExporter(template_file='readme.md.j2', extra_loaders=[DictLoader({'readme.md.j2': TEMPLATE})])
    text, resources = exporter.from_notebook_node(nb, resources=dict(unique_key='index', output_files_dir=IMAGES))
    # GitHub shows tables without a style, and would show the style as text
    text = re.sub(r'<style.*?</style>\n?', '', text, flags=re.S)
    text = re.sub(r'\n[ \t]+(?=\n)', '\n', text)
    # The notebook lies in nbs, the README above it
    text = re.sub(r'\]\((?=(?:images|tutorials|api)/|\w+\.ipynb)', '](nbs/', text)
    text = re.sub(r'\n{3,}', '\n\n', text).strip() + '\n'
    return text, {Path(name).as_posix(): data for name, data in resources.get('outputs', {}).items()}


def check_readme(
    root:Path=ROOT, # Top of the checkout
)->list[str]: # Lines of a diff, and pictures that differ; empty when README and notebook agree
    "Compare README.md with what the notebook makes"
    text, images = make_readme(root)
    there = (root/README).read_text(encoding='utf-8') if (root/README).exists() else ''
    made_from = f'made from {NOTEBOOK}'
    diff = difflib.unified_diff(there.splitlines(), text.splitlines(), README, made_from, lineterm='', n=1)
    stale = [name for name, data in images.items() if not (root/name).exists() or (root/name).read_bytes() != data]
    return [*diff, *(f"{name} differs" for name in stale)]


def main()->int: # Exit status
    if not (ROOT/NOTEBOOK).exists():
        print(f"There is no {NOTEBOOK}")
        return 1
    if '--check' in sys.argv[1:]:
        problems = check_readme()
        print('\n'.join(problems) or f'{README} agrees with {NOTEBOOK}')
        return int(bool(problems))
    text, images = make_readme(ROOT)
    (ROOT/README).write_text(text, encoding='utf-8')
    for name, data in images.items():
        (ROOT/name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT/name).write_bytes(data)
    print(f"wrote {README}" + ''.join(f", {name}" for name in images))
    return 0


if __name__ == '__main__': sys.exit(main())
