"Every way in which labels and photos fail to fit together: one sentence or a flagged row, never a wrong label"
import json
import os
import re
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snakeid.core import SnakeidError
from snakeid.data.camtrap import FIELDS, read_camtrap, write_camtrap
from snakeid.data.cells import read_cells
from snakeid.data.coco import read_coco, write_coco
from snakeid.data.events import match_events
from snakeid.data.files import list_files, locate_photos, name_apart
from snakeid.data.manifest import attach_photos, pick_species, read_folders
from snakeid.data.observations import name_type
from snakeid.data.records import read_records
from snakeid.data.tables import describe_reading, read_aicrowd, read_snakeclef, read_table, write_folders
from snakeid.data.times import format_times, read_times

COLUMNS = dict(photo_id='id', file='file', species='species')
needs_no_root = pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid() == 0, reason="root may read everything")
needs_bytes = pytest.mark.skipif(sys.platform != 'linux', reason="only Linux takes any bytes as a file name")
slow_files = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def touch(folder, *names):
    "Empty files, whose folders are made"
    for name in names:
        (Path(folder)/name).parent.mkdir(parents=True, exist_ok=True)
        (Path(folder)/name).write_bytes(b'')
    return Path(folder)


def flags(manifest): return dict(zip(manifest.photo_id, manifest.flag))


# ---- CSVs ----


@pytest.mark.parametrize('sep', [',', ';', '\t', '|'])
@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
def test_csv_of_any_house(sep, end, encoding, tmp_path):
    touch(tmp_path/'images', 'a.jpg', 'b.jpg')
    lines = [sep.join(row)
             for row in (['id', 'species', 'file'], ['007', 'Vipère', 'a.jpg'], ['008', f'"x{sep}y"', 'b.jpg'])]
    (tmp_path/'labels.csv').write_bytes(end.join(lines).encode(encoding))
    options = dict(encoding=encoding) if encoding == 'utf-16' else {}
    m = read_table(tmp_path/'labels.csv', tmp_path/'images', columns=COLUMNS, **options)
    assert m.photo_id.tolist() == ['007', '008'] and m.species.tolist() == ['Vipère', ' '.join(f'x{sep}y'.split())]
    assert (m.flag == '').all()


def test_odd_byte_far_down_is_named(tmp_path):
    body = ''.join(f'{i},viper,{i}.jpg\n' for i in range(30_000)) + 'x,Vipère,x.jpg\n'
    data = ('id,species,file\n' + body).encode('latin-1')
    (tmp_path/'labels.csv').write_bytes(data)
    with pytest.raises(SnakeidError, match=rf"line 30002, byte {data.index(0xe8)}\): pass encoding='latin-1'"):
        read_table(tmp_path/'labels.csv', None, columns=COLUMNS)
    assert read_table(tmp_path/'labels.csv', None, columns=COLUMNS, encoding='latin-1').species.iloc[-1] == 'Vipère'


def test_zero_byte_far_down_is_named(tmp_path):
    data = b'id,species,file\n' + b'1,viper,a.jpg\n'*100_000 + b'2,vi\0per,b.jpg\n'
    (tmp_path/'labels.csv').write_bytes(data)
    with pytest.raises(SnakeidError, match=rf"line 100002 \(byte {data.index(0)}\)"): read_cells(tmp_path/'labels.csv')


@pytest.mark.parametrize('text,found', [
    ('id,species,file\n1,viper\n2,cobra,b.jpg\n', ['no file name', '']),          # a line cut short
    ('id,species,file\n1,"vi\nper",a.jpg\n2,cobra,b.jpg\n', ['', '']),            # a line break in a cell
    ('id,species,file\n\n1,viper,a.jpg\n\n2,cobra,b.jpg\n\n', ['', '']),          # empty lines
    ('id, species , file\n1, viper , a.jpg\n2, cobra, b.jpg \n', ['', '']),       # blanks around
    ('id,species,file,file\n1,viper,a.jpg,x\n2,cobra,b.jpg,y\n', ['', ''])],      # a column named twice
    ids=['short line', 'line break', 'empty lines', 'blanks', 'same name'])
def test_csv_is_a_little_odd(text, found, tmp_path):
    touch(tmp_path/'images', 'a.jpg', 'b.jpg')
    (tmp_path/'labels.csv').write_text(text)
    m = read_table(tmp_path/'labels.csv', tmp_path/'images', columns=COLUMNS, unlisted=False)
    assert m.flag.tolist() == found and m.species.str.split().str.join('').tolist() == ['viper', 'cobra']


@needs_no_root
def test_csv_not_ours_to_read(tmp_path):
    (tmp_path/'labels.csv').write_text('id,species,file\n')
    (tmp_path/'labels.csv').chmod(0)
    with pytest.raises(SnakeidError, match="check its permissions"): read_cells(tmp_path/'labels.csv')


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason="only Linux holds a process to its share of memory")
@pytest.mark.parametrize('kind', ['csv', 'json'])
def test_labels_larger_than_the_memory(kind, tmp_path):
    # Wherever the memory ends, there is one sentence
    with open(tmp_path/'labels', 'w') as f:
        if kind == 'csv':
            f.write('id,species,file,more\n')
            f.writelines(f'{i},species {i % 99},{i:040d}.jpg,{"x"*40}\n' for i in range(300_000))
        else:
            f.write('{"images": [{"id": 0, "file_name": "a.jpg"}')
            one = ',\n{{"id": {0}, "file_name": "{0:040d}.jpg", "seq_id": "{0:040d}"}}'
            f.writelines(one.format(i) for i in range(1, 300_000))
            f.write(']}')
    code = '''if True:
        import resource, sys
        from snakeid.data.coco import read_coco
        from snakeid.data.tables import read_table
        read = read_coco
        if sys.argv[3] == 'csv':
            def read(*args): return read_table(*args, columns=dict(photo_id='id', file='file', species='species'))
        now = int(open('/proc/self/status').read().split('VmSize:')[1].split()[0])*1024
        resource.setrlimit(resource.RLIMIT_AS, (now + int(sys.argv[2])*2**20,)*2)
        try: print(len(read(sys.argv[1], None)))
        except ValueError as e: print(e)
        '''
    said = []
    for room in (2, 40, 120, 4000):
        done = subprocess.run([sys.executable, '-c', code, tmp_path/'labels', str(room), kind], capture_output=True,
                              text=True)
        assert done.returncode == 0 and not done.stderr, done.stderr
        said.append(done.stdout.strip())
    assert said[-1] == '300000'
    mend = dict(csv='read only the columns that you need', json='divide its images')[kind]
    for text in said[:3]: assert f'does not fit into the memory that is left: {mend}' in text and '\n' not in text


