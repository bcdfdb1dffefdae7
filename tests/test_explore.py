"Browse, review and mistakes: what they decide, count and show, without a browser"
import csv
import multiprocessing
import os
import sys
import threading
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snakeid.core import SnakeidError
from snakeid.data.clean import apply_quarantine, read_quarantine, write_quarantine
from snakeid.data.manifest import add_flag
from snakeid.explore import browse as browse_module
from snakeid.explore.browse import Collection, browse, describe_photo
from snakeid.explore.decisions import Decisions
from snakeid.explore.mistakes import find_examples, list_mistakes, list_pairs, review_mistakes
from snakeid.explore.parts import Thumbs
from snakeid.explore.review import Queue, review
from snakeid.samples.collection import draw_photo

NASTY = ['<b>Naja</b>', '"quoted", with; signs', "=1+1", 'ナジャ\u3000ナジャ', "O'Neil & sons",
         '<img src=x onerror=alert(1)>', 'NA', 'nan', '']


class Tags(HTMLParser):
    "Collects the tags of a page"
    def __init__(self):
        super().__init__()
        self.tags, self.attributes = set(), set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)


def read_tags(html):
    "Which tags and attributes a piece of HTML has"
    found = Tags()
    found.feed(html)
    return found


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    "24 drawn photos of three species, with flags, duplicates and a split"
    folder = tmp_path_factory.mktemp('photos')
    for i in range(24): draw_photo(None, i, 64).save(folder/f'{i:02d}.jpg')
    table = pd.DataFrame(dict(photo_id=[f'p{i:02d}' for i in range(24)], path=[str(folder/f'{i:02d}.jpg')
                                                                               for i in range(24)],
                              species=[('boa', 'cobra', 'viper')[i % 3] for i in range(24)], flag='',
                              split=(['train']*3 + ['test'])*6, duplicate_group=None))
    table.loc[[3, 10, 20], 'duplicate_group'] = 'p03'
    table.loc[[5, 6], 'duplicate_group'] = 'p05'
    return add_flag(table, [1, 2, 10, 20], ['near-black', 'blurred: sharpness 3', 'near-duplicate: copy of p03',
                                            'blurred: sharpness 1; near-black'])


# Decisions

ids = st.sampled_from(['a', 'b', 'c', 'd', 'ö,"x"', ' e', 'NA'])
names = st.sampled_from([n for n in NASTY if n])
steps = st.lists(st.one_of(
    st.tuples(st.just('keep'), st.lists(ids, min_size=1, max_size=3)),
    st.tuples(st.just('relabel'), ids, names),
    st.tuples(st.just('quarantine'), st.lists(ids, min_size=1, max_size=3), st.sampled_from(['', *NASTY])),
    st.tuples(st.just('keep_only'), ids, st.lists(ids, max_size=3)),
    st.tuples(st.just('clear'), ids), st.tuples(st.just('undo')), st.tuples(st.just('open'))), max_size=25)


class Model:
    "What a list of decisions should say: a log of steps, each with its photos and the windows that know it"
    def __init__(self): self.log = []

    def decide(self, window, choices): self.log.append((choices, {window}))

    def open(self, window):
        for _, known in self.log: known.add(window)

    def forget(self, window):
        for _, known in self.log: known.discard(window)

    def holds(self, i, photo):
        "Is step `i` the last one about a photo?"
        return not any(photo in choices for choices, _ in self.log[i+1:])

    def undo(self, window):
        "Photos that are taken back; None where all were decided on again elsewhere"
        known = [i for i, step in enumerate(self.log) if window in step[1]]
        if not known: return []
        held = [p for p in self.log[known[-1]][0] if self.holds(known[-1], p)]
        del self.log[known[-1]]
        return held or None

    def state(self):
        "Decision, species of a relabelled photo, and reason, by photo"
        found = {}
        for choices, _ in self.log: found |= choices
        return {p: s for p, s in found.items() if s[0]}


def state_of(decisions):
    "The same of an object"
    return {r.photo_id: (r.decision, r.species if r.decision == 'relabel' else '', r.reason)
            for r in decisions.table().itertuples()}


def act(decisions, model, step, window=0):
    "Take one step, and let the model take it"
    do, *args = step
    if do == 'undo':
        expected = model.undo(window)
        if expected is None:
            with pytest.raises(SnakeidError, match='decided on again elsewhere'): decisions.undo()
        else: assert sorted(decisions.undo()) == sorted(expected)
        return
    getattr(decisions, do)(*args)
    tidy = lambda text: ' '.join(text.split())   # noqa: E731
    if do == 'keep_only':
        choices = {args[0]: ('keep', '', '')} | {i: ('quarantine', '', tidy(f'copy of {args[0]}')) for i in args[1]
                                                 if i != args[0]}
        choices = {i: (d, s, f'copy of {args[0]}' if d == 'quarantine' else r) for i, (d, s, r) in choices.items()}
    else:
        which = [args[0]] if isinstance(args[0], str) else args[0]
        state = dict(keep=('keep', '', ''), clear=('', '', '')).get(do) or \
            ((do, tidy(args[1]).replace(';', ','), '') if do == 'relabel' else
             (do, '', tidy(args[1]).replace(';', ',')))
        choices = {i: state for i in which}
    model.decide(window, choices)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps)
