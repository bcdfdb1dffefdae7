"What goes out in each format comes back the same: made-up collections, written as others write them"
import csv
import string

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snakeid.data.background import write_changes
from snakeid.data.boxes import choose_crops, list_boxes, read_crops
from snakeid.data.camtrap import read_camtrap, write_camtrap
from snakeid.data.coco import read_coco, write_coco
from snakeid.data.detections import add_detections
from snakeid.data.manifest import read_folders
from snakeid.data.megadetector import read_detections
from snakeid.data.tables import read_aicrowd, read_snakeclef, read_table, write_folders
from snakeid.samples.detections import draw_detections
from snakeid.samples.traps import draw_traps

# Species as people write them: letters of several scripts, no blanks at the ends, which readers tidy
letters = string.ascii_letters + 'äñøßçŁжкλ蛇'
names = st.lists(st.text(letters, min_size=1, max_size=8), min_size=1, max_size=3).map(' '.join)
# Category names that the readers give a meaning of their own
taken = {'empty', 'blank', 'human', 'vehicle', 'unknown', 'unclassified', 'animal', 'nan', 'none', 'null', 'na'}
species = names.filter(lambda s: s.lower() not in taken and s != 'Homo sapiens')
collections = st.lists(st.tuples(species, st.sampled_from(['Brazil', 'Côte d’Ivoire', '']), st.integers(0, 2**31)),
                       min_size=1, max_size=12)
brief = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def lay_out(folder, rows, sub=''):
    "Files of these photos, and their table"
    (folder/'images'/sub).mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame([dict(photo_id=f'p{i}', file=f'{sub}p{i}.jpg', species=s, country=c, seconds=t)
                          for i, (s, c, t) in enumerate(rows)])
    for f in table.file: (folder/'images'/f).write_bytes(b'x')
    return table


def write_rows(path, head, rows):
    "A CSV"
    with open(path, 'w', newline='', encoding='utf-8') as f: csv.writer(f).writerows([head, *rows])
    return path


def agrees(manifest, table, *columns):
    "The same photos with the same labels, none flagged"
    assert manifest.photo_id.tolist() == table.photo_id.tolist()
    assert manifest.species.tolist() == table.species.tolist()
    for c in columns: assert manifest[c].fillna('').tolist() == table[c].tolist(), c
    assert manifest.flag.eq('').all(), manifest.flag


