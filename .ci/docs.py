"""Build the documentation site: `python .ci/docs.py`, into _docs, or `--to FOLDER`.

nbdev prepares the notebooks, with tables of arguments and with pages for the floors of the house (`apidocs`, `house`).
Quarto renders them where it is installed, else smalldocs. Everything happens in a copy, and nothing of the tree changes
but nbs/nbdev.yml, which follows settings.ini. The site loads nothing from elsewhere, and a link that leads nowhere is
an error.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import nbdev.serve
import yaml
from nbdev.config import get_config
from nbdev.quarto import refresh_quarto_yml

from apidocs import LinkNames, Names, ShowNames, SiteDefaults
from house import find_floors, floor_page, read_house, write_house
from notebooks import ROOT, find_notebooks, read_notebook

# What the pages of the site are made of
TAKEN = ('settings.ini', '_quarto.yml', 'nbs')


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


def name_pages(
    folder:Path, # Notebooks that nbdev has prepared; renamed
)->dict[str, str]: # New paths by old ones, below `folder`
    "Name each notebook as its page: smalldocs does not read `output-file`, and the links need it"
    names = {}
    for path in sorted(folder.rglob('*.ipynb')):
        new = path.with_name(take_output_file(path)).with_suffix('.ipynb')
        if new != path and new.exists():
            raise FileExistsError(f"{path.name} and another notebook both want the page {new.stem}.html")
        path.rename(new)
        names[path.relative_to(folder).as_posix()] = new.relative_to(folder).as_posix()
    return names


def mend_links(
    folder:Path, # Notebooks that have their pages' names; rewritten
    names:dict[str, str], # New paths by old ones
):
    "Let links from notebook to notebook follow the new names"
    by_name = {Path(old).name: Path(new).name for old, new in names.items()}
    for path in folder.rglob('*.ipynb'):
        text = path.read_text(encoding='utf-8')
        mended = re.sub(r'(\]\((?:\.\./)*(?:[\w.]+/)*)([\w.\-]+\.ipynb)',
                        lambda m: m[1] + by_name.get(m[2], m[2]), text)
        if mended != text: path.write_text(mended, encoding='utf-8')


def make_sidebar(
    folder:Path, # The site's source
    house_pages:list[str], # From `write_house`
)->dict: # For sidebar.yml
    "Index, figures, tutorials, the house, and the modules by package in the order in which they build on each other"
    def entry(path, text=None): return dict(href=path, **(dict(text=text) if text else {}))
    house, api = read_house(), []
    for rooms in find_floors(house)[::-1]:
        for room in rooms:
            own = [m for m in house.values() if m.room == room]
            found = [(m, f'api/{m.name}.ipynb') for m in own if (folder/f'api/{m.name}.ipynb').exists()]
            entries = [entry(path, m.short) for m, path in found]
            if own[0].name == room: api += entries        # a module that is no package
            else: api.append(dict(section=room, contents=entries))
    # In the order in which the front page names them
    front = (ROOT/'nbs'/'index.ipynb').read_text(encoding='utf-8')
    tutorials = sorted(folder.glob('tutorials/*.ipynb'), key=lambda p: front.rfind(f'(tutorials/{p.name})') % 10**9)
    tutorials = [entry(p.relative_to(folder).as_posix()) for p in tutorials]
    floors = [entry(floor_page(rooms[0]).replace('.html', '.qmd'), ', '.join(rooms)) for rooms in find_floors(house)]
    assert {f['href'] for f in floors} | {'house/index.qmd'} == set(house_pages)
    others = [entry(p.name) for p in sorted(folder.glob('*.ipynb')) if p.name != 'index.ipynb']
    contents = [entry('index.ipynb'), *others, dict(section='tutorials', contents=tutorials),
                dict(section='the house', href='house/index.qmd', contents=floors), dict(section='api', contents=api)]
    return dict(website=dict(sidebar={'contents': contents, 'collapse-level': 1}))


def prepare(
    copy:Path, # A folder for the site's source
    quarto:bool, # For Quarto?
)->Path: # Folder to render
    "Everything that a renderer needs"
    for name in TAKEN:
        if (ROOT/name).is_dir():
            shutil.copytree(ROOT/name, copy/name, ignore=shutil.ignore_patterns('.*', '_*.ipynb', '__pycache__', 'runs',
                                                                               'drawn', 'sidebar.yml', '*.ipynb'))
        else: shutil.copy(ROOT/name, copy/name)
    for path in find_notebooks(): shutil.copy(path, copy/path.relative_to(ROOT))
    shutil.rmtree(copy/'_proc', ignore_errors=True)
    os.chdir(copy)
    cfg = get_config()
    refresh_quarto_yml()
    ShowNames.names = LinkNames.names = Names(ROOT, f"{cfg.git_url.rstrip('/')}/blob/{cfg.branch}")
    nbdev.serve.FilterDefaults = SiteDefaults
    # In this process (`n_workers=0`), or the replacement would not be seen
    made = nbdev.serve.proc_nbs(copy/'nbs', n_workers=0, force=True)
    mend_links(made, name_pages(made))
    pages = write_house(made, ROOT, quarto)
    (made/'sidebar.yml').write_text(yaml.safe_dump(make_sidebar(made, pages), sort_keys=False), encoding='utf-8')
    return made


def stay_home(
    site:Path, # A built site; its style sheets are rewritten
):
    "Take the fonts that themes load from elsewhere out of the style sheets; the next font in line is on every machine"
    for path in site.rglob('*.css'):
        text = path.read_text(encoding='utf-8')
        mended = re.sub(r'@import\s+url\(["\']?(?:https?:)?//[^)]*\)[^;]*;', '', text)
        if mended != text: path.write_text(mended, encoding='utf-8')


class Page(HTMLParser):
    "Links, anchors and what is loaded, of one page"
    def __init__(
        self,
        text:str, # HTML
    ):
        super().__init__()
        self.ids, self.links, self.loaded, self.without_words = set(), [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        for key in ('id', 'name'):
            if given.get(key): self.ids.add(given[key])
        if tag == 'a' and given.get('href'): self.links.append(given['href'])
        if tag == 'img' and not given.get('alt'): self.without_words += 1
        if tag in ('img', 'script', 'iframe', 'source', 'video', 'audio', 'embed') and given.get('src'):
            self.loaded.append(given['src'])
        if tag == 'link' and given.get('href') and given.get('rel') != 'canonical': self.loaded.append(given['href'])


def check_site(
    site:Path, # A built site
)->list[str]: # One line for each thing that is wrong
    "Links and anchors that lead nowhere, things loaded from elsewhere, pictures without words"
    pages = {p.relative_to(site).as_posix(): Page(p.read_text(encoding='utf-8')) for p in sorted(site.rglob('*.html'))}
    problems = []
    for name, page in pages.items():
        for link in dict.fromkeys([*page.links, *page.loaded]):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if link in page.loaded and parts.scheme != 'data':
                    why = ': maths needs KaTeX from elsewhere, so write it in Unicode' if 'katex' in link else ''
                    problems.append(f"{name}: loads {link[:90]}{why}")
                continue
            file, anchor = urldefrag(link)
            file = unquote(file.split('?')[0])
            target = os.path.normpath(os.path.join(os.path.dirname(name), file)) if file else name
            if (site/target).is_dir(): target = os.path.join(target, 'index.html')
            if not (site/target).is_file(): problems.append(f"{name}: {link} leads nowhere")
            elif anchor and target in pages and unquote(anchor) not in pages[target].ids:
                problems.append(f"{name}: {link}: no such place on that page")
        if page.without_words: problems.append(f"{name}: {page.without_words} pictures without words (alt)")
    for path in site.rglob('*.css'):
        outside = r'url\(["\']?(?:https?:)?//[^)]*\)|@import\s*["\'][^"\']*//[^"\']*'
        if found := re.search(outside, path.read_text(encoding='utf-8')):
            problems.append(f"{path.relative_to(site)}: loads {found[0][:90]}")
    return problems


def build(
    to:Path, # Folder for the site; replaced
    quarto:bool, # Render with Quarto, not smalldocs?
)->list[str]: # What is wrong with it
    "Build the site"
    with tempfile.TemporaryDirectory() as folder:
        made = prepare(Path(folder), quarto)
        smalldocs = [sys.executable, '-m', 'smalldocs.cli', 'render', '.']
        command = ['quarto', 'render', '--no-execute'] if quarto else smalldocs
        done = subprocess.run(command, cwd=made, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        os.chdir(ROOT)
        told = [line for line in done.stdout.splitlines() if not line.startswith('wrote ')]
        if done.returncode: return [*told, f"{command[0]} ended with exit status {done.returncode}"]
        site = made/'_docs'
        stay_home(site)
        shutil.rmtree(to, ignore_errors=True)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(site, to)
    return [*([] if quarto else told), *check_site(to)]


def main()->int: # Exit status: 1 if something is wrong with the site
    parser = argparse.ArgumentParser(description="Build the documentation site")
    parser.add_argument('--to', type=Path, help="folder for the site (_docs)")
    parser.add_argument('--with', dest='renderer', choices=('quarto', 'smalldocs'),
                        help="what renders it (Quarto where it is installed)")
    args = parser.parse_args()
    started, quarto = time.monotonic(), args.renderer or ('quarto' if shutil.which('quarto') else 'smalldocs')
    to = (args.to or ROOT/'_docs').resolve()
    if args.to is None: refresh_quarto_yml()
    problems = build(to, quarto == 'quarto')
    print('\n'.join(problems))
    pages = len(list(to.rglob('*.html'))) if to.exists() else 0
    print(f"{pages} pages in {os.path.relpath(to)} by {quarto}, {time.monotonic() - started:.0f} s"
          + (f", {len(problems)} problems" if problems else ''))
    return int(bool(problems))


if __name__ == '__main__': sys.exit(main())