# ---- Names and files ----


@pytest.mark.parametrize('name,there', [
    ('/Datasets/SnakeCLEF-2021/inaturalist/x.jpg', 'inaturalist/x.jpg'),
    ('/Datasets/SnakeCLEF-2021/inaturalist/x.jpg', 'x.jpg'),
    (r'C:\Users\me\Fotos\north\x.jpg', 'north/x.jpg'), (r'\\server\share\north\x.jpg', 'share/north/x.jpg'),
    (r'north\x.jpg', 'north/x.jpg'), ('./north//x.jpg', 'north/x.jpg'), ('north/./x.jpg', 'north/x.jpg'),
    ('/north/x.jpg', 'deep/north/x.jpg'), ('../north/x.jpg', 'north/x.jpg'), ('x.jpg', 'very/deep/down/x.jpg'),
    ('north/x.jpg', 'deep/north/x.jpg'), (' x.jpg ', 'x.jpg'), ('IMG_1.JPG', 'north/img_1.jpg'),
    ('North/x.jpg', 'north/x.jpg'), ('https://host.org/a/north/x.jpg', 'north/x.jpg'), ('x.heic', 'x.heic'),
    ('no-suffix', 'sub/no-suffix'), ('a,b;c.jpg', 'a,b;c.jpg'), ('.hidden.jpg', '.hidden.jpg'),
    ('蛇/蝮.jpg', '蛇/蝮.jpg'),
    ('caf\u00e9/\u00e9.jpg', 'cafe\u0301/e\u0301.jpg'), ('cafe\u0301/e\u0301.jpg', 'caf\u00e9/\u00e9.jpg')])
def test_name_finds_its_file(name, there, tmp_path):
    touch(tmp_path, there, 'other/y.jpg')
    found, unlisted = locate_photos([name], tmp_path)
    assert found.flag[0] == '' and found.path[0] == str(tmp_path/there) and unlisted == ['other/y.jpg']


@pytest.mark.parametrize('name,there', [
    ('north/x.jpg', 'south/x.jpg'), ('/cams/north/100EMK/x.jpg', 'south/100EMK/x.jpg'), ('x.jpg', 'xx.jpg'),
    ('x.jpg', 'ax.jpg'), ('x.jpg', 'x.jpg.jpg'), ('x.jpg', 'x.png'), ('n'*300 + '.jpg', 'n.jpg'), ('a\\', 'a.jpg'),
    ('/', 'x.jpg'), ('north/', 'north/x.jpg')])
def test_name_finds_no_other_file(name, there, tmp_path):
    touch(tmp_path, there)
    found, unlisted = locate_photos([name], tmp_path)
    assert found.flag[0].startswith('missing file') and unlisted == [there]


def test_longest_end_wins(tmp_path):
    touch(tmp_path, 'x.jpg', 'north/x.jpg', '2021/north/x.jpg', 'old/x.jpg')
    names = ['/d/2021/north/x.jpg', '/d/2022/north/x.jpg', '/d/east/x.jpg', 'x.jpg']
    found, _ = locate_photos(names, tmp_path)
    ends = [p.removeprefix(str(tmp_path)) for p in found.path]
    assert ends == ['/2021/north/x.jpg', '/north/x.jpg', '/x.jpg', '/x.jpg']
    assert (found.flag == '').all()


def test_capitals_count_where_they_must(tmp_path):
    if not (touch(tmp_path, 'a.jpg')/'A.jpg').exists():
        touch(tmp_path, 'A.jpg', 'b.jpg', 'B.jpg')
        found, _ = locate_photos(['A.jpg', 'a.jpg', 'A.JPG', 'b.JPG'], tmp_path)
        assert [Path(p).name for p in found.path[:2]] == ['A.jpg', 'a.jpg'] and (found.flag[:2] == '').all()
        assert found.flag[2:].str.startswith('ambiguous').all()


PART = st.sampled_from(['a', 'b', 'A', 'é', 'e\u0301', 'c d'])
PLACE = st.lists(PART, min_size=1, max_size=3).map('/'.join)


def spell(path, draw):
    "The same path as another machine would write it"
    path = draw(st.sampled_from(['', '', '/', '/mnt/', 'C:\\', './']))+path
    if draw(st.booleans()): path = path.replace('/', '\\')
    return unicodedata.normalize(draw(st.sampled_from(['NFC', 'NFD'])), path)


def means(name, files):
    "The files that a name can mean, by the rule as the notebook tells it"
    def plain(p, fold):
        parts = [q for q in unicodedata.normalize('NFC', p).replace('\\', '/').strip().split('/') if q not in ('', '.')]
        return [q.lower() for q in parts] if fold else parts
    if name in files: return [name]
    for fold in (False, True):
        n, known = plain(name, fold), [(f, plain(f, fold)) for f in files]
        if found := [f for f, p in known if p == n]: return found
        if found := [f for f, p in known if p[-len(n):] == n]: return found
        for k in range(len(n)-1, 0, -1):
            if found := [f for f, p in known if p == n[-k:]]: return found
    return []


@slow_files
@given(st.data())
def test_names_find_what_they_mean(tmp_path_factory, data):
    # Every name against every file by brute force: no wrong file, no file overlooked
    files = data.draw(st.lists(PLACE, min_size=1, max_size=6, unique=True))
    folder = tmp_path_factory.mktemp('t')
    for f in files:
        try: touch(folder, f)
        except (FileExistsError, NotADirectoryError, IsADirectoryError): pass
    files = list_files(folder)
    names = [spell(data.draw(PLACE), data.draw) for _ in range(4)]
    found, unlisted = locate_photos(names, folder)
    for name, path, flag in zip(names, found.path, found.flag):
        expected = means(name, files)
        if not expected: assert flag.startswith('missing file'), (name, files)
        elif len(expected) > 1: assert flag.startswith('ambiguous'), (name, files, expected)
        else: assert (flag, path) == ('', os.path.join(folder, expected[0])), (name, files)
    used = {p for p, f in zip(found.path, found.flag) if not f.startswith('missing')}
    assert {os.path.join(folder, f) for f in unlisted} | used == {os.path.join(folder, f) for f in files}


@needs_bytes
def test_file_name_that_is_no_text(tmp_path):
    # As archives of the nineties unpack them; a table cannot hold such a name, and its photo must not vanish
    touch(tmp_path, 'viper/a.jpg')
    with open(os.path.join(os.fsencode(tmp_path), b'viper', b'Vip\xe8re.jpg'), 'wb'): pass
    m = read_folders(tmp_path)
    assert flags(m) == {'viper/a.jpg': '', r'viper/Vip\xe8re.jpg': 'file name is not UTF-8: rename the file'}
    m.to_csv(tmp_path/'manifest.csv')
    (tmp_path/'labels.csv').write_text('id,species,file\n1,viper,a.jpg\n2,viper,Vipère.jpg\n', encoding='utf-8')
    m = read_table(tmp_path/'labels.csv', tmp_path, columns=COLUMNS)
    assert flags(m)['2'] == 'missing file' and 'not UTF-8' in flags(m)[r'viper/Vip\xe8re.jpg']