def test_any_steps_and_undos_are_as_a_model_has_them(tmp_path_factory, steps):
    "Also when the file is opened anew between them, and by another object at every step"
    file = tmp_path_factory.mktemp('model')/'decisions.csv'
    decisions, model = Decisions(file), Model()
    for step in steps:
        if step[0] == 'open':
            decisions = Decisions(file)
            model.open(0)
        else: act(decisions, model, step)
        assert state_of(decisions) == state_of(Decisions(file)) == model.state()
        assert len(decisions) == len(model.state())
    if file.exists(): assert set(read_quarantine(file).query("decision != ''").photo_id) == set(model.state())


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.tuples(st.integers(0, 1), st.one_of(
    st.tuples(st.just('keep'), ids), st.tuples(st.just('quarantine'), st.lists(ids, min_size=1, max_size=3),
                                               st.just('')),
    st.tuples(st.just('undo')), st.tuples(st.just('open')))), max_size=25))
def test_two_windows_lose_nothing_of_each_other(tmp_path_factory, steps):
    "Each takes back its own steps, and those that it found when it was opened"
    file = tmp_path_factory.mktemp('model')/'decisions.csv'
    windows, model = [Decisions(file), Decisions(file)], Model()
    for who, step in steps:
        if step[0] == 'open':
            windows[who] = Decisions(file)
            model.open(who)
        else: act(windows[who], model, step, who)
        for window in windows: assert state_of(window) == model.state()


def decide_many(file, name, n):
    "In a process of its own: `n` decisions"
    decisions = Decisions(file, wait=300)
    for i in range(n): decisions.keep(f'{name}{i}')


def test_processes_at_once(tmp_path):
    "Two kernels write one list as fast as they can, and the file is whole whenever it is read"
    file = tmp_path/'decisions.csv'
    context = multiprocessing.get_context('spawn')
    workers = [context.Process(target=decide_many, args=(file, name, 12)) for name in 'ab']
    for worker in workers: worker.start()
    while any(w.is_alive() for w in workers):
        if file.exists(): read_quarantine(file)
        workers[0].join(.05)                                        # leave them the cores
    for worker in workers: worker.join()
    assert [w.exitcode for w in workers] == [0, 0]
    assert set(Decisions(file).table().photo_id) == {f'{name}{i}' for name in 'ab' for i in range(12)}
    assert [p.name for p in tmp_path.iterdir() if p.suffix != '.lock'] == ['decisions.csv']


def test_threads_at_once(tmp_path):
    "Two threads of one kernel share an object"
    decisions = Decisions(tmp_path/'decisions.csv', wait=60)
    threads = [threading.Thread(target=lambda name=name: [decisions.keep(f'{name}{i}') for i in range(20)])
               for name in 'ab']
    for t in threads: t.start()
    for t in threads: t.join()
    assert len(Decisions(decisions.file)) == 40


def test_a_crash_while_writing_leaves_the_file(tmp_path, monkeypatch):
    "The step is not taken, neither in the file nor in the object"
    from snakeid.explore import decisions as module
    decisions = Decisions(tmp_path/'decisions.csv')
    decisions.keep('a')
    before = decisions.file.read_bytes()
    class Full:
        def __init__(self, *args, **kwargs): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(module.csv, 'DictWriter', Full)
    with pytest.raises(SnakeidError, match='No space left on device'): decisions.keep('b')
    monkeypatch.undo()
    assert decisions.file.read_bytes() == before and decisions.look_up('b')['decision'] == '' and len(decisions) == 1
    assert decisions.undo() == ['a']


@pytest.mark.skipif(os.name == 'nt' or os.geteuid() == 0, reason="this user may write everywhere")
def test_a_folder_without_permission(tmp_path):
    "One sentence, and nothing decided"
    (tmp_path/'shut').mkdir(mode=0o500)
    with pytest.raises(SnakeidError, match='Permission denied'): Decisions(tmp_path/'shut'/'decisions.csv').keep('a')


@pytest.mark.parametrize('content', [b'', b'\xff\xfe\x00\x01\x02', b'photo_id,decision\n"a,keep\n',
                                     b'photo_id;decision\na;keep\n',
    b'photo_id,decision\na,perhaps\n', b'photo_id,decision\na,relabel\n', b'photo_id,decision\na,keep\na,keep\n',
    b'photo_id,decision,before\na,keep,{}\n', b'photo_id,decision,before\na,keep,"[[1,2,3,4]]"\n',
    b'photo_id,decision,flag\na,keep\n',
    b'\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR'])