@brief
@given(collections)
def test_aicrowd(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp('aicrowd')
    t = lay_out(folder, rows)
    labels = write_rows(folder/'l.csv', 'hashed_id country continent scientific_name filename'.split(),
                        zip(t.photo_id, t.country, t.country, t.species, t.file))
    agrees(read_aicrowd(labels, folder/'images'), t, 'country')


@brief
@given(collections)
def test_snakeclef(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp('clef')
    t = lay_out(folder, rows, '1990/')
    one = write_rows(folder/'2021.csv', ['', *'binomial country UUID source subset class_id image_path'.split()],
                     [(i, s, c, u, 'x', 'train', 0, f'/Datasets/SnakeCLEF-2021/{f}')
                      for i, (s, c, u, f) in enumerate(zip(t.species, t.country, t.photo_id, t.file))])
    two = write_rows(folder/'2022.csv', 'observation_id endemic binomial_name country code class_id file_path'.split(),
                     [(7, False, s, c, 'x', 0, f) for s, c, f in zip(t.species, t.country, t.file)])
    agrees(read_snakeclef(one, folder/'images'), t, 'country')
    found = read_snakeclef(two, folder/'images')
    assert found.species.tolist() == t.species.tolist() and found.flag.eq('').all()


@brief
@given(collections, st.sampled_from(',;\t|'))
def test_any_table(tmp_path_factory, rows, sep):
    folder = tmp_path_factory.mktemp('table')
    t = lay_out(folder, rows)
    t.to_csv(folder/'l.csv', index=False, sep=sep)
    columns = dict(photo_id='photo_id', file='file', species='species', country='country')
    agrees(read_table(folder/'l.csv', folder/'images', columns=columns, sep=sep), t, 'country')


@brief
@given(collections)
def test_folders(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp('folders')
    t = lay_out(folder, rows).assign(path=lambda t: [str(folder/'images'/f) for f in t.file])
    laid = write_folders(t, folder/'out', by='species')
    back = read_folders(folder/'out')
    assert len(back) == len(t) and laid.done.isin(['linked', 'copied']).all()
    assert back.species.nunique() == t.species.nunique()
    sizes = back.groupby('species').size().sort_values().tolist()
    assert sizes == t.groupby('species').size().sort_values().tolist()


@brief
@given(collections)
def test_camera_traps(tmp_path_factory, rows):
    "COCO and Camtrap DP, and from the one to the other"
    folder = tmp_path_factory.mktemp('traps')
    t = lay_out(folder, rows).assign(location='L1', sequence=lambda t: 's' + t.photo_id)
    t = t.assign(path=[str(folder/'images'/f) for f in t.file], taken_at=pd.to_datetime(t.seconds, unit='s'), flag='')
    t = t.drop(columns=['file', 'country', 'seconds'])
    coco = read_coco(write_coco(t, folder/'c.json', images=folder/'images'), folder/'images')
    agrees(coco, t, 'location', 'sequence', 'path')
    assert (coco.taken_at == t.taken_at).all()
    write_camtrap(coco, folder/'dp', title='x', contributors=['y'], places=dict(L1=(1., 2.)), zone='Z',
                  sampling_design='opportunistic')
    agrees(read_camtrap(folder/'dp', folder/'images'), t, 'location', 'sequence', 'path')


def test_camera_traps_with_a_detector(tmp_path):
    "What a detector and the camera's background add comes through Camtrap DP as well"
    season = draw_traps(tmp_path/'season', 60, size=48, cameras=4, species=6, seed=1, workers=0, boxes=True)
    told = read_coco(tmp_path/'season'/'annotations.json', tmp_path/'season'/'images')
    seen = add_detections(told, read_detections(draw_detections(season, tmp_path/'detections.json')))
    seen = write_changes(choose_crops(seen), tmp_path/'changes', size=32).assign(path=lambda t: t.photo_path)
    write_camtrap(seen, tmp_path/'dp', title='x', contributors=['y'], places=dict.fromkeys(seen.location, (1., 2.)),
                  zone='Z', sampling_design='opportunistic')
    back = read_camtrap(tmp_path/'dp', tmp_path/'season'/'images')
    back = back.set_index('photo_id').loc[seen.photo_id].reset_index()
    for column in ('path', 'species', 'labels', 'location', 'sequence', 'detections', 'animals', 'note', 'flag',
                   'photo_path'):
        assert back[column].astype(str).tolist() == seen[column].astype(str).tolist(), column
    assert np.allclose(back.animal_confidence, seen.animal_confidence) and (back.taken_at == seen.taken_at).all()
    assert np.allclose(read_crops(back.crop), read_crops(seen.crop)) and len(seen) == 60
    first, second = (list_boxes(t) for t in (seen, back))
    sides = ['x', 'y', 'width', 'height']
    assert (first.category == second.category).all() and np.allclose(first[sides], second[sides], atol=1e-4)


@pytest.mark.parametrize('name', ['snakeclef2021_5000.csv', 'snakeclef2022_fold0.csv'])
def test_real_tables(real_data, name):
    "Every row of the published label files becomes a row"
    classes = real_data/'tables'/'snakeclef2022_class_counts.csv' if '2022' in name else None
    manifest = read_snakeclef(real_data/'tables'/name, None, classes=classes)
    assert len(manifest) == len(pd.read_csv(real_data/'tables'/name)) and manifest.species.notna().all()