def test_labels_that_repeat(tmp_path):
    touch(tmp_path/'images', *(f'{c}.jpg' for c in 'abcde'))
    rows = [('1', 'viper', 'a.jpg'), ('1', 'viper', 'a.jpg'), ('2', '', 'b.jpg'), ('2', 'cobra', 'b.jpg'),
            ('3', 'viper', 'gone.jpg'), ('3', 'viper', 'c.jpg'), ('4', 'viper', 'd.jpg'), ('5', 'cobra', 'd.jpg'),
            ('6', 'cobra', ''), ('7', 'boa', '')]
    (tmp_path/'labels.csv').write_text('id,species,file\n' + '\n'.join(','.join(r) for r in rows))
    m = read_table(tmp_path/'labels.csv', tmp_path/'images', columns=COLUMNS)
    assert m.photo_id.is_unique and flags(m) == {
        '1': '', '1#2': 'listed twice', '2': 'no label', '2#2': '', '3': 'missing file', '3#2': '',
        '4': 'listed with two species', '5': 'listed with two species', '6': 'no file name', '7': 'no file name',
        'e.jpg': 'no label: not in the labels'}
    assert describe_reading(m) == (
        "10 rows of 3 species, 3 of them fit for use (3 without a file, 1 without a label, 3 listed twice); "
        "1 photo is not in the labels")


@pytest.mark.parametrize('written', ['Naja  naja', ' Naja naja ', 'Naja\u00a0naja', 'Naja\tnaja'])
def test_species_is_one_whatever_its_blanks(written, tmp_path):
    (tmp_path/'labels.csv').write_text(f'id;species;file\n1;Naja naja;a.jpg\n2;{written};b.jpg\n', encoding='utf-8')
    assert read_table(tmp_path/'labels.csv', None, columns=COLUMNS).species.unique().tolist() == ['Naja naja']


def test_species_in_two_forms_of_unicode(tmp_path):
    (tmp_path/'labels.csv').write_text('id,species,file\n1,Vip\u00e8re,a.jpg\n2,Vipe\u0300re,b.jpg\n3, ,c.jpg\n',
                                       encoding='utf-8')
    species = read_table(tmp_path/'labels.csv', None, columns=COLUMNS).species
    assert species[0] == species[1] and pd.isna(species[2])


def test_columns_of_ours_keep_their_values(tmp_path):
    text = 'name,kind,path,species,flag,photo_id,csv_path,note,file\na.jpg,viper,p,s,f,i,c,n,o\n'
    (tmp_path/'labels.csv').write_text(text)
    m = read_table(tmp_path/'labels.csv', None, columns=dict(file='name', species='kind'))
    assert m.iloc[0].to_dict() == {
        'photo_id': 'a.jpg', 'path': 'a.jpg', 'species': 'viper', 'csv_path': 'p', 'csv_species': 's', 'csv_flag': 'f',
        'csv_photo_id': 'i', 'csv_path#2': 'c', 'note': 'n', 'csv_file': 'o', 'flag': ''}


def test_times_that_cannot_be_read_are_noted(tmp_path):
    rows = '1,viper,a.jpg,2019-03-01 10:00:00\n2,viper,b.jpg,yesterday\n'
    (tmp_path/'labels.csv').write_text(f'id,species,file,date\n{rows}')
    m = read_table(tmp_path/'labels.csv', None, columns=dict(COLUMNS, taken_at='date'))
    assert m.taken_at.isna().tolist() == [False, True] and (m.flag == '').all()
    assert m.note.tolist() == ['', "unreadable time: 'yesterday'"]


def test_a_table_survives_csv_and_parquet(tmp_path):
    touch(tmp_path/'images', 'a.jpg', 'b.jpg')
    (tmp_path/'labels.csv').write_text('id,species,file,date\n1,viper,a.jpg,2019-03-01 10:00:00\n2,,b.jpg,\n')
    m = read_table(tmp_path/'labels.csv', tmp_path/'images', columns=dict(COLUMNS, taken_at='date'))
    m.to_parquet(tmp_path/'m.parquet')
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path/'m.parquet'), m)
    m.to_csv(tmp_path/'m.csv', index=False)
    assert pd.read_csv(tmp_path/'m.csv', keep_default_na=False).flag.tolist() == ['', 'no label']


@settings(deadline=None)
@given(st.lists(st.sampled_from(['1', '2', '1#2', '1#3', '', '#2', '1#2#2'])))
def test_names_apart(names):
    apart = name_apart(names)
    assert len(set(apart)) == len(names) and all(a == n or a.startswith(f'{n}#') for a, n in zip(apart, names))
    assert all(apart[names.index(n)] == n for n in set(names))


# ---- Times ----

WHEN = st.datetimes(min_value=pd.Timestamp('0001-01-01').to_pydatetime(),
                    max_value=pd.Timestamp('9999-12-31').to_pydatetime())
ZONE = st.sampled_from(['', 'Z', '+08:00', '-03:30', '+14:00'])


@settings(deadline=None)
@given(st.lists(st.tuples(WHEN, ZONE), min_size=1, max_size=5), st.sampled_from([' ', 'T']))
def test_times_come_back(pairs, between):
    when = pd.Series([np.datetime64(w, 'us') for w, _ in pairs], dtype='datetime64[us]')
    zone = pd.Series([z for _, z in pairs], dtype='str')
    again = read_times(format_times(when, zone, between=between))
    assert again.taken_at.tolist() == when.tolist() and again.zone.tolist() == zone.tolist()
    assert (again.note == '').all()


@settings(deadline=None)
@given(WHEN.map(lambda w: w.replace(microsecond=0)))
def test_every_style_is_the_same_second(when):
    texts = [when.strftime(f).zfill(19) if f.startswith('%Y') else when.strftime(f) for f in (
        '%Y-%m-%d %H:%M:%S', '%Y:%m:%d %H:%M:%S', '%Y/%m/%d %H:%M:%S', '%Y-%m-%dT%H:%M:%S')]
    texts += [f'{when.day}.{when.month}.{when.year:04d} {when.hour}:{when.minute:02d}:{when.second:02d}']
    assert set(read_times(texts).taken_at) == {pd.Timestamp(when)}
    for first, text in ((True, f'{when.day}/{when.month}/{when.year:04d}'),
                        (False, f'{when.month}/{when.day}/{when.year:04d}')):
        half = f'{when.hour % 12 or 12}:{when.minute:02d}:{when.second:02d} {"PM" if when.hour > 11 else "AM"}'
        assert read_times([f'{text} {half}'], day_first=first).taken_at[0] == pd.Timestamp(when)


