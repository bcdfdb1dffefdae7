"""Every command and program of README.md, run as it is printed, as a new user would run it; and the commands of the
page of figures.

They run in folders with small drawn photos under the names that the README uses. Two things are made smaller than they
are for a user, and nothing else: a training has one epoch on photos of 96 pixels (the defaults of `Recipe` and
`make_dataloaders`), and `snakeid demo` draws 60 photos. What cannot run here is named in `NOT_HERE`, with the reason;
of commands that take hours, the options are read by the program itself, which then stops.
"""
import argparse
import json
import os
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT/'README.md').read_text(encoding='utf-8')
CELLS = json.loads((ROOT/'nbs'/'figures.ipynb').read_text(encoding='utf-8'))['cells']
FIGURES = '\n\n'.join(''.join(cell['source']) for cell in CELLS)
# Why a command is not run, by how it begins
NOT_HERE = {
    'make ': "sets up an environment of 5.5 GB",
    'python3 -m venv ': "sets up an environment",
    '.venv/bin/pip install ': "installs packages",
    'pip install ': "installs packages",
    '.venv/bin/python .ci/gates.py': "is what runs this test",
    'snakeid app ': "serves a page until it is stopped: test_browser_identify.py opens it",
    'python -m megadetector.': "MegaDetector is not a part of this library, nor of its tests",
}
HOURS = 'python benchmarks/' # Take from minutes to hours each: only their options are read


def split_commands(block):
    "The commands of a block for a shell: lines that end in a backslash joined, comments and `&&` taken apart"
    lines = re.sub(r'\\\n\s*', ' ', block).splitlines()
    lines = [re.sub(r'\s+#.*$', '', line).strip() for line in lines]
    return [part.strip() for line in lines if line for part in line.split('&&')]


BLOCKS = re.findall(r'^```sh\n(.*?)^```', f'{README}\n{FIGURES}\n', re.S | re.M)
SHELL = [command for block in BLOCKS for command in split_commands(block)]
PROGRAMS = re.findall(r'^```python\n(.*?)^```', README, re.S | re.M)
LANGUAGES = re.findall(r'^```(\w+)\n', README, re.M)


def reason(command): return next((why for start, why in NOT_HERE.items() if command.startswith(start)), None)


def test_every_block_is_looked_at():
    "Blocks are for a shell or for Python, and each command runs here or has a reason"
    assert set(LANGUAGES) == {'sh', 'python'} and len(SHELL) > 20 and len(PROGRAMS) == 3
    odd = [c for c in SHELL if not reason(c) and not c.startswith((HOURS, 'snakeid ', '.venv/bin/snakeid '))]
    assert odd == []
    assert [start for start in NOT_HERE if not any(c.startswith(start) for c in SHELL)] == []


def test_named_targets_extras_and_options_are_there():
    "What cannot run can still be looked up"
    makefile, settings = (ROOT/'Makefile').read_text(), (ROOT/'settings.ini').read_text()
    for target in re.findall(r'^make (\w+)', '\n'.join(SHELL), re.M): assert f'\n{target}:' in makefile
    text = README + FIGURES
    for extra in re.findall(r"\.\[(\w+)\]", text): assert extra == 'dev' or f'\n{extra}_requirements = ' in settings
    for file in set(re.findall(r'`?(benchmarks/\w+\.py|nbs/[\w/]+\.ipynb)', text)): assert (ROOT/file).is_file(), file


class Read(Exception):
    "A program has read its options"


@pytest.mark.parametrize('command', [c for c in SHELL if c.startswith(HOURS)], ids=lambda c: c[len(HOURS):][:50])
def test_the_long_programs_know_their_options(command, monkeypatch):
    words = shlex.split(command)[1:]
    whole = argparse.ArgumentParser.parse_args

    def stop(self, *args, **kwargs): raise Read(whole(self, *args, **kwargs))
    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', stop)
    monkeypatch.setattr(sys, 'argv', words)
    monkeypatch.syspath_prepend(str(ROOT/'benchmarks'))
    before = set(sys.modules)
    with pytest.raises(Read) as found: runpy.run_path(str(ROOT/words[0]), run_name='__main__')
    for name in set(sys.modules) - before:
        if (ROOT/'benchmarks'/f'{name}.py').is_file(): del sys.modules[name]
    assert isinstance(found.value.args[0], argparse.Namespace)


# ---- The same, small

@pytest.fixture(scope='module', autouse=True)
def small():
    "One epoch, on photos of 96 pixels"
    from snakeid.data.loaders import make_dataloaders
    from snakeid.samples import collection
    from snakeid.train import fit, learner, recipes
    with pytest.MonkeyPatch.context() as patch:
        names = [*recipes.Recipe.__dataclass_fields__]
        given = dict(zip(names, recipes.Recipe.__init__.__defaults__)) | dict(epochs=1, size=96, train_size=96)
        assert len(given) == len(names)
        patch.setattr(recipes.Recipe.__init__, '__defaults__', tuple(given.values()))
        short = recipes.Recipe()
        patch.setitem(recipes.RECIPES, 'modern', short)
        for function in (learner.make_learner, fit.fit_species):
            new = tuple(short if isinstance(d, recipes.Recipe) else d for d in function.__defaults__)
            patch.setattr(function, '__defaults__', new)
        patch.setitem(make_dataloaders.__kwdefaults__, 'size', 96)
        draw = collection.draw_collection
        patch.setattr(collection, 'draw_collection', lambda folder, n=1000, **options: draw(
            folder, n=min(n, 60), **{**options, 'size': 64, 'species': 3, 'workers': 0}))
        yield draw