def test_a_damaged_file_is_one_sentence_and_stays(tmp_path, content):
    "Whoever opens it, and whoever has it open"
    file = tmp_path/'decisions.csv'
    opened = Decisions(file)
    file.write_bytes(content)
    for fails in (lambda: Decisions(file), lambda: opened.keep('b'), opened.undo, opened.table):
        with pytest.raises(SnakeidError) as e: fails()
        assert '\n' not in str(e.value) and 'decisions.csv' in str(e.value)
    assert file.read_bytes() == content


def test_a_folder_in_place_of_the_file(tmp_path):
    with pytest.raises(SnakeidError, match='cannot read the decisions'): Decisions(tmp_path)


def test_a_list_of_another_collection(tmp_path, photos):
    "Other photos, or other files under the same names, are refused; a part of the collection is not"
    file = tmp_path/'decisions.csv'
    Decisions(file, photos).keep(['p01', 'p02'])
    for other in (photos.assign(photo_id=['x' + i for i in photos.photo_id]),
                  photos.assign(path=[f'{i}.png' for i in range(24)])):
        with pytest.raises(SnakeidError, match='give this collection its own file'): Decisions(file, other)
    part = Decisions(file, photos.iloc[2:9])
    assert len(part) == 2
    with pytest.raises(SnakeidError, match='which the manifest does not have'): part.apply(photos.iloc[2:9])
    moved = photos.assign(path=['elsewhere/' + Path(p).name for p in photos.path])
    assert len(Decisions(file, moved)) == 2


def test_a_list_filled_in_by_hand_goes_on(tmp_path, photos):
    "As `write_quarantine` makes it and a spreadsheet saves it; columns of somebody's own stay"
    file = tmp_path/'decisions.csv'
    write_quarantine(photos, file)
    rows = pd.read_csv(file, dtype=str, keep_default_na=False).assign(seen_by='Ana')
    rows.loc[rows.photo_id == 'p01', 'decision'] = ' KEEP'
    file.write_bytes(b'\xef\xbb\xbf' + rows.to_csv(index=False, lineterminator='\r\n').encode())
    decisions = Decisions(file, photos)
    assert state_of(decisions) == dict(p01=('keep', '', ''))
    assert decisions.undo() == []                                   # a decision by hand is no step
    decisions.quarantine('p01', 'too dark')
    decisions.keep('p07')
    assert decisions.undo() == ['p07'] and decisions.undo() == ['p01']
    with open(file, newline='', encoding='utf-8') as f: back = {r['photo_id']: r for r in csv.DictReader(f)}
    assert back['p01']['decision'] == 'keep' and back['p02']['decision'] == '' and 'p07' not in back
    assert {r['seen_by'] for r in back.values()} == {'Ana'}
    assert apply_quarantine(photos, file).flag[1] == ''


def test_many_decisions_stay_quick_enough_to_click(tmp_path):
    "The file is read once by each window, however many steps it takes, unless another one writes it"
    from snakeid.explore import decisions as module
    many = pd.DataFrame(dict(photo_id=[f'{i:05d}' for i in range(5000)], path='x.jpg', species='boa', flag='blurred',
                             decision='keep'))
    many.to_csv(tmp_path/'decisions.csv', index=False)
    decisions, read = Decisions(tmp_path/'decisions.csv'), []
    real, module._read_rows = module._read_rows, lambda file: read.append(file) or real(file)
    try:
        for i in range(3): decisions.clear(f'{i:05d}')
        decisions.table()
    finally: module._read_rows = real
    assert len(decisions) == 4997 and not read
    Decisions(decisions.file).clear('00009')
    assert len(decisions.table()) == 4996                           # and again when somebody else has written it


def test_decisions_in_a_manifest(tmp_path, photos):
    "Nothing is deleted, nothing changed in place, and twice is as once"
    decisions, before = Decisions(tmp_path/'decisions.csv', photos), photos.copy()
    assert decisions.apply(photos).flag.equals(photos.flag)
    decisions.keep('p20')
    decisions.relabel('p02', ' <b>Naja</b>\t ')
    decisions.quarantine(['p01', 'p07'], 'a; b')
    decisions.quarantine('p08')
    settled = decisions.apply(photos)
    assert settled.flag[[20, 2, 1, 7, 8]].tolist() == ['', '', 'near-black; quarantined: a, b', 'quarantined: a, b',
                                                       'quarantined']
    assert settled.species[2] == '<b>Naja</b>' and len(settled) == len(photos)
    pd.testing.assert_frame_equal(decisions.apply(settled), settled)
    pd.testing.assert_frame_equal(photos, before)


def test_the_last_decision_stands_last(tmp_path):
    decisions = Decisions(tmp_path/'decisions.csv')
    decisions.keep(['a', 'b'])
    decisions.keep('c')
    decisions.keep('a')
    assert decisions.table().photo_id.tolist() == ['b', 'c', 'a']