@settings(deadline=None)
@given(st.lists(st.text(max_size=30), max_size=5))
def test_no_text_stops_the_times(texts):
    times = read_times(texts)
    read = times.taken_at.notna() | (times.note != '')
    assert len(times) == len(texts) and read.tolist() == [bool(t.strip()) for t in texts]


# ---- Several species in one photo ----


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(['empty', 'zebra', 'ibis', 'lion']),
                          st.sampled_from([np.nan, 1., 2.])),
                max_size=15), st.sampled_from(['rarest', 'largest', 'first']))
def test_picked_species(rows, policy):
    seen = pd.DataFrame(rows, columns=['photo', 'species', 'area']).astype(dict(species='str', area=float, photo=int))
    picked = pick_species(seen, policy)
    photos_of = {s: {p for p, t, _ in rows if t == s} for _, s, _ in rows}
    assert set(picked.index) == {p for p, _, _ in rows}
    for photo, row in picked.iterrows():
        mine = [(s, 0 if np.isnan(a) else a) for p, s, a in rows if p == photo]
        animals = [m for m in mine if m[0] != 'empty'] or mine
        assert row.labels.split('; ') == list(dict.fromkeys(s for s, _ in mine))
        expected = dict(first=lambda m: 0, rarest=lambda m: len(photos_of[m[0]]), largest=lambda m: -m[1])[policy]
        assert row.species == min(animals, key=expected)[0]


# ---- Folders of classes ----

ODD = ['CON', 'con', 'nul.txt', '..', '.', '', ' ', 'a/b', 'a\\b', 'a_b', 'A_B', 'x'*400, 'x'*399 + 'y', 'é',
       'e\u0301', 'a:b', 'tab\tname',
       'end.', 'end ', '蛇'*200, '../../etc', '~', 'COM1.jpg', 'Naja naja', 'naja Naja', '.hidden', '\u202egpj', '-rf']


@slow_files
@given(st.lists(st.tuples(st.sampled_from(ODD), st.sampled_from(ODD)), min_size=1, max_size=12,
                unique_by=lambda t: t[1]), st.booleans())
def test_folders_hold_every_photo_once(tmp_path_factory, rows, copy):
    folder = tmp_path_factory.mktemp('t')
    touch(folder, *(f'images/{i}.jpg' for i in range(len(rows))))
    for i in range(len(rows)): (folder/'images'/f'{i}.jpg').write_text(str(i))
    m = pd.DataFrame(dict(photo_id=[r[1] for r in rows],
                          path=[str(folder/'images'/f'{i}.jpg') for i in range(len(rows))],
                          species=[r[0] for r in rows]))
    if (m.species == '').all(): return
    laid = write_folders(m, folder/'out', by='species', copy=copy)
    done = laid[laid.target != '']
    assert len(done) == (m.species != '').sum() and set(laid.done[laid.target == '']) <= {'left out: no species'}
    assert sorted(list_files(folder/'out')) == sorted(done.target) and done.target.str.casefold().is_unique
    for i, target in done.target.items():
        assert (folder/'out'/target).read_text() == str(i)
        for part in target.split('/'):
            assert len(part.encode()) < 256 and part not in ('', '.', '..') and part[-1] not in '. '
            assert not set(part) & set('\\/:*?"<>|')
            assert part.split('.')[0].lower() not in ('con', 'nul', 'com1')
    # one folder a species, though capitals may not count
    spread = done.assign(species=m.species, folder=done.target.str.split('/').str[0].str.casefold())
    assert spread.groupby('folder').species.nunique().eq(1).all()
    assert spread.groupby('species').folder.nunique().eq(1).all()
    # again, in another order: nothing moves
    again = write_folders(m.iloc[::-1], folder/'out', by='species', copy=copy)
    assert set(again.done) <= {'there already', 'left out: no species'} and set(again.target) == set(laid.target)
    assert sorted(list_files(folder/'images')) == sorted(f'{i}.jpg' for i in range(len(rows)))


def test_folders_over_disks_are_copies(tmp_path, monkeypatch):
    touch(tmp_path/'images', 'a.jpg')
    def no_link(*args, **kwargs): raise OSError(18, 'Invalid cross-device link')
    monkeypatch.setattr(os, 'link', no_link)
    m = pd.DataFrame(dict(path=[str(tmp_path/'images'/'a.jpg')], species=['viper']))
    assert write_folders(m, tmp_path/'out', by='species').done[0] == 'copied'


def test_folders_of_a_link_hold_the_photo(tmp_path):
    touch(tmp_path/'images', 'a.jpg')
    (tmp_path/'images'/'link.jpg').symlink_to('a.jpg')
    m = pd.DataFrame(dict(path=[str(tmp_path/'images'/'link.jpg')], species=['viper']))
    laid = write_folders(m, tmp_path/'out', by='species')
    target = tmp_path/'out'/laid.target[0]
    assert not target.is_symlink() and target.samefile(tmp_path/'images'/'a.jpg')


# ---- Real label files ----


@pytest.fixture(scope='module')
def tables(real_data):
    if not (real_data/'tables').is_dir(): pytest.skip("no tables among the real data")
    return real_data/'tables'


def test_real_snakes_by_either_reader(real_data):
    folder = real_data/'snakes14'
    if not folder.is_dir(): pytest.skip("no snakes14 among the real photos")
    columns = dict(photo_id='hashed_id', file='filename', species='scientific_name', country='country')
    one = read_aicrowd(folder/'train_labels.csv', folder/'images')
    two = read_table(folder/'train_labels.csv', folder/'images', columns=columns)
    same = ['photo_id', 'path', 'species', 'flag']
    pd.testing.assert_frame_equal(one[same], two[same])
    assert describe_reading(one) == '1,183 rows of 14 species, 1,183 of them fit for use'


def test_real_camera_trap_table(real_data):
    folder = real_data/'camtrap_sabah'
    if not folder.is_dir(): pytest.skip("no camtrap_sabah among the real photos")
    m = read_table(folder/'labels.csv', folder/'images',
                   columns=dict(file='filename', species='binomial', location='station',
                                                                      taken_at=('date', 'time')))
    assert len(m) == 68 and m.location.nunique() == 3 and m.species.nunique() == 5
    assert m.code[m.flag != ''].tolist() == ['UNID'] and set(m.flag) == {'', 'no label'}
    assert m.taken_at.notna().all() and str(m.taken_at[0]) == '2009-04-21 00:40:00' and 'note' not in m


