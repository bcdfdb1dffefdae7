"Camtrap DP: events against brute force, round trips, and packages as they should not be"
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snakeid.core import SnakeidError
from snakeid.data.camtrap import read_camtrap, write_camtrap

MEDIA = 'mediaID,deploymentID,timestamp,filePath,filePublic,fileMediatype'
SEEN = ('observationID,deploymentID,mediaID,eventID,eventStart,eventEnd,observationLevel,observationType,scientificName'
        ',count')


PLACES = 'deploymentID,locationID,latitude,longitude\nd1,L1,1,2\nd2,L2,3,4\n'


def write_package(folder, media, seen, deployments=PLACES):
    "A package of lines of text"
    folder.mkdir(exist_ok=True, parents=True)
    for name, head, lines in (('media', MEDIA, media), ('observations', SEEN, seen)):
        (folder/f'{name}.csv').write_text('\n'.join([head, *lines]) + '\n', encoding='utf-8')
    (folder/'deployments.csv').write_text(deployments, encoding='utf-8')
    return folder


def clock(second):
    "A time of day on one day, UTC"
    return f'2020-05-02T10:{second//60:02d}:{second%60:02d}Z'


events = st.lists(st.tuples(st.sampled_from(['d1', 'd2']), st.integers(0, 90), st.integers(0, 30),
                            st.sampled_from(['Vulpes vulpes', 'Sus scrofa', 'Meles meles'])), max_size=8)
shots = st.lists(st.tuples(st.sampled_from(['d1', 'd2']), st.integers(0, 120)), min_size=1, max_size=12)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shots, events)
def test_events_belong_to_the_photos_of_their_time(tmp_path, shots, events):
    media = [f'm{i},{d},{clock(t)},m{i}.jpg,true,image/jpeg' for i, (d, t) in enumerate(shots)]
    seen = [f'o{i},{d},,e{i},{clock(t)},{clock(t+n)},event,animal,{s},1' for i, (d, t, n, s) in enumerate(events)]
    if not seen: seen = ['o,d1,m0,,,,media,unclassified,,']
    photos = read_camtrap(write_package(tmp_path/'p', media, seen), None)
    for i, (d, t) in enumerate(shots):
        expected = {s for e, low, n, s in events if e == d and low <= t <= low+n}
        labels = photos.labels[i]
        assert (set(labels.split('; ')) if isinstance(labels, str) else set()) == expected
        assert photos.species.notna()[i] == bool(expected)


def test_a_package_that_nobody_has_looked_at(tmp_path):
    "Tables of a header alone, as a platform hands them out before anything is labelled"
    folder = write_package(tmp_path, [f'm1,d1,{clock(1)},1.jpg,true,image/jpeg'], [], 'deploymentID,locationID\n')
    photos = read_camtrap(folder, None)
    assert photos.flag.tolist() == ['no label'] and photos.location.tolist() == ['d1']


def test_own_observations_win_over_events(tmp_path):
    media = [f'm1,d1,{clock(5)},1.jpg,true,image/jpeg', f'm2,d1,{clock(6)},2.jpg,true,image/jpeg']
    seen = [f'o1,d1,,e1,{clock(0)},{clock(9)},event,animal,Vulpes vulpes,1',
            f'o2,d1,m2,e1,{clock(6)},{clock(6)},media,blank,,']
    photos = read_camtrap(write_package(tmp_path, media, seen), None)
    assert photos.species.tolist() == ['Vulpes vulpes', 'empty'] and photos.sequence.tolist() == ['e1', 'e1']


def test_a_drawn_survey_goes_out_and_comes_back(tmp_path):
    from snakeid.samples.collection import draw_collection
    photos = draw_collection(tmp_path/'drawn', n=60, seed=3, size=64, camera_trap=True, empty=.3, locations=4,
                             workers=0)
    places = {name: (10. + i, 100. + i) for i, name in enumerate(sorted(photos.location.unique()))}
    about = write_camtrap(photos, tmp_path/'dp', title='Drawn', contributors=['Pencil'], places=places, zone='+08:00',
                          sampling_design='opportunistic')
    again = read_camtrap(tmp_path/'dp', tmp_path/'drawn')
    for column in ('photo_id', 'path', 'species', 'location', 'sequence'):
        assert again[column].tolist() == photos[column].tolist(), column
    assert (again.taken_at.astype('M8[s]') == photos.taken_at.astype('M8[s]')).all() and set(again.zone) == {'+08:00'}
    assert again.flag.eq('').all() and again.latitude.between(10, 14).all()
    about = json.loads(about.read_text())
    assert [r['name'] for r in about['resources']] == ['deployments', 'media', 'observations', 'manifest']
    # the columns that the format has no room for stand in the table beside it
    assert again.truth_species.fillna('').tolist() == photos.truth_species.fillna('').tolist()


