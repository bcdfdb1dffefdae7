"The check of the floors catches what it should, and the library passes it"
import json
import re
from configparser import ConfigParser
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='module')
def layers():
    spec = spec_from_file_location('layers', ROOT/'.ci'/'layers.py')
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def plant(tmp_path, layers):
    "Write a tiny library, given as {'10_data.clean': 'source'}, and check it"
    def _plant(**modules):
        for key, source in modules.items():
            number, _, name = key.partition('_')
            path = tmp_path/'snakeid'/Path(*name.split('.')).with_suffix('.py')
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
            notebook = tmp_path/'nbs'/'api'/f'{key}.ipynb'
            notebook.parent.mkdir(parents=True, exist_ok=True)
            cell = dict(cell_type='code', source=[f'#| default_exp {name}\n'], metadata={}, outputs=[])
            if number: notebook.write_text(json.dumps(dict(cells=[cell], metadata={}, nbformat=4, nbformat_minor=5)))
        return layers.check_layers(tmp_path)
    return _plant


def test_library_keeps_to_its_floors(layers):
    assert layers.check_layers(ROOT) == []


def test_every_room_stands_on_one_floor(layers):
    rooms = [room for floor in layers.FLOORS for room in floor]
    assert len(rooms) == len(set(rooms))
    assert layers.floor_of('core') > layers.floor_of('data.clean') > layers.floor_of('cli') > layers.floor_of('all')


def test_downward_imports_are_fine(plant):
    found = plant(**{
        '00_core': 'import numpy', '10_data.manifest': 'from ..core import set_seed',
        '15_data.clean': 'from .manifest import read_manifest\nimport snakeid.core',
        '40_train.recipes': 'from ..data import clean, manifest\nfrom snakeid.data.clean import flag_broken',
        '90_cli': 'import argparse\ndef main():\n    from .train.recipes import fit',
        '99_all': 'from .cli import *\nfrom .core import *'})
    assert found == []


@pytest.mark.parametrize('source', [
    'from ..train.recipes import fit', 'from snakeid.train.recipes import fit', 'import snakeid.train.recipes as r',
    'from ..train import recipes', 'def f():\n    from ..train.recipes import fit',
    'import importlib\nimportlib.import_module("snakeid.train.recipes")', 'from .. import train',
    'if True:\n    try: from ..train.recipes import *\n    except ImportError: pass'])
def test_upward_import(plant, source):
    found = plant(**{'10_data.clean': source, '40_train.recipes': '', '41_train.__init__': ''})
    assert len(found) == 1 and 'snakeid/data/clean.py:' in found[0] and 'lies above' in found[0]


def test_sibling_import(plant):
    found = plant(**{'05_metrics': '', '10_data.clean': 'from ..metrics import accuracy'})
    assert len(found) == 1 and 'metrics, its sibling' in found[0]
    assert 'snakeid/data/clean.py:1' in found[0]


def test_unknown_module(plant):
    found = plant(**{'10_helpers': '', '20_data.clean': 'from ..helpers import x'})
    assert found == ["snakeid/helpers.py: 'helpers' stands on no floor: add 'helpers' to FLOORS in .ci/layers.py"]


def test_import_of_a_missing_room(plant):
    found = plant(**{'20_data.clean': 'from ..gone import x'})
    assert len(found) == 1 and "stands on no floor: add 'gone'" in found[0]


def test_order_inside_a_package(plant):
    found = plant(**{'10_data.manifest': 'from .clean import x', '15_data.clean': ''})
    assert len(found) == 1 and 'number 15, not below 10' in found[0]
    found = plant(**{'15_data.twin': 'from .clean import x', '10_data.manifest': ''})
    assert len(found) == 1 and 'number 15, not below 15' in found[0]


def test_module_without_a_notebook(plant):
    found = plant(**{'_data.stray': '', '15_data.clean': 'from .stray import x'})
    assert len(found) == 1 and 'no numbered notebook in nbs/api makes data.stray' in found[0]


def test_reserved_imports(plant):
    found = plant(**{
        '10_data.clean': 'def f():\n    import argparse', '40_report.summary': 'from ipywidgets import HTML',
        '50_explore.browse': 'import ipywidgets', '90_cli': 'from argparse import ArgumentParser'})
    assert len(found) == 2
    assert any('nothing below `cli` parses arguments' in line for line in found)
    assert any('nothing below `explore` shows widgets' in line for line in found)


def test_package_init_stays_empty(plant):
    found = plant(**{'10_data.clean': '', '_data.__init__': 'from .clean import *'})
    assert len(found) == 1 and 'keep `__init__.py` empty' in found[0]


def test_every_extra_that_is_named_can_be_installed():
    "What `import_extra` and error texts name, settings.ini has"
    settings = ConfigParser(delimiters=['='])
    settings.read(ROOT/'settings.ini', encoding='utf-8')
    text = '\n'.join(f.read_text(encoding='utf-8') for f in (ROOT/'snakeid').rglob('*.py'))
    named = set(re.findall(r"snakeid\[(\w+)\]|import_extra\([^,()]+, '(\w+)'\)", text))
    named = {name for pair in named for name in pair if name}
    assert named >= {'heic', 'voila', 'onnx'}
    assert [name for name in sorted(named) if f'{name}_requirements' not in settings['DEFAULT']] == []
