"""Check the notebooks as files, without running them: `python .ci/notebooks.py [ROOT]`.

Fails on outputs that hold an error, on paths of somebody's machine, on outputs that are missing and on files too large;
notes files and lines that are longer than they should be.
"""
import ast
import json
import re
import sys
import tempfile
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A file of a few hundred KB is slow to open and to review, and nobody can say what changed in it
NOTED_KB, FAILED_KB, LINE = 200, 600, 120
# Folders at the top of a file system in which people keep their own things, on common systems and hosted notebooks
TOPS = 'home|Users|root|tmp|var|opt|mnt|media|srv|private|work|workspace|workspaces|content|kaggle'
MACHINE_PATH = re.compile(rf'(?<![\w.:/~<>\-*])/(?:{TOPS})/[\w.\-]+|(?<!\w)[A-Za-z]:\\+(?:Users|Temp)\b')


def find_notebooks(
    root:Path=ROOT, # Top of the checkout
)->list[Path]: # All notebooks that are tested and shown
    "List the notebooks as nbdev sees them: nothing hidden, nothing that starts with an underscore"
    return [path for path in sorted((root/'nbs').rglob('*.ipynb'))
            if not any(part[0] in '._' for part in path.relative_to(root).parts)]


def read_notebook(
    path:Path, # A notebook
)->dict: # Its parsed JSON, with the source of each cell as one string
    "Read a notebook without nbformat, so that checks start at once"
    nb = json.loads(path.read_text(encoding='utf-8'))
    for cell in nb['cells']: cell['source'] = ''.join(cell['source'])
    return nb


def directives(
    source:str, # Source of a code cell
)->dict[str, str]: # Such as {'export': '', 'eval': 'false'}
    "Read the `#|` lines at the top of a cell"
    found = {}
    for line in source.splitlines():
        if not line.strip(): continue
        if not (match := re.match(r'\s*#\s*\|\s*(\w[\w-]*):?\s*(.*)', line)): break
        found[match[1]] = match[2].strip()
    return found


def skip_flags(
    root:Path=ROOT, # Top of the checkout
)->set[str]: # Such as {'slow', 'cuda'}
    "Read the flags that mark cells which run only on request"
    config = ConfigParser(delimiters=['='])
    config.read(root/'settings.ini', encoding='utf-8')
    return set(config['DEFAULT'].get('tst_flags', '').split())


def is_skipped(
    source:str, # Source of a code cell
    flags:set[str], # Flags that mark cells which do not run
)->bool: # Is the cell left out when the notebook runs?
    "Tell whether a cell is skipped, by the same rules as `nbdev_test`"
    found = directives(source)
    return found.get('eval', '').lower() == 'false' or bool(flags & found.keys()) or 'nbdev_export(' in source


def output_texts(
    cell:dict, # A code cell
)->list[str]: # The text of its outputs, without pictures
    "Collect what a reader could read in the outputs of a cell"
    texts = []
    for output in cell.get('outputs', []):
        texts += [output.get('text', ''), output.get('traceback', '')]
        texts += [value for kind, value in output.get('data', {}).items()
                  if not kind.startswith('image/') or kind == 'image/svg+xml']
    texts = [''.join(text) if isinstance(text, list) else text for text in texts]
    joined = (text if isinstance(text, str) else json.dumps(text) for text in texts)
    # Pictures inside HTML are long random letters, among which anything can stand by chance
    return [re.sub(r'data:[\w/+.-]+;base64,[\w+/=\s]+', '', text) for text in joined if text]


def shows_something(
    source:str, # Source of a code cell that runs
)->bool: # Must an output be there?
    "Tell whether a cell surely has an output: it prints, or it ends with a variable's name"
    try: body = ast.parse(source).body
    except SyntaxError: return False # Magics: IPython's to judge
    if not body or not isinstance(body[-1], ast.Expr) or source.rstrip().endswith(';'): return False
    last = body[-1].value
    return isinstance(last, ast.Name) or isinstance(last, ast.Call) and getattr(last.func, 'id', '') == 'print'


