"""Build the documentation site in _docs, without Quarto: `python .ci/docs.py`.

nbdev prepares the notebooks (API blocks, links between pages, hidden cells) and smalldocs renders them.
"""
import ast
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import yaml
from nbdev import processors
from nbdev.config import get_config
from nbdev.doclinks import _build_modidx
from nbdev.quarto import nbdev_sidebar, refresh_quarto_yml
from nbdev.serve import proc_nbs

from notebooks import ROOT, read_notebook


def runs_for_docs(
    cell:dict, # A cell of a notebook
    nbdev_runs=processors._do_eval, # nbdev's own answer
)->bool: # Does building the docs run this cell?
    "Run what the API blocks need, but no demo only because it imports something on the way"
    if not nbdev_runs(cell): return False
    if cell.directives_.keys() & {'export', 'exports', 'exporti', 'exec_doc'} or 'show_doc' in cell.source: return True
    return all(isinstance(node, ast.Import|ast.ImportFrom) for node in cell.parsed_())


def take_output_file(
    path:Path, # A notebook that nbdev has prepared; rewritten without the key
)->str: # The name its page should have, such as 'data.clean.html' for '15_data.clean.ipynb'
    "Take the page's name out of the front matter that nbdev writes into the first cell"
    nb = read_notebook(path)
    pattern = r'^output-file:\s*(\S+)\n?'
    match = re.search(pattern, nb['cells'][0]['source'], flags=re.M) if nb['cells'] else None
    if not match: return path.with_suffix('.html').name
    nb['cells'][0]['source'] = re.sub(pattern, '', nb['cells'][0]['source'], flags=re.M)
    path.write_text(json.dumps(nb), encoding='utf-8')
    return match[1]


def renamed(
    entry:object, # Part of the sidebar: a path, or a section, or a list of them
    names:dict[str, str], # New paths by old ones
)->object: # The same with new paths
    "Name the renamed notebooks in the sidebar"
    if isinstance(entry, dict): return {key: renamed(value, names) for key, value in entry.items()}
    if isinstance(entry, list): return [renamed(value, names) for value in entry]
    return names.get(entry, entry)


def main()->int: # Exit status
    started = time.monotonic()
    os.chdir(ROOT)
    cfg = get_config()
    refresh_quarto_yml()
    _build_modidx()
    nbdev_sidebar.__wrapped__(path=cfg.nbs_path)
    # In this process (`n_workers=0`), or the replacement would not be seen
    processors._do_eval = runs_for_docs
    made = proc_nbs(cfg.nbs_path, n_workers=0, force=True)

    # nbdev's links name a page by its `output-file`, which smalldocs does not read: name the notebooks themselves so
    names = {}
    for path in sorted(made.rglob('*.ipynb')):
        new = path.with_name(take_output_file(path)).with_suffix('.ipynb')
        if new == path: continue
        if new.exists(): raise FileExistsError(f"{path.name} and another notebook both want the page {new.stem}.html")
        path.rename(new)
        names[path.relative_to(made).as_posix()] = new.relative_to(made).as_posix()
    sidebar = made/'sidebar.yml'
    shutil.copy(cfg.nbs_path/'sidebar.yml', sidebar)
    sidebar.write_text(yaml.safe_dump(renamed(yaml.safe_load(sidebar.read_text()), names), sort_keys=False))

    code = subprocess.run([sys.executable, '-m', 'smalldocs.cli', 'render', str(made)]).returncode
    if code: return code
    shutil.rmtree(cfg.doc_path, ignore_errors=True)
    shutil.move(made/cfg.doc_path.name, cfg.doc_path)
    pages = len(list(cfg.doc_path.rglob('*.html')))
    print(f"{pages} pages in {os.path.relpath(cfg.doc_path)}, {time.monotonic() - started:.0f} s")
    return 0


if __name__ == '__main__': sys.exit(main())