def test_real_snakeclef_2021(tables):
    m = read_snakeclef(tables/'snakeclef2021_5000.csv', None)
    raw = pd.read_csv(tables/'snakeclef2021_5000.csv')
    assert len(m) == len(raw) == 5000 and m.species.nunique() == raw.binomial.nunique()
    assert (m.photo_id == raw.UUID).all()
    assert set(m.split) == {{'val': 'valid'}.get(s, s) for s in set(raw.subset)} and m.country.notna().all()
    assert (m.path == raw.image_path).all()


def test_real_snakeclef_2022(tables):
    m = read_snakeclef(tables/'snakeclef2022_fold0.csv', None, classes=tables/'snakeclef2022_class_counts.csv')
    names = pd.read_csv(tables/'snakeclef2022_class_counts.csv').set_index('class_id').binomial
    assert (m.species == names[m.class_id.astype(int)].to_numpy()).all() and (m.flag == '').all() and len(m) > 50_000
    # Folders are called by the species, so the two must agree
    assert (m.path.str.split('/').str[1].str.replace('_', ' ') == m.species).mean() > .99


def test_real_iwildcam_categories(tables):
    cells = read_cells(tables/'iwildcam2020_categories.csv', ['category_id', 'name'])
    assert cells.name[0] == 'empty' and cells.category_id[0] == '0' and len(cells) > 180


def test_labels_alone_need_no_photos(tmp_path):
    m = attach_photos(pd.DataFrame(dict(photo_id=['1', '2'], species=['a', None], file=['x.jpg', None])), None,
                      source='here')
    assert m.flag.tolist() == ['', 'no file name; no label'] and m.path.tolist() == ['x.jpg', '']


# ---- COCO Camera Traps ----


def save_json(path, thing):
    Path(path).write_text(json.dumps(thing), encoding='utf-8')
    return path


IDENT = st.sampled_from([1, 2, '1', '2', 2.0, 'x', 'é', 'a/b', None, '', True])
TIME = st.sampled_from([None, '', '2019-03-01 12:34:56', '2019-03-01T12:34:56.25Z', '2019:03:01 12:34:56',
                        '03/04/2019 12:34', '25/12/2019 10:00', '12/25/2019 1:05 PM', 'soon', 0, 1551443696,
                        '2019-03-01T12:34:56+08:00'])
BOX = st.sampled_from([None, [1, 2, 3, 4], [1.5, 2, 3, 4], [0, 0, 9, 9], [1, 2, 3], [], 'x',
                       [1, 2, -3, 4], [None]*4, {'x': 1}])
NAME = st.sampled_from(['zebra', 'Zebra', 'ibis', 'empty', 'Empty', 'blank', 'a; b', 'a, b', '', ' ',
                        'category 9', 'é', None, 5])
EXTRA = st.sampled_from([None, 1, 2.5, 3.0, 'text', True, [1, 2], {'a': 1}, '\ud83d'])


@st.composite
def coco_files(draw):
    "COCO files with all that can be odd about them"
    file = st.sampled_from(['north/1.jpg', 'south/1.jpg', 'north/2.jpg', '1.jpg', '', r'D:\cam\north\1.jpg',
                            'gone.jpg', 7])
    def things(kinds, least, **must):
        one = st.fixed_dictionaries(must, optional=kinds)
        return draw(st.lists(one, min_size=least, max_size=6))
    images = things(dict(
        id=IDENT, datetime=TIME, date_captured=TIME, seq_id=IDENT, location=IDENT, odd=EXTRA, path=EXTRA, species=EXTRA,
        taken_at=EXTRA, corrupt=st.sampled_from([True, False, None, 'true']), width=st.sampled_from([64, 64.0, None]),
        frame_num=st.integers(0, 3), split=st.sampled_from(['train', 'valid']), flag=st.sampled_from(['', 'blurred']),
        note=st.sampled_from(['', 'hm'])), 1, file_name=file)
    annotations = things(dict(bbox=BOX, count=st.sampled_from([1, 2.0, None]), score=EXTRA,
                              sequence_level_annotation=st.sampled_from([True, False, None])), 0,
                         image_id=IDENT, category_id=IDENT)
    return dict(images=images, annotations=annotations, categories=things(dict(name=NAME), 0, id=IDENT))


@slow_files
@given(coco_files(), st.sampled_from(['rarest', 'largest', 'first']), st.sampled_from(['photos', 'none']))
def test_coco_there_and_back(tmp_path_factory, coco, label, images):
    folder = tmp_path_factory.mktemp('t')
    touch(folder/'images', 'north/1.jpg', 'north/2.jpg', 'south/1.jpg', '1.jpg', 'more/9.jpg')
    images = folder/'images' if images == 'photos' else None
    try: m = read_coco(save_json(folder/'one.json', coco), images, label=label)
    except SnakeidError as e:
        assert 'none of the' in str(e)
        return
    # Nothing is lost: a row for every image, and every annotation's species among the labels of a row
    assert len(m) >= len(coco['images']) and m.photo_id.is_unique
    told = m.labels.dropna().str.split('; ').map(len).sum()
    assert told > 0 or not coco['annotations']
    assert (m.species.isna() == m.labels.isna()).all() and (m.flag[m.species.isna()] != '').all()
    pd.testing.assert_frame_equal(read_coco(write_coco(m, folder/'two.json'), images, label=label), m)
    m.to_parquet(folder/'m.parquet')
    again = pd.read_parquet(folder/'m.parquet')
    again, m = (t.astype(object).where(t.notna(), None) for t in (again, m))
    pd.testing.assert_frame_equal(again, m)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.sampled_from([None, [0, 0, 2, 2], [0, 0, 5, 5]])),
                max_size=12))
def test_coco_labels_by_hand(rows):
    # Beside a reading by plain loops
    names = ['empty', 'zebra', 'ibis', 'lion']
    coco = dict(images=[dict(id=i, file_name=f'{i}.jpg') for i in range(5)],
                categories=[dict(id=i, name=n) for i, n in enumerate(names)],
                annotations=[dict(id=n, image_id=i, category_id=c, **(dict(bbox=b) if b else {}))
                             for n, (i, c, b) in enumerate(rows)])
    with tempfile.TemporaryDirectory() as folder:
        path = save_json(Path(folder)/'x.json', coco)
        for label in ('rarest', 'largest', 'first'):
            m = read_coco(path, None, label=label)
            photos_of = [{i for i, d, _ in rows if d == c} for c in range(4)]
            key = dict(first=lambda a: 0, largest=lambda a: -(a[1][2]*a[1][3] if a[1] else 0),
                       rarest=lambda a, photos_of=photos_of: len(photos_of[a[0]]))[label]
            for i in range(5):
                mine = [(c, b) for j, c, b in rows if j == i]
                if not mine:
                    assert pd.isna(m.species[i]) and m.flag[i] == 'no label'
                    continue
                assert m.labels[i] == '; '.join(dict.fromkeys(names[c] for c, _ in mine)) and m.flag[i] == ''
                assert m.species[i] == names[min([a for a in mine if a[0]] or mine, key=key)[0]]
                if m.boxes[i]: assert [a['species'] for a in json.loads(m.boxes[i])] == [names[c] for c, _ in mine]
                else: assert len({c for c, _ in mine}) == len(mine) and not any(b for _, b in mine)