def teaches(
    source:str, # Source of a code cell that runs
)->bool: # Does it do more than import, define and assert?
    "Tell whether a cell is one of those whose outputs make a notebook worth reading"
    if directives(source).keys() & {'export', 'exporti', 'exports', 'hide', 'default_exp'}: return False
    try: body = ast.parse(source).body
    except SyntaxError: return True
    return not all(isinstance(node, ast.Import|ast.ImportFrom|ast.Assert|ast.FunctionDef|ast.ClassDef) for node in body)


def check_notebook(
    path:Path, # A notebook
    *,
    name:str='', # What to call it in messages; its path unless given
    flags:set[str]=frozenset(), # Flags that mark cells which do not run
    machine:tuple[str, ...]=(), # Folders of this machine, whose paths must not be found either
)->tuple[list[str], list[str]]: # What is wrong, and what is worth a look
    "Check one notebook; cells are counted from 1"
    name, problems, notes = name or str(path), [], []
    kb = path.stat().st_size/1000
    if kb > FAILED_KB: problems.append(f"{name}: {kb:.0f} KB, over {FAILED_KB}: show fewer or smaller pictures")
    elif kb > NOTED_KB: notes.append(f"{name}: {kb:.0f} KB, over {NOTED_KB}: show fewer or smaller pictures")

    nb = read_notebook(path)
    widgets = json.dumps(nb['metadata'].get('widgets', {}))
    code = [(i, cell) for i, cell in enumerate(nb['cells'], 1)
            if cell['cell_type'] == 'code' and cell['source'].strip()]
    running = [(i, cell) for i, cell in code if not is_skipped(cell['source'], flags)]

    places = [(f"cell {i}", [cell['source'], *output_texts(cell)]) for i, cell in enumerate(nb['cells'], 1)]
    for place, texts in [*places, ('the widgets', [widgets])]:
        for text in texts:
            match = MACHINE_PATH.search(text)
            found = match[0] if match else next((folder for folder in machine if folder in text), None)
            if found: problems.append(f"{name}, {place}: a path of somebody's machine, {found!r}: show it relative")

    for i, cell in code:
        errors = [output for output in cell.get('outputs', []) if output['output_type'] == 'error']
        if errors:
            problems.append(f"{name}, cell {i}: its output is an error, {errors[0].get('ename')}: mend it and refresh")
        longest = max(map(len, cell['source'].splitlines()))
        if longest > LINE: notes.append(f"{name}, cell {i}: a line of {longest} characters, over {LINE}")
    for i, cell in running:
        if shows_something(cell['source']) and not cell.get('outputs') and 'hide' not in directives(cell['source']):
            problems.append(f"{name}, cell {i}: shows something, but no output is saved: refresh the notebook")
    if any(teaches(cell['source']) for _, cell in running) and not any(cell.get('outputs') for _, cell in code):
        problems.append(f"{name}: no outputs are saved: refresh the notebook")
    return problems, notes


def check_notebooks(
    root:Path=ROOT, # Top of the checkout
)->tuple[list[str], list[str]]: # What is wrong, and what is worth a look
    "Check all notebooks"
    problems, notes, flags = [], [], skip_flags(root)
    # Short ones such as '/' or '/root' would be found in harmless text; the pattern knows those
    folders = {str(root), str(Path.home()), sys.prefix, tempfile.gettempdir()}
    machine = tuple(sorted(folder for folder in folders if folder.count('/') > 1 or '\\' in folder))
    for path in find_notebooks(root):
        wrong, noted = check_notebook(path, name=path.relative_to(root).as_posix(), flags=flags, machine=machine)
        problems, notes = problems + wrong, notes + noted
    return problems, notes


if __name__ == '__main__':
    found, noted = check_notebooks(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT)
    for line in noted: print(f"note: {line}")
    print('\n'.join(found) or 'The notebooks are fit to be read')
    sys.exit(bool(found))