def test_a_relabelled_photo_that_is_kept_has_its_label_again(photos, tmp_path):
    "Also where the manifest is not at hand, and the file alone knows the label"
    decisions = Decisions(tmp_path/'decisions.csv', photos)
    decisions.keep('p02')
    for each in (decisions, Decisions(decisions.file)):
        each.relabel('p02', 'boa')
        each.keep('p02')
        assert each.look_up('p02')['species'] == 'viper'


def test_a_photo_id_with_a_semicolon_makes_one_reason(tmp_path):
    table = pd.DataFrame(dict(photo_id=['a; b', 'c'], path=['1.jpg', '2.jpg'], species='boa'))
    decisions = Decisions(tmp_path/'decisions.csv', table)
    decisions.keep_only('a; b', table.photo_id)
    assert decisions.apply(table).flag.tolist() == ['', 'quarantined: copy of a, b']


# Browse

@pytest.fixture
def made(monkeypatch):
    "Counts the small pictures that are made"
    from snakeid.explore import parts
    paths, real = [], parts.shrink_photo
    monkeypatch.setattr(parts, 'shrink_photo', lambda path, side: paths.append(str(path)) or real(path, side))
    return paths


def make_large(photo, n=100_000):
    "A manifest of `n` rows with 1,500 species and flags that are all different"
    rng = np.random.default_rng(0)
    species = np.array([f'species {i:04d}' for i in range(1500)] + [None],
                       dtype=object)[np.minimum(rng.zipf(1.3, n) - 1, 1500)]
    flag = np.where(rng.random(n) < .3, np.array([f'near-duplicate: copy of {i}; blurred: sharpness {i}'
                                                  for i in range(n)], dtype=object), '')
    return pd.DataFrame(dict(photo_id=[f'{i:06d}' for i in range(n)], path=str(photo),
                             species=species, flag=flag, split=rng.choice(['train', 'valid', 'test'], n),
                             country=rng.choice(['PH', 'TH', ''], n)))


def test_a_hundred_thousand_photos(tmp_path, monkeypatch):
    "Only the pictures of pages that are shown are made, each once; counts are those of pandas"
    draw_photo(None, 1, 64).save(tmp_path/'snake.jpg')
    table = make_large(tmp_path/'snake.jpg')
    asked = []
    monkeypatch.setattr(Thumbs, 'address', lambda self, path: asked.append(path) or '')
    sheet = browse(table)
    assert len(asked) == 48 and sheet.collection.pages == 2084
    sheet.on.click()
    sheet.number_field.value = 2084
    assert len(asked) == 48 + 48 + (100_000 - 2083*48)
    for column in ('species', 'split', 'country'):
        expected = table[column].fillna('').value_counts()
        counts = sheet.collection.counts(column)
        assert counts.to_dict() == expected.to_dict()
        assert counts.index.tolist() == sorted(expected.index, key=lambda name: (name == '', name))
    assert sheet.collection.counts('flag').to_dict() == {'blurred': (table.flag != '').sum(),
                                                         'near-duplicate': (table.flag != '').sum(),
                                                         '': (table.flag == '').sum()}
    sheet.choose('species', 'species 0003')
    sheet.choose('flag', 'blurred')
    expected = table[(table.species == 'species 0003') & (table.flag != '')]
    shown = pd.concat([sheet.collection.page(i + 1) for i in range(sheet.collection.pages)])
    assert shown.photo_id.tolist() == expected.photo_id.tolist()
    assert sheet.collection.counts('country').to_dict() == {**dict.fromkeys(['PH', 'TH', ''], 0),
                                                            **expected.country.value_counts().to_dict()}
    assert sheet.collection.rows.dtype == np.int32
    held = sum(f.codes.nbytes + (f.rows.nbytes if f.rows is not None else 0) for f in sheet.collection.facets.values())
    assert held < 5e6                                               # numbers, and no copy of the texts


def test_pictures_are_made_once_and_only_when_shown(photos, made):
    sheet = browse(photos, per_page=5, side=32)
    assert made == photos.path[:5].tolist()
    sheet.on.click()
    sheet.back.click()
    assert made == photos.path[:10].tolist()
    sheet.menus['species'].value = 1
    assert made[10:] == [p for p in photos.path[photos.species == 'cobra'][:5] if p not in photos.path[:10].tolist()]