@pytest.mark.parametrize('share', [.02, .3, .6, .9, .999])
def test_coco_cut_short(share, tmp_path):
    images = [dict(id=i, file_name=f'{i}é.jpg') for i in range(200)]
    text = json.dumps(dict(info={}, images=images, annotations=[], categories=[]), indent=1)
    data = text.encode()[:int(len(text.encode())*share)]
    (tmp_path/'x.json').write_bytes(data.decode('utf-8', 'ignore').encode())
    with pytest.raises(SnakeidError, match=r"no whole JSON and seems cut short: .* in line \d+ \(byte \d+\)") as e:
        read_coco(tmp_path/'x.json', None)
    line, byte = map(int, re.search(r'line (\d+) \(byte (\d+)\)', str(e.value)).groups())
    assert abs(line-1-data.count(b'\n')) <= 1 and byte <= len(data)


@pytest.mark.parametrize('text,said', [
    ('', 'no {'), ('   ', 'no {'), ('5', 'no {'), ('{}', 'no list `images`'), ('{"images": {}}', 'no list `images`'),
    ('{"images": []}', 'no list'), ('{"images": [{"id": 1 "file_name": "a.jpg"}]}', 'is no whole JSON: '),
    ('{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [3]}', 'has 3 in its list `annotations`'),
    ('{"images": [{"id": 1}] "annotations": []}', 'is no whole JSON: no , or }'),
    ('{"images": [{"id": 1}', 'cut short'),
    ('{"images": [{"id": 1},', 'cut short'), ('{"images"', 'cut short'), ('{"images": ', 'cut short'),
    ('{"images": [{"id": tru', 'no whole JSON'), ("{'images': []}", 'no whole JSON'), ('<html>', 'no whole JSON')])
def test_json_that_is_none(text, said, tmp_path):
    (tmp_path/'x.json').write_text(text)
    with pytest.raises(SnakeidError, match=re.escape(said)): read_coco(tmp_path/'x.json', None)


@settings(deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                    lambda part: st.lists(part, max_size=4) | st.dictionaries(st.text(max_size=3), part, max_size=3)),
       st.sampled_from([None, 0, 2]))
def test_records_are_those_of_json(thing, indent):
    # Whatever stands beside and inside of the lists, the objects are those that the json module reads
    whole = dict(before=thing, a=[dict(k=thing, n=i) for i in range(3)], after=thing, b=[], c=[{}])
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder)/'x.json').write_text(json.dumps(whole, indent=indent))
        found = read_records(Path(folder)/'x.json', ('a', 'b', 'c', 'd'))
    assert found['b'] == found['c'] == found['d'] == {} and found['a']['n'].to_pylist() == [0, 1, 2]
    values = found['a']['k']
    values = values if isinstance(values, list) else values.to_pylist()
    def plain(v):
        if isinstance(v, list): return [plain(w) for w in v]
        if isinstance(v, dict): return {k: plain(w) for k, w in v.items()}
        return float(v) if type(v) is int and abs(v) < 2**53 else v
    if '\\ud' not in (text := json.dumps(thing)):
        assert json.dumps(plain(values)) == json.dumps(plain(json.loads(f'[{text}, {text}, {text}]')))


def test_records_over_many_batches(tmp_path, monkeypatch):
    # Columns that begin late, change their type or end early
    monkeypatch.setattr('snakeid.data.records.BATCH', 3)
    rows = [dict(i=n, kind=n if n < 5 else str(n)) for n in range(10)]
    rows = [r | (dict(late=r['i']) if r['i'] > 4 else {}) | (dict(early='x') if r['i'] < 2 else {}) for r in rows]
    found = read_records(save_json(tmp_path/'x.json', dict(rows=rows)), ('rows',))['rows']
    for k in ('i', 'late', 'early', 'kind'):
        values = found[k] if isinstance(found[k], list) else found[k].to_pylist()
        assert values == [r.get(k) for r in rows]


def test_coco_says_what_it_keeps(tmp_path):
    # iWildCam 2019, 2020 and 2022 in one: names, times and counts of each year
    coco = dict(images=[dict(id='a', file_name='a.jpg', date_captured='2011-05-13 23:43:18', location=33, seq_id='s',
                             seq_num_frames=3, frame_num=1, rights_holder='Justin', width=2048, height=1494),
                        dict(id='b', file_name='b.jpg', datetime='2013-06-05 05:44:19.000', sub_location=0)],
                annotations=[dict(id='1', image_id='a', category_id=0),
                             dict(id='2', image_id='b', category_id=3, count=2)],
                categories=[dict(id=0, name='empty', count=0), dict(id=3, name='tayassu pecari', count=1)])
    m = read_coco(save_json(tmp_path/'x.json', coco), None)
    assert m.species.tolist() == ['empty', 'tayassu pecari'] and m.location.tolist()[0] == '33' and (m.note == '').all()
    assert m.taken_at.astype(str).tolist() == ['2011-05-13 23:43:18', '2013-06-05 05:44:19']
    assert {'seq_num_frames', 'frame_num', 'rights_holder', 'width', 'sub_location'} <= set(m)
    assert json.loads(m.boxes[1])[0]['count'] == 2
    numbers = {c['name']: c['id'] for c in coco['categories']}
    again = json.loads(write_coco(m, tmp_path/'y.json', categories=numbers).read_text())
    assert [a['category_id'] for a in again['annotations']] == [0, 3] and again['images'][0]['location'] == '33'


def test_coco_without_annotations_is_a_test_set(tmp_path):
    touch(tmp_path/'images', 'a.jpg')
    coco = dict(images=[dict(id='a', file_name='a.jpg')], categories=[])
    m = read_coco(save_json(tmp_path/'x.json', coco), tmp_path/'images')
    assert m.flag.tolist() == ['no label'] and m.path.tolist() == [str(tmp_path/'images'/'a.jpg')]