def test_a_relabelled_photo_is_written_under_its_new_name(tmp_path):
    media = [f'm1,d1,{clock(5)},1.jpg,true,image/jpeg']
    seen = ['o1,d1,m1,e1,,,media,animal,Vulpes vulpes,2', 'o2,d1,m1,e1,,,media,animal,Sus scrofa,1']
    photos = read_camtrap(write_package(tmp_path/'a', media, seen), None)
    photos['species'] = 'Meles meles'
    write_camtrap(photos, tmp_path/'b', title='x', contributors=['y'], sampling_design='targeted')
    assert read_camtrap(tmp_path/'b', None).labels.tolist() == ['Meles meles']


@pytest.mark.parametrize('media, flag', [
    (f'm1,d1,{clock(1)},https://example.org/1.jpg,true,image/jpeg', 'only a URL'),
    (f'm1,d1,{clock(1)},s3://bucket/1.jpg,true,image/jpeg', 'only a URL'),
    (f'm1,d1,{clock(1)},,true,image/jpeg', 'no file name')])
def test_files_that_are_not_here_keep_their_row(tmp_path, media, flag):
    photos = read_camtrap(write_package(tmp_path, [media], ['o1,d1,m1,,,,media,animal,Vulpes vulpes,1']), None)
    assert photos.flag.str.contains(flag).all() and photos.species.tolist() == ['Vulpes vulpes']


def test_names_and_times_as_people_write_them(tmp_path):
    media = ['m1,d1,02/05/2020 10:00,Ünï—çødé 写真.jpg,true,image/jpeg', 'm2,d9,never,"a, b.jpg",true,image/jpeg',
             f'm2,d1,{clock(1)},c.jpg,true,image/jpeg']
    seen = ['o1,d1,m1,,,,media,Animal, Vulpes  vulpes ,1', 'o2,d1,m2,,,,media,animal,,1']
    photos = read_camtrap(write_package(tmp_path, media, seen), None)
    assert photos.species[0] == 'Vulpes vulpes' and photos.path[0] == 'Ünï—çødé 写真.jpg'
    assert photos.species[1] == 'animal' and photos.taken_at.isna()[1] and 'not declared' in photos.note[1]
    assert photos.photo_id.is_unique and len(photos) == 3
    blank = write_package(tmp_path/'blank', media[:1], ['o1,d1,m1,,,,media,Blank,,'])
    assert read_camtrap(blank, None).species.tolist() == ['empty']
    # a description may name several files of a table, and the tables of places may be missing
    (blank/'media.csv').rename(blank/'photos.csv')
    (blank/'deployments.csv').unlink()
    (blank/'datapackage.json').write_text('{"resources": [{"name": "media", "path": ["photos.csv"]}]}')
    assert read_camtrap(blank, None).location.tolist() == ['d1']


@pytest.mark.parametrize('spoil, message', [
    (lambda f: (f/'observations.csv').unlink(), 'no observations.csv'),
    (lambda f: (f/'media.csv').write_text(''), 'empty|no column|header'),
    (lambda f: (f/'media.csv').write_bytes(MEDIA.encode() + b'\nm1,d1,,caf\xe9.jpg,true,image/jpeg\n'), 'not UTF-8'),
    (lambda f: (f/'datapackage.json').write_text('{"resources"'), 'describes no data package')])
def test_spoilt_packages_end_in_a_sentence(tmp_path, spoil, message):
    folder = write_package(tmp_path, [f'm1,d1,{clock(1)},1.jpg,true,image/jpeg'], ['o1,d1,m1,,,,media,blank,,'])
    spoil(folder)
    with pytest.raises(SnakeidError, match=message): read_camtrap(folder, None)


def test_a_hundred_thousand_photos(tmp_path):
    "Vectorised: each step over all rows at once, or this would take minutes"
    n, rng = 100_000, np.random.default_rng(0)
    when = np.datetime_as_string(np.datetime64('2020-01-01') + rng.integers(0, 10**7, n).astype('m8[s]'))
    media = pd.DataFrame(dict(mediaID=np.arange(n), deploymentID=rng.integers(0, 50, n), timestamp=when))
    media['timestamp'] += 'Z'
    media['filePath'] = 'x/' + media.mediaID.astype(str) + '.jpg'
    media.to_csv(tmp_path/'media.csv', index=False)
    seen = pd.DataFrame(dict(observationID=np.arange(n), deploymentID=media.deploymentID, mediaID=media.mediaID,
                             observationLevel='media', observationType='animal', scientificName='Vulpes vulpes'))
    seen.to_csv(tmp_path/'observations.csv', index=False)
    photos = read_camtrap(tmp_path, None)
    assert len(photos) == n and photos.species.eq('Vulpes vulpes').all() and photos.location.nunique() == 50