def test_the_pictures_last_shown_are_kept(photos, made):
    thumbs = Thumbs(32, most=2)
    for i in (0, 1, 0, 2, 0): thumbs(photos.path[i])
    assert made == photos.path[:3].tolist()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_filters_and_counts_are_those_of_pandas(data):
    "Any values, missing ones and flags with several reasons, and any choices"
    n = data.draw(st.integers(0, 25))
    cell = st.sampled_from([None, 'a', 'b', '<c>', ''])
    flags = st.lists(st.sampled_from(['x', 'y: 1', 'y: 2', 'z']), max_size=3).map('; '.join)
    table = pd.DataFrame(dict(path=['p']*n, photo_id=[str(i) for i in range(n)]))
    for column, values in (('species', cell), ('country', cell), ('flag', flags)):
        table[column] = pd.Series(data.draw(st.lists(values, min_size=n, max_size=n)), dtype=object)
    collection = Collection(table, per_page=data.draw(st.integers(1, 5)))
    has = {c: [{v or ''} for v in table[c]] for c in ('species', 'country')}
    has['flag'] = [{r.split(':')[0] for r in f.split('; ')} for f in table.flag]
    chosen = {}
    for column in data.draw(st.lists(st.sampled_from(list(has)), max_size=4)):
        options = collection.facets[column].choices
        wanted = data.draw(st.none() | st.lists(st.sampled_from(options), min_size=1, unique=True)) if options else None
        collection.choose(column, wanted)
        chosen[column] = wanted

    def fits(i, skip=''):
        "Does a row pass the filters?"
        return all(w is None or c == skip or has[c][i] & set(w) for c, w in chosen.items())

    assert collection.rows.tolist() == [i for i in range(n) if fits(i)]
    for column, values in has.items():
        expected = {o: sum(o in values[i] and fits(i, column) for i in range(n)) for o in set().union(*values)}
        assert collection.counts(column).to_dict() == expected
    pages = [collection.page(i + 1) for i in range(collection.pages)]
    assert pd.concat(pages).photo_id.tolist() == [str(i) for i in range(n) if fits(i)]


def test_the_menus_of_a_browser(photos):
    "Counts beside choices; what shows nothing is left out; a mistake in a page's number is none"
    sheet = browse(photos, per_page=5, side=32)
    assert list(sheet.menus) == ['species', 'split', 'flag']        # no country
    assert [o for o, _ in sheet.menus['flag'].options] == ['all (24)', 'blurred (2)', 'near-black (2)',
                                                           'near-duplicate (1)', '(none) (20)']
    sheet.menus['flag'].value = 2                                  # near-duplicate
    assert [o for o, _ in sheet.menus['species'].options] == ['all (1)', 'cobra (1)']
    assert sheet.count.value == 'of 1: 1 of 24 photos'
    sheet.menus['flag'].value = -1
    sheet.turn(99)
    assert sheet.number == sheet.number_field.value == 5 and sheet.on.disabled and not sheet.back.disabled
    sheet.choose('species', ['boa', 'viper'])
    assert sheet.menus['species'].options[0][0] == '2 chosen' and sheet.number == 1


def test_the_edges_of_a_browser(photos):
    "A last page that is full, a page before the first, and a choice that shows nothing"
    sheet = browse(photos, per_page=6, side=32)
    assert sheet.collection.pages == 4
    sheet.turn(0)
    assert sheet.number == sheet.number_field.value == 1
    sheet.choose('flag', 'near-duplicate')
    sheet.choose('species', 'boa')
    assert sheet.menus['species'].label == 'boa (0)' and sheet.count.value == 'of 1: 0 of 24 photos'


def test_missing_values_are_not_shown_as_nan(photos):
    odd = photos.assign(species=np.nan, country=None)
    assert describe_photo(next(odd.itertuples())) == (photos.path[0], ['p00', '(no species)', 'train'])


# Review and mistakes

def test_pages_keep_groups_together(photos):
    queue = Queue(photos, per_page=2)
    pages = [queue.page(i + 1).photo_id.tolist() for i in range(queue.pages)]
    assert pages == [['p01', 'p02'], ['p03', 'p10', 'p20'], ['p05', 'p06']]
    assert [queue.find_page(i) for i in ('p02', 'p20', 'p06', 'p07')] == [1, 2, 3, 0]
    queue.choose('flag', 'near-black')
    assert queue.page().photo_id.tolist() == ['p01', 'p20'] and queue.find_page('p02') == 0


def test_the_next_open_page(photos, tmp_path):
    "It comes after this one; after the last comes the first"
    queue, decisions = Queue(photos, per_page=2), Decisions(tmp_path/'decisions.csv')
    assert [queue.find_open(decisions, n) for n in (1, 2, 3)] == [2, 3, 1]
    decisions.keep(['p01', 'p02', 'p05', 'p06'])
    assert [queue.find_open(decisions, n) for n in (1, 2, 3)] == [2, 2, 2]


def test_a_group_of_one_is_none(photos):
    queue = Queue(photos.assign(duplicate_group=photos.photo_id))
    assert queue.at.tolist() == ['p01', 'p02', 'p10', 'p20'] and 'group of duplicates' not in queue.counts('flag')