def test_coco_of_a_changed_species(tmp_path):
    coco = dict(images=[dict(id='a', file_name='a.jpg')], categories=[dict(id=1, name='zebra')],
                annotations=[dict(id=1, image_id='a', category_id=1, bbox=[0, 0, 1, 1])])
    m = read_coco(save_json(tmp_path/'x.json', coco), None)
    again = read_coco(write_coco(m.assign(species='lion'), tmp_path/'y.json'), None)
    assert again.species.tolist() == again.labels.tolist() == ['lion'] and again.boxes.tolist() == ['']


def test_coco_from_folders_and_tables(tmp_path):
    touch(tmp_path/'images', 'viper/1.jpg', 'viper/2.jpg', 'cobra/1.jpg')
    m = read_folders(tmp_path/'images')
    again = read_coco(write_coco(m, tmp_path/'x.json', images=tmp_path/'images'), tmp_path/'images')
    pd.testing.assert_frame_equal(again[list(m)], m)
    assert [i['file_name'] for i in json.loads((tmp_path/'x.json').read_text())['images']] == m.photo_id.tolist()
    m['flag'] = ['blurred', '', '']
    again = read_coco(write_coco(m, tmp_path/'y.json'), tmp_path/'images')
    assert again.flag.tolist() == m.flag.tolist() and again.path.tolist() == m.path.tolist()


def test_coco_is_whole_or_absent(tmp_path, monkeypatch):
    (tmp_path/'x.json').write_text('mine')
    def fail(*args, **kwargs): raise OSError(28, 'No space left on device')
    monkeypatch.setattr('snakeid.data.coco.json.dumps', fail)
    with pytest.raises(SnakeidError, match='No space left'):
        write_coco(pd.DataFrame(dict(path=['a.jpg'], species=['viper'])), tmp_path/'x.json')
    assert (tmp_path/'x.json').read_text() == 'mine' and [p.name for p in tmp_path.iterdir()] == ['x.json']


# ---- Camtrap DP ----

DEPLOYED = st.sampled_from(['d1', 'd2'])
CLOCK = st.sampled_from(['2020-05-30T02:00:00Z', '2020-05-30T02:00:05Z', '2020-05-30T04:00:05+02:00',
                         '2020-05-30T02:01:00Z', '2020-05-30T02:00:05.5Z'])
KIND = st.sampled_from([('animal', 'Vulpes vulpes'), ('animal', 'Anas'), ('animal', ''), ('animal', 'a; b'),
                        ('human', ''), ('human', 'Homo sapiens'), ('vehicle', ''), ('blank', ''), ('unknown', ''),
                        ('unclassified', '')])
SIDE = st.sampled_from(['', '0.1', '0.50', '1', 'x'])


@st.composite
def packages(draw):
    "The tables of a package, with events that overlap and observations of nothing"
    hung = [dict(deploymentID=d, locationID=draw(st.sampled_from(['', 'pond'])), latitude='50.7', longitude='4.01',
                 locationName=draw(st.sampled_from(['', 'Old pond'])),
                 deploymentStart=draw(st.sampled_from(['', '2020-05-01T00:00:00Z'])))
            for d in draw(st.sampled_from([['d1', 'd2'], ['d2']]))]
    files = ['media/1.jpg', 'media/2.jpg', 'media/gone.jpg', 'https://host.org/1/file', 'media/3.mp4', '1.jpg']
    media = [dict(mediaID=f'm{i}', deploymentID=draw(DEPLOYED), timestamp=draw(CLOCK),
                  filePath=draw(st.sampled_from(files)), filePublic=draw(st.sampled_from(['true', 'false'])),
                  fileMediatype=draw(st.sampled_from(['image/jpeg', 'video/mp4'])),
                  mediaComments=draw(st.sampled_from(['', 'hm']))) for i in range(draw(st.integers(1, 5)))]
    seen = []
    for i in range(draw(st.integers(0, 6))):
        kind, name = draw(KIND)
        start = draw(CLOCK)
        seen.append(dict(observationID=draw(st.sampled_from([f'o{i}', f'o{i}', 'o0'])), deploymentID=draw(DEPLOYED),
                         mediaID=draw(st.sampled_from(['', '', *(m['mediaID'] for m in media), 'gone'])),
                         eventID=draw(st.sampled_from(['', 'e1', 'e2'])), eventStart=start,
                         eventEnd=draw(st.sampled_from([start, '2020-05-30T02:00:30Z', 'soon'])), observationType=kind,
                         scientificName=name, count=draw(st.sampled_from(['', '2'])), bboxX=draw(SIDE),
                         bboxY=draw(SIDE), bboxWidth=draw(SIDE), bboxHeight=draw(SIDE)))
        seen[-1]['observationLevel'] = 'media' if seen[-1]['mediaID'] else 'event'
    return dict(deployments=hung, media=media, observations=seen)


def save_package(folder, tables):
    for name, rows in tables.items():
        columns = dict.fromkeys(k for row in rows for k in row) or FIELDS[name]
        pd.DataFrame(rows, columns=list(columns)).to_csv(folder/f'{name}.csv', index=False)
    touch(folder, 'media/1.jpg', 'media/2.jpg', 'media/3.mp4', '1.jpg')
    return folder


def check_package(folder):
    "What the format requires of its tables: https://camtrap-dp.tdwg.org/data"
    about = json.loads((folder/'datapackage.json').read_text())
    wanted = ['resources', 'profile', 'created', 'contributors', 'project', 'spatial', 'temporal', 'taxonomic']
    assert set(about) == set(wanted)
    wanted = ['title', 'samplingDesign', 'captureMethod', 'individualAnimals', 'observationLevel']
    assert set(about['project']) == set(wanted)
    tables = {n: pd.read_csv(folder/f'{n}.csv', dtype=str, keep_default_na=False) for n in FIELDS}
    required = dict(deployments=['deploymentID', 'latitude', 'longitude', 'deploymentStart', 'deploymentEnd'],
                    media=['mediaID', 'deploymentID', 'timestamp', 'filePath', 'filePublic', 'fileMediatype'],
                    observations=['observationID', 'deploymentID', 'eventStart', 'eventEnd', 'observationLevel',
                                  'observationType'])
    for name, table in tables.items():
        assert list(table) == FIELDS[name] and (table[required[name]] != '').all(axis=None), name
        assert table[required[name][0]].is_unique
        assert set(table.deploymentID) <= set(tables['deployments'].deploymentID)
    media, seen = tables['media'], tables['observations']
    assert media.timestamp.str.fullmatch(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)').all()
    assert media.filePath.str.fullmatch(r'(?=[^./~])((?!\.{2}).)*').all() and set(media.filePublic) <= {'true', 'false'}
    assert set(seen.observationLevel) <= {'media', 'event'}
    assert ((seen.mediaID == '') == (seen.observationLevel == 'event')).all()
    assert set(seen.observationType) <= {'animal', 'human', 'vehicle', 'blank', 'unknown', 'unclassified'}