@pytest.fixture(scope='module')
def at_home(small, tmp_path_factory):
    "A folder as the README supposes it: labels and photos, folders of species, new photos, what is known of species"
    folder = tmp_path_factory.mktemp('home')
    photos = small(folder, n=80, seed=2, size=96, species=3, tail=1., duplicates=.05, workers=0)
    for row in photos.drop_duplicates('photo_id').itertuples():
        if not isinstance(row.species, str): continue
        (folder/'folders_of_species'/row.species).mkdir(parents=True, exist_ok=True)
        shutil.copy(row.path, folder/'folders_of_species'/row.species)
    small(folder/'others', n=8, seed=3, size=96, species=3, tail=1., workers=0)
    (folder/'others'/'images').rename(folder/'new_photos')
    names = sorted(set(photos.species.dropna()))
    known = pd.DataFrame(dict(scientific_name=names, genus=[n.split()[0] for n in names], family='Pictidae',
                              venomous=[True, False, True], countries=['Philippines|India', 'Philippines', 'India']))
    known.to_csv(folder/'species.csv', index=False)
    return folder


@pytest.fixture
def here(at_home, monkeypatch):
    monkeypatch.chdir(at_home)
    return at_home


def run(command, call):
    done = call(*shlex.split(command)[1:])
    assert done.status == 0, done.err
    return done.out


def shown(start):
    "The one command that begins so"
    found = [c for c in SHELL if c.startswith(start)]
    assert len(found) == 1, (start, found)
    return found[0]


def test_the_demo(here, call):
    assert 'report' in run(shown('.venv/bin/snakeid demo'), call)
    assert (here/'runs'/'demo'/'report.html').is_file()
    # A second one shows the finished run
    assert 'has run before' in run(shown('.venv/bin/snakeid demo'), call)


def test_your_own_photos(here, call):
    "Train on a CSV, identify, report, export and identify again, in the order in which the README has them"
    run(shown('snakeid train --labels train_labels.csv --images images --out'), call)
    first, second = [c for c in SHELL if c.startswith('snakeid identify ')]
    run(first, call)
    table = pd.read_csv('runs/new_photos.csv')
    assert len(table) == 8
    # The columns that the README names
    for name in ('photo_id', 'path', 'species', 'confidence', 'vote_share', 'flag'): assert name in table
    run(second, call)
    assert {'candidates', 'name', 'rank', 'decision'} <= set(pd.read_csv('runs/new_photos.csv'))
    run(shown('snakeid report '), call)
    assert (here/'runs'/'first'/'report.html').stat().st_size > 1000


def test_folders_of_species(here, call):
    run(shown('snakeid train --images folders_of_species'), call)
    assert (here/'runs'/'second'/'run.json').is_file()


def test_the_engine_in_eight_bits(here, call, trained):
    for name in ('onnx', 'onnxruntime'): pytest.importorskip(name, reason=f"{name} comes with the onnx extra")
    (here/'runs').mkdir(exist_ok=True)
    if not (here/'runs'/'first').exists(): shutil.copytree(trained.run, here/'runs'/'first')
    run(shown('snakeid export '), call)
    assert any('int8' in path.name for path in (here/'runs'/'first').rglob('*'))
    run('snakeid identify runs/first new_photos --backend int8', call)


def test_the_ten_lines(here, monkeypatch, capsys):
    names = {}
    exec(PROGRAMS[0], names)
    assert len(PROGRAMS[0].strip().splitlines()) == 10
    assert 'accuracy' in capsys.readouterr().out.lower()
    assert len(names['predictions']) == (names['photos'].split == 'test').sum() > 0


def test_the_collection(here):
    before, names = set(os.listdir()), {}
    exec(PROGRAMS[1], names)
    # What it leaves behind lies where git does not look
    assert set(os.listdir()) - before <= {'runs'} and '/runs/' in (ROOT/'.gitignore').read_text().splitlines()
    photos = names['photos']
    assert photos.duplicate_group.notna().any()
    assert (photos[photos.flag == ''].groupby('duplicate_group').split.nunique() == 1).all()
    assert (here/'runs'/'look_at_these.csv').is_file() and len(names['dls'].train_ds)


@pytest.fixture(scope='module')
def at_cameras(tmp_path_factory):
    "A season of camera traps with annotations.json, images, and a detector's boxes"
    from snakeid.samples.detections import draw_detections
    from snakeid.samples.traps import draw_traps
    folder = tmp_path_factory.mktemp('cameras')
    season = draw_traps(folder, n=320, seed=4, size=48, cameras=12, species=4, tail=3, workers=0)
    draw_detections(season, folder/'detections.json')
    return folder


@pytest.mark.filterwarnings('ignore::UserWarning')       # few animals, and species without validation photos
def test_the_camera_traps(at_cameras, monkeypatch):
    monkeypatch.chdir(at_cameras)
    names = {}
    exec(PROGRAMS[2], names)
    assert names['account_errors'](names['table'], names['test'].species).photos.sum() == len(names['test'])
    assert not set(names['test'].location) & set(names['photos'].location[names['photos'].split == 'train'])


@pytest.mark.filterwarnings('ignore::UserWarning')
def test_cameras_on_the_command_line(at_cameras, call, monkeypatch):
    "The command stands in a sentence, not in a block"
    monkeypatch.chdir(at_cameras)
    command = re.search(r'`(snakeid train --labels annotations\.json[^`]*)`', ' '.join(README.split()))[1]
    run(command, call)
    assert (at_cameras/'runs'/'1'/'report.html').is_file()