@settings(max_examples=60, deadline=None)
@given(groups=st.lists(st.sampled_from([None, '', 'a', 'b', 'c']), max_size=40), per_page=st.integers(1, 4))
def test_every_photo_is_on_one_page(groups, per_page):
    n = len(groups)
    table = pd.DataFrame(dict(path=['p']*n, photo_id=[str(i) for i in range(n)],
                              duplicate_group=pd.Series(groups, dtype=object)))
    queue = Queue(table, per_page=per_page, everything=True)
    pages = [queue.page(i + 1).photo_id.tolist() for i in range(queue.pages)]
    assert sorted(sum(pages, []), key=int) == [str(i) for i in range(n)]
    assert all(queue.find_page(i) == k + 1 for k, page in enumerate(pages) for i in page)
    for name in 'abc':
        members = [str(i) for i, g in enumerate(groups) if g == name]
        if 1 < len(members) <= 5*per_page: assert sum(bool(set(members) & set(page)) for page in pages) == 1
        for i in members: assert queue.list_group(i) == members
    assert all(len(page) <= 5*per_page for page in pages)


def test_decisions_outlive_the_species_and_the_kernel(photos, tmp_path):
    "fastai's issue 3084: another category, and back"
    file = tmp_path/'decisions.csv'
    desk = review(photos, file, side=32)
    at = {bar.photo_id: bar for bar in desk.bars}
    at['p01'].keep.click()
    at['p02'].name.value = 'boa'
    at['p02'].rename.click()
    desk.reason.value = 'no animal'
    at['p06'].out.click()
    said = {i: bar.said.value for i, bar in at.items()}
    for choice in (0, 1, 2, -1): desk.menus['species'].value = choice
    for each in (desk, review(photos, file, side=32)):
        assert {bar.photo_id: bar.said.value for bar in each.bars} == said
        assert {bar.photo_id: bar.keep.button_style for bar in each.bars}['p01'] == 'success'
    with open(file, newline='', encoding='utf-8') as f: rows = {r['photo_id']: r for r in csv.DictReader(f)}
    assert {i: (r['decision'], r['species'], r['reason']) for i, r in rows.items()} == dict(
        p01=('keep', 'cobra', ''), p02=('relabel', 'boa', ''), p06=('quarantine', 'boa', 'no animal'))


def test_another_window_is_seen_when_a_page_is_turned(photos, tmp_path):
    here, there = (review(photos, tmp_path/'decisions.csv', side=32) for _ in range(2))
    there.bars[0].keep.click()
    here.turn(1)
    assert 'kept' in here.bars[0].said.value
    here.undo.click()
    assert 'nothing to take back' in here.told.value                # it was the other's


def test_a_group_is_settled_with_one_click_and_one_undo(photos, tmp_path):
    desk = review(photos, tmp_path/'decisions.csv', side=32)
    bar = {bar.photo_id: bar for bar in desk.bars}['p10']
    assert bar.copies == ['p03', 'p10', 'p20'] and bar.only.layout.display == '' and bar.keep.layout.display is None
    bar.only.click()
    assert state_of(desk.decisions) == dict(p10=('keep', '', ''), p03=('quarantine', '', 'copy of p10'),
                                            p20=('quarantine', '', 'copy of p10'))
    desk.undo.click()
    assert state_of(desk.decisions) == {}


def test_a_filter_tears_no_group_and_hides_what_it_leaves_out(photos, tmp_path):
    "To keep only one settles also the photos that are not shown; the count is of those that are"
    desk = review(photos, tmp_path/'decisions.csv', side=32)
    desk.decisions.keep('p02')
    desk.choose('flag', 'near-black')
    assert [(bar.photo_id, bar.copies) for bar in desk.bars[:2]] == [('p01', ['p01']), ('p20', ['p03', 'p10', 'p20'])]
    assert desk.count.value == 'of 1: 0 of 2 photos decided'


def test_undo_turns_to_the_page_where_it_was(photos, tmp_path):
    desk = review(photos, tmp_path/'decisions.csv', per_page=2, side=32)
    desk.bars[0].keep.click()
    desk.turn(3)
    desk.undo.click()
    assert desk.number == 1 and 'Took back what was decided on p01.' in desk.told.value


def test_a_name_that_is_written_stays_with_its_photo(photos, tmp_path):
    desk = review(photos, tmp_path/'decisions.csv', per_page=2, side=32)
    desk.bars[0].name.value = 'boa'
    desk.bars[1].keep.click()
    assert desk.bars[0].name.value == 'boa'
    desk.on.click()
    assert [bar.name.value for bar in desk.bars] == ['', '', '']


def test_errors_are_told_and_nothing_is_decided(photos, tmp_path):
    file = tmp_path/'decisions.csv'
    desk = review(photos, file, side=32)
    desk.bars[0].keep.click()
    desk.bars[0].rename.click()
    assert 'write its name' in desk.told.value
    file.write_text('photo_id,decision\np01,<i>perhaps</i>\n')
    desk.bars[1].keep.click()
    assert '&lt;i&gt;perhaps' in desk.told.value and '<i>' not in desk.told.value
    assert file.read_text() == 'photo_id,decision\np01,<i>perhaps</i>\n'