@slow_files
@given(packages(), st.sampled_from(['rarest', 'first', 'largest']))
def test_camtrap_there_and_back(tmp_path_factory, tables, label):
    folder = save_package(tmp_path_factory.mktemp('t'), tables)
    try: m = read_camtrap(folder, label=label, unlisted=False)
    except SnakeidError as e:
        assert 'none of the' in str(e)
        return
    media, seen = tables['media'], tables['observations']
    # Beside a reading by plain loops: first of the photo itself, else of its event
    for row, photo in zip(m.itertuples(), media):
        own = [o for o in seen if o['mediaID'] == photo['mediaID']]
        now = pd.Timestamp(photo['timestamp'])
        held = [o for o in seen if not o['mediaID'] and o['deploymentID'] == photo['deploymentID']
                and o['eventEnd'] != 'soon' and pd.Timestamp(o['eventStart']) <= now <= pd.Timestamp(o['eventEnd'])]
        mine = [o for o in seen if o in own or o in held]
        if any(o['observationType'] != 'unclassified' for o in own): mine = own
        names = [name_type(o['observationType'], o['scientificName']) for o in mine]
        names = list(dict.fromkeys(n.replace(';', ',') for n in names if n))
        assert (row.labels if isinstance(row.labels, str) else '') == '; '.join(names), (photo, mine)
        events = [o['eventID'] for o in mine if o['eventID']]
        assert row.sequence == events[0] if events else pd.isna(row.sequence)
        assert row.sequence_level == (mine != own)
        assert len(json.loads(row.boxes or '[]')) == len(mine)
    # Nothing is lost: what holds for no photo has a row of its own
    told = ' '.join(m.boxes.fillna(''))
    passed = [o for o in seen if f'"observationID": "{o["observationID"]}' not in told]
    assert all(not o['mediaID'] for o in passed)
    about = dict(title='t', contributors=['me'], sampling_design='targeted')
    places = {place: (50.7, 4.01) for place in m.location}
    try: write_camtrap(m, folder/'out', **about, places=places)
    except SnakeidError as e:
        assert 'has no photo with a time' in str(e)
        nothing = pd.Series(None, m.index, dtype='str')
        for c in ('deployment_start', 'deployment_end'): m[c] = m.get(c, nothing).fillna('2020-05-01T00:00:00Z')
        write_camtrap(m, folder/'out', **about, places=places)
    check_package(folder/'out')
    again = read_camtrap(folder/'out', images=folder, label=label, unlisted=False)
    for c in ('latitude', 'longitude', 'deployment_start', 'deployment_end', 'location_name'): # which the writer finds
        if c not in m or m[c].isna().any(): again, m = (t.drop(columns=c, errors='ignore') for t in (again, m))
    pd.testing.assert_frame_equal(again[sorted(again)], m[sorted(m)])


@given(st.lists(st.tuples(DEPLOYED, st.integers(0, 9)), max_size=8),
       st.lists(st.tuples(DEPLOYED, st.integers(-1, 9), st.integers(0, 10)), max_size=8))
@settings(deadline=None)
def test_events_by_hand(photos, events):
    def when(n): return pd.NaT if n in (-1, 9) else pd.Timestamp('2020-01-01') + pd.Timedelta(n, 's')
    shots = pd.DataFrame(photos, columns=['deployment', 'utc'])
    shots['utc'] = shots.utc.map(when).astype('datetime64[us]')
    visits = pd.DataFrame(events, columns=['deployment', 'start', 'end'])
    for c in ('start', 'end'): visits[c] = visits[c].map(when).astype('datetime64[us]')
    found = set(zip(*(p.tolist() for p in match_events(shots, visits))))
    assert found == {(e, p) for e, v in visits.iterrows() for p, s in shots.iterrows()
                     if v.deployment == s.deployment and v.start <= s.utc <= v.end}


def test_coco_and_camtrap_say_the_same(tmp_path):
    # From one format through the other and back: names, places, times, boxes
    touch(tmp_path/'images', 'a.jpg', 'b.jpg')
    image = dict(location=7, seq_id='s', datetime='2020-01-01 10:00:00', width=200, height=100)
    coco = dict(images=[dict(image, id='a', file_name='a.jpg'), dict(image, id='b', file_name='b.jpg')],
                categories=[dict(id=0, name='empty'), dict(id=1, name='Vulpes vulpes')],
                annotations=[dict(id=1, image_id='a', category_id=1, bbox=[20, 10, 100, 50]),
                             dict(id=2, image_id='b', category_id=0)])
    m = read_coco(save_json(tmp_path/'x.json', coco), tmp_path/'images')
    write_camtrap(m, tmp_path/'dp', title='t', contributors=[dict(title='Ada', role='contact')], zone='Z',
                  sampling_design='targeted', places={'7': (50.7, 4.01)}, images=tmp_path/'images')
    check_package(tmp_path/'dp')
    again = read_camtrap(tmp_path/'dp', images=tmp_path/'images')
    same = 'photo_id path species labels location sequence taken_at width height flag note'.split()
    pd.testing.assert_frame_equal(again[same], m[same])
    assert json.loads(again.boxes[0])[0]['bbox_relative'] == [.1, .1, .5, .5]
    back = read_coco(write_coco(again, tmp_path/'y.json'), tmp_path/'images')
    pd.testing.assert_frame_equal(back[same], m[same])


def test_camtrap_package_of_other_names(tmp_path):
    # datapackage.json says what the tables are called
    photo = dict(mediaID='m', deploymentID='d1', timestamp='2020-01-01T00:00:00Z', filePath='media/1.jpg')
    save_package(tmp_path, dict(deployments=[dict(deploymentID='d1')], observations=[], media=[photo]))
    (tmp_path/'media.csv').rename(tmp_path/'photos.csv')
    resources = [dict(name='media', path='photos.csv'), dict(name='other', data=[])]
    save_json(tmp_path/'datapackage.json', dict(resources=resources))
    m = read_camtrap(tmp_path, unlisted=False)
    assert m.photo_id.tolist() == ['m'] and m.flag.tolist() == ['no label']
    assert m.path[0] == str(tmp_path/'media'/'1.jpg')


def test_camtrap_of_urls_alone(tmp_path):
    photo = dict(mediaID='m', deploymentID='d1', timestamp='2020-01-01T00:00:00Z', filePath='https://h.org/1.jpg')
    save_package(tmp_path, dict(deployments=[dict(deploymentID='d1')], observations=[], media=[photo]))
    m = read_camtrap(tmp_path, unlisted=False)
    assert m.path.tolist() == ['https://h.org/1.jpg'] and m.flag[0].startswith('only a URL: download the photo')