def test_new_names_are_taken_and_told(photos, tmp_path):
    desk = review(photos, tmp_path/'decisions.csv', side=32)
    desk.bars[0].name.value = 'cobrra'
    desk.bars[0].rename.click()
    assert 'new species' in desk.told.value and 'did you mean cobra' in desk.told.value
    assert desk.decisions.look_up('p01')['species'] == 'cobrra'
    desk.bars[0].name.value = 'viper'
    desk.bars[0].rename.click()
    assert desk.told.value == ''


@pytest.fixture
def predictions(photos):
    "Of the test photos, all of them named viper"
    test = photos[photos.split == 'test']
    return pd.DataFrame({'photo_id': test.photo_id.tolist(), 'species': 'viper', 'confidence': .6,
                         'p:boa': np.linspace(.1, .3, len(test)),
                         'p:cobra': np.linspace(.3, .1, len(test)), 'p:viper': .6})


def test_mistakes_are_ordered_by_loss(photos, predictions):
    table = list_mistakes(predictions, photos)
    p = predictions.set_index('photo_id')
    expected = {r.photo_id: -np.log(p.loc[r.photo_id, f'p:{r.species}']) for r in photos.itertuples()
                if r.photo_id in p.index and r.species != 'viper' and not r.flag}
    assert table.set_index('photo_id').loss.to_dict() == pytest.approx(expected) and table.loss.is_monotonic_decreasing
    zero = predictions.assign(**{'p:boa': 0.})
    assert np.isfinite(list_mistakes(zero, photos).loss).all()


def test_examples_are_training_photos(photos):
    found = find_examples(photos, 'boa', 99)
    usable = photos[(photos.species == 'boa') & (photos['split'] == 'train') & (photos.flag == '')]
    assert set(found.photo_id) == set(usable.photo_id)
    one, other = (find_examples(table, 'boa', 2, seed=1).photo_id.tolist() for table in (photos, photos[::-1]))
    assert one == other
    assert len({tuple(find_examples(photos, 'boa', 2, seed=i).photo_id) for i in range(20)}) > 1


def test_mistakes_share_the_decisions_of_review(photos, predictions, tmp_path):
    file = tmp_path/'decisions.csv'
    desk, viewer = review(photos, file, side=32), review_mistakes(predictions, photos, file, examples=2)
    viewer.bars[0].rename.click()                                   # the name that the model gave stands ready
    viewer.on.click()
    viewer.bars[0].keep.click()
    desk.turn(1)
    table = list_mistakes(predictions, photos)
    first, second = table.photo_id[:2]
    assert state_of(desk.decisions) == {first: ('relabel', 'viper', ''), second: ('keep', '', '')}
    assert viewer.count.value == f'of {len(table)}: 2 of {len(table)} photos decided'
    assert 'Named: viper' in viewer.columns[2].value


def test_what_stands_beside_a_mistake(photos, predictions, tmp_path):
    "Its own numbers, and the drawn photos of both species; the menu begins with the pair that is most common"
    named = predictions.assign(species=['cobra', *['viper']*5]).drop(columns='p:cobra')
    viewer = review_mistakes(named, photos, tmp_path/'decisions.csv', examples=2, seed=1)
    assert viewer.menus['mistake'].options[1][0] == 'cobra → viper (2)'
    table = list_mistakes(named, photos)
    for i, row in enumerate(table.itertuples()):
        viewer.turn(i + 1)
        sure = 'not known, loss not known' if row.species == 'cobra' else f'{row.probability:.1%}, loss {row.loss:.2f}'
        assert f'labelled {row.species} ({sure})' in viewer.columns[0].value
        assert f'named {row.named} (60.0%)' in viewer.columns[0].value
        for column, what, name in ((1, 'Labelled', row.species), (2, 'Named', row.named)):
            html, drawn = viewer.columns[column].value, find_examples(photos, name, 2, seed=1, without=row.photo_id)
            assert f'{what}: {name}' in html and html.count('<figure') == 2 and all(i in html for i in drawn.photo_id)
    assert table.species.tolist()[-2:] == ['cobra']*2               # what is not known comes last


def test_mistakes_of_one_split(photos, tmp_path):
    named = pd.DataFrame({'photo_id': photos.photo_id, 'species': 'viper', 'p:viper': 1.})
    wrong = photos[(photos.species != 'viper') & (photos.flag == '')]
    for split, part in wrong.groupby('split'):
        assert set(list_mistakes(named, photos, split=split).photo_id) == set(part.photo_id)
        assert list_pairs(named, photos, split=split).photos.sum() == len(part)
        viewer = review_mistakes(named, photos, tmp_path/'decisions.csv', split=split)
        assert viewer.collection.pages == len(part)


def test_an_answer_that_is_no_species_is_not_proposed(photos, predictions, tmp_path):
    "A model that says unknown gives no name to relabel with"
    viewer = review_mistakes(predictions.assign(species='unknown'), photos, tmp_path/'decisions.csv')
    assert viewer.bars[0].name.value == '' and 'Named: unknown (no training photo)' in viewer.html()
    viewer.bars[0].rename.click()
    assert 'write its name' in viewer.told.value and not viewer.decisions.file.exists()


def test_mistakes_of_a_run(trained, tmp_path):
    "From the folder of a finished run, as training leaves it"
    from snakeid.report.page import read_run
    run = read_run(trained.run)
    viewer = review_mistakes(run, decisions=tmp_path/'decisions.csv')
    wrong = run.predictions.merge(run.manifest[['photo_id', 'species']], on='photo_id').query('species_x != species_y')
    assert viewer.collection.pages == len(list_mistakes(run.predictions, run.manifest)) == len(wrong)
    assert len(wrong) and '<img' in viewer.html()


# Text is text, and a kernel may lack widgets

@pytest.mark.parametrize('name', [n for n in NASTY if n])
def test_names_are_text_wherever_they_are_shown(photos, predictions, tmp_path, name, monkeypatch):
    "In pages and in widgets, also as a photo_id, a path, a flag and a reason"
    odd = photos.assign(species=name, country=name, flag=name.replace(';', ','),
                        photo_id=[f'{name} {i}' for i in range(24)])
    odd.loc[0, 'path'] = name
    named = predictions.assign(species=name + '!', photo_id=[f'{name} {i}' for i in range(0, 24, 4)],
                               **{f'p:{name}': .1}).drop(columns=['p:boa'])
    views = [browse(odd, side=32), review(odd, tmp_path/'1.csv', side=32),
             review_mistakes(named, odd.assign(flag=''), tmp_path/'2.csv')]
    views[1].decisions.quarantine([f'{name} 1', f'{name} 2'], name)
    views[1].turn(1)
    views[1]._tell(name)
    htmls = [v.html() for v in views] + [w.value for v in views for w in walk(v.box) if type(w).__name__ == 'HTML']
    for html in htmls:
        found = read_tags(html)
        assert found.tags <= {'p', 'b', 'div', 'figure', 'img', 'figcaption', 'br'}, found.tags
        assert found.attributes <= {'style', 'src', 'alt', 'loading', 'role'}
    assert any(escape(name) in html for html in htmls)


def walk(widget):
    "A widget and all below it"
    yield widget
    for child in getattr(widget, 'children', ()): yield from walk(child)


def test_without_widgets_there_is_html(photos, predictions, tmp_path, monkeypatch):
    "A kernel that lacks ipywidgets shows the page, and decides by method"
    monkeypatch.setattr(browse_module, 'find_widgets', lambda: None)
    file = tmp_path/'decisions.csv'
    views = [browse(photos, side=32), review(photos, file, side=32), review_mistakes(predictions, photos, file)]
    for view in views:
        shown = view._repr_mimebundle_()
        assert list(shown) == ['text/html'] and '<img' in shown['text/html']
        view.turn(2)
    views[1].decisions.keep('p02')
    views[1].turn(1)
    assert '✓ kept' in views[1].html()
    monkeypatch.undo()
    assert 'application/vnd.jupyter.widget-view+json' in browse(photos, side=32)._repr_mimebundle_()


def test_no_torch_is_needed(photos):
    "Looking at photos does not load a training library"
    import subprocess
    code = 'import sys, snakeid.explore.review, snakeid.explore.mistakes; sys.exit("torch" in sys.modules)'
    root = str(Path(browse_module.__file__).parents[2])
    assert subprocess.run([sys.executable, '-c', code], env={**os.environ, 'PYTHONPATH': root}).returncode == 0


# ---- What was found by trying ----

def test_mistakes_of_predictions_that_say_unknown():
    truth = pd.DataFrame(dict(path=['a.jpg', 'b.jpg'], species=['viper', 'boa']))
    said = pd.DataFrame({'photo_id': ['a', 'b'], 'species': ['unknown', 'boa'], 'named': ['boa', 'boa'],
                         'confidence': .5, 'p:boa': .7, 'p:viper': .3})
    found = list_mistakes(said, truth)
    assert found.photo_id.tolist() == ['a'] and found.named.tolist() == ['unknown']
    assert list_pairs(said, truth).named.tolist() == ['unknown']


def test_signs_that_stand_between_names(tmp_path):
    "A semicolon parts reasons and candidates, so it does not come into a name or a group"
    photos = pd.DataFrame(dict(path=['a.jpg', 'b.jpg'], species='boa', duplicate_group='a; b'))
    decisions = Decisions(tmp_path/'d.csv', photos)
    decisions.relabel('a', 'Naja naja; albino')
    assert decisions.look_up('a')['species'] == 'Naja naja, albino'
    assert list(Queue(photos).counts('flag').index) == ['group of duplicates']


def test_one_column_and_no_choice():
    photos = pd.DataFrame(dict(path=['a.jpg', 'b.jpg'], species=['boa', 'cobra']))
    assert list(Collection(photos, 'species').facets) == ['species']
    with pytest.raises(SnakeidError, match='None for all'): Collection(photos).choose('species', [])
