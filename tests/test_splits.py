"No split and no fold loses, repeats or leaks a photo; the audit finds each leak and no other; counts are the paper's"
import hashlib
import json
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from snakeid.core import SnakeidError, make_rng
from snakeid.data.balance import describe_counts, name_band
from snakeid.data.groups import balance_groups, find_groups, number_names, share_groups
from snakeid.data.leaks import audit_leaks, check_leaks, compare_sides, count_leaks
from snakeid.data.splits import (SIDES, make_folds, split_fixed, split_fold, split_grouped, split_random,
                                 split_stratified)

pytestmark = pytest.mark.filterwarnings('ignore:.*of the photos instead of.*:UserWarning')
# The same examples on every machine, and nothing written beside the tests
many = settings(max_examples=40, deadline=None, derandomize=True, database=None,
                phases=(Phase.generate, Phase.shrink))

# ---- Manifests of all kinds ----

# Values as they come, and the group that each names; None names no group
NAMES = {1: '1', '1': '1', ' 1 ': '1', '1.0': '1', '01': '01', 'dam': 'dam', 'Dam': 'Dam', 'ford ': 'ford',
         2: '2', 2.5: '2.5', -3.0: '-3', np.int64(4): '4', np.float32(5): '5', '': None, '  ': None}
values = st.one_of(st.none(), st.just(float('nan')), st.just(1.0), st.sampled_from(list(NAMES)))
spread = st.one_of(st.none(), st.integers(0, 12), st.integers(0, 12).map(str), st.integers(0, 12).map(float))


def named(value)->str|None: # The group a value names; written without the library's rule
    if value is None or value != value: return None
    return NAMES[value] if value in NAMES else str(int(float(value)))


@st.composite
def manifests(draw, most=40, groups=spread):
    n = draw(st.integers(1, most))
    rows = draw(st.lists(st.tuples(st.sampled_from(['asp', 'boa', 'cobra', 'daboia', None]), groups, groups,
                                   st.sampled_from(['', '', '', 'blurred'])), min_size=n, max_size=n))
    species, location, sequence, flag = zip(*rows)
    ids = draw(st.permutations(range(n)))
    return pd.DataFrame(dict(photo_id=[f'p{i}' for i in ids], path=[f'{i}.jpg' for i in ids],
                             species=pd.Series(species, dtype=object), location=pd.Series(location, dtype=object),
                             sequence=pd.Series(sequence, dtype=object), flag=list(flag)))


def usable(manifest): return (manifest.flag == '') & manifest.species.notna()


def flood(manifest, columns)->list[set]: # Groups of photo_ids, found by going from photo to photo
    left, groups = dict(zip(manifest.photo_id, zip(*([named(v) for v in manifest[c]] for c in columns)))), []
    while left:
        seed, values = left.popitem()
        group, todo = {seed}, [values]
        while todo:
            here = todo.pop()
            near = [p for p, there in left.items() if any(a is not None and a == b for a, b in zip(here, there))]
            todo += [left.pop(p) for p in near]
            group |= set(near)
        groups.append(group)
    return groups


SPLITS = {
    'random': lambda m, **kw: split_random(m, **kw),
    'stratified': lambda m, **kw: split_stratified(m, **kw),
    'location': lambda m, **kw: split_grouped(m, 'location', **kw),
    'location, sequence': lambda m, **kw: split_grouped(m, ['location', 'sequence'], **kw),
    'location, stratified': lambda m, **kw: split_grouped(m, 'location', stratify=True, **kw),
    'both, stratified': lambda m, **kw: split_grouped(m, ['location', 'sequence'], stratify=True, **kw)}
FOLDS = {
    'photos': lambda m, k, **kw: make_folds(m, k, stratify=False, **kw),
    'stratified': lambda m, k, **kw: make_folds(m, k, **kw),
    'location': lambda m, k, **kw: make_folds(m, k, group='location', stratify=False, **kw),
    'location, stratified': lambda m, k, **kw: make_folds(m, k, group='location', **kw),
    'both, stratified': lambda m, k, **kw: make_folds(m, k, group=['location', 'sequence'], **kw)}
COLUMNS = {'location': ['location'], 'location, sequence': ['location', 'sequence'],
           'location, stratified': ['location'], 'both, stratified': ['location', 'sequence']}


def attempt(make, manifest, *args, **kw):
    "The result; where the manifest has too few photos or groups for it, the example does not count"
    try: return make(manifest, *args, **kw)
    except SnakeidError as e:
        assert 'too few to fill' in str(e) or 'nothing to split' in str(e), e
        assume(False)


def same_but(before, after, column):
    "Nothing but one column is new, and no row is lost, repeated or moved"
    before = before.drop(columns=column, errors='ignore').reset_index(drop=True)
    pd.testing.assert_frame_equal(after.drop(columns=column), before)


# ---- Splits ----


@pytest.mark.parametrize('name', SPLITS)
@many
@given(manifest=manifests(), seed=st.integers(0, 9),
       shares=st.sampled_from([(.1, .1), (0, .2), (.3, 0), (.25, .5), (0, 0)]))
def test_split_keeps_every_photo(name, manifest, seed, shares):
    parts = attempt(SPLITS[name], manifest, valid_share=shares[0], test_share=shares[1], seed=seed)
    same_but(manifest, parts, 'split')
    placed = parts.split.notna()
    assert (placed == usable(manifest)).all() and set(parts.split[placed]) <= set(SIDES)
    assert 'train' in set(parts.split)
    for side, share in zip(('valid', 'test'), shares):
        if share == 0: assert side not in set(parts.split)
        elif name in COLUMNS: assert side in set(parts.split)
    if name in COLUMNS:
        side = dict(zip(parts.photo_id[placed], parts.split[placed]))
        for group in flood(manifest[usable(manifest)], COLUMNS[name]): assert len({side[p] for p in group}) == 1
        assert audit_leaks(parts, COLUMNS[name]).empty


@pytest.mark.parametrize('name', SPLITS)
@many
@given(manifest=manifests(), seed=st.integers(0, 9), order=st.randoms(use_true_random=False))
def test_split_depends_on_the_seed_alone(name, manifest, seed, order):
    shares = dict(valid_share=.2, test_share=.3, seed=seed)
    parts = attempt(SPLITS[name], manifest, **shares)
    pd.testing.assert_frame_equal(parts, SPLITS[name](manifest, **shares))
    rows = list(range(len(manifest)))
    order.shuffle(rows)
    mixed = SPLITS[name](manifest.iloc[rows], **shares).set_index('photo_id').split
    assert mixed[parts.photo_id].fillna('-').tolist() == parts.split.fillna('-').tolist()


@pytest.mark.parametrize('name', SPLITS)
def test_another_seed_is_another_split(name):
    rows = np.arange(600)
    m = pd.DataFrame(dict(path=[f'{i}.jpg' for i in rows], species=np.random.default_rng(0).choice(list('abcd'), 600),
                          location=rows//10, sequence=rows//2))
    m['sequence'] = m.sequence.mask(rows%20 == 10, rows//2 - 1)      # one sequence spans two places
    found = {tuple(SPLITS[name](m, seed=s).split) for s in range(8)}
    assert len(found) == 8


@many
@given(manifest=manifests(most=200, groups=st.none()), shares=st.tuples(st.floats(0, .45), st.floats(0, .45)),
       seed=st.integers(0, 9))
def test_shares_of_photos(manifest, shares, seed):
    fine, (valid, test) = usable(manifest), shares
    assume(fine.any())
    n = fine.sum()
    parts = split_random(manifest, valid_share=valid, test_share=test, seed=seed)
    for side, share in zip(('valid', 'test'), shares): assert abs((parts.split == side).sum() - share*n) <= 1
    parts = split_stratified(manifest, valid_share=valid, test_share=test, seed=seed)
    table = pd.crosstab(parts.species, parts.split).reindex(columns=SIDES, fill_value=0)
    for species, row in table.iterrows():
        n = row.sum()
        assert row.train >= 1
        if test > 0: assert row.test >= (n >= 2) and abs(row.test - test*n) <= 1, species
        if valid > 0 and n >= 3: assert row.valid >= 1 or row.train == 1, species
        assert row.valid <= max(valid*n, 0) + 1


# The split of a seed is written in published results: it must not change with the code
def test_stratified_split_of_a_seed_is_as_ever():
    m = pd.DataFrame(dict(species=[s for s, n in zip('fbdaec', (40, 3, 2, 17, 1, 9)) for _ in range(n)]))
    m['path'] = [f'{i*7919%1000:03d}.jpg' for i in m.index]
    m['flag'] = np.where(m.index % 11 == 5, 'blurred', '')
    for valid, test, seed, told in ((.1, .1, 0, 'c8c6fe6d803b'), (.1, .1, 1, 'bd19920cab88'),
                                    (.2, .3, 2, '05382595d1c4'), (0, .5, 3, 'e2fe818b39d8')):
        split = split_stratified(m, valid_share=valid, test_share=test, seed=seed).split
        assert hashlib.sha256(' '.join(split.fillna('-')).encode()).hexdigest()[:12] == told


@many
@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=30), seed=st.integers(0, 9),
       shares=st.tuples(st.floats(0, .97), st.floats(0, .97)).filter(lambda s: sum(s) < .99))
def test_no_side_is_further_from_its_share_than_the_largest_group(sizes, shares, seed):
    sizes, wanted = np.array(sizes), [j for j in (1, 2) if shares[j-1] > 0]
    assume(len(sizes) > len(wanted) and all(shares[j-1] > .001 for j in wanted))
    side = share_groups(sizes, (1 - sum(shares), *shares), make_rng(seed))
    got = np.bincount(side, weights=sizes, minlength=3)
    assert got[0] and all(got[j] for j in wanted) and got.sum() == sizes.sum()
    # where the largest group is more than the share of training, the others divide what it leaves
    scale = min(1, (1 - sizes.max()/sizes.sum())/sum(shares[j-1] for j in wanted)) if wanted else 1
    for j in wanted: assert abs(got[j] - scale*shares[j-1]*sizes.sum()) <= sizes.max() + 1e-9
    assert all(j in (0, *wanted) for j in side)


def test_sides_share_what_a_huge_group_leaves():
    for seed in range(20):
        got = np.bincount(share_groups(np.array([60, *[1]*40]), (.1, .6, .3), make_rng(seed)), weights=[60, *[1]*40])
        assert got.tolist() == [60, 27, 13]
        # nothing fits into the share of the side that is filled last, and training keeps a group all the same
        side = share_groups(np.array([3, 2, 2]), (.01, .01, .98), make_rng(seed))
        assert sorted(side.tolist()) == [0, 1, 2]


def test_shares_of_many_groups_are_nearly_exact():
    rng = np.random.default_rng(1)
    for seed in range(20):
        sizes = rng.lognormal(3, 1, 300).astype(int) + 1
        got = np.bincount(share_groups(sizes, (.8, .1, .1), make_rng(seed)), weights=sizes)/sizes.sum()
        assert abs(got - [.8, .1, .1]).max() < .0005


def draw_survey(seed, n=6000, species=40, places=80):
    "Species with a long tail, each mostly at a few places"
    rng = np.random.default_rng(seed)
    kind = rng.choice(species, n, p=(w := 1/np.arange(1, species+1))/w.sum())
    home = rng.integers(0, places, (species, 8))
    place = np.where(rng.random(n) < .7, home[kind, rng.integers(0, 8, n)], rng.integers(0, places, n))
    return np.unique(kind, return_inverse=True)[1], np.unique(place, return_inverse=True)[1]


def species_error(kind, fold, k):
    counts = np.bincount(kind*k + fold, minlength=(kind.max() + 1)*k).reshape(-1, k)
    return np.abs(counts/counts.sum(1, keepdims=True) - 1/k).sum(1).mean()/2


def test_species_come_as_near_their_shares_as_with_scikit_learn():
    ours, theirs = [], []
    for seed in range(10):
        kind, place = draw_survey(seed)
        targets = np.repeat(np.bincount(kind)[:, None]/5, 5, axis=1)
        fold = balance_groups(place, kind, targets, total=targets.sum(0), rng=make_rng(seed))[place]
        ours.append(species_error(kind, fold, 5))
        fold = np.empty(len(kind), int)
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        for i, (_, rows) in enumerate(folds.split(kind, kind, place)): fold[rows] = i
        theirs.append(species_error(kind, fold, 5))
    assert np.mean(ours) < np.mean(theirs)


def test_stratified_groups_of_one_photo_come_within_a_photo():
    rng = np.random.default_rng(0)
    species = rng.choice(list('abcdefgh'), 900, p=np.arange(1, 9)/36)
    m = pd.DataFrame(dict(path=[f'{i}.jpg' for i in range(900)], species=species, location=None))
    table = compare_sides(split_grouped(m, stratify=True))[list(SIDES)]
    for side in ('valid', 'test'): assert (table[side] - table.sum(axis=1)*.1).abs().max() <= 1


def test_rare_species_train_first():
    # e: one group of its own; f: two groups of its own; g: only at a place of the common a
    rows = [('a', i % 20) for i in range(200)] + [('e', 'x')]*4 + [('f', 'y')]*2 + [('f', 'z')]*2 + [('g', 3)]
    m = pd.DataFrame(rows, columns=['species', 'location']).assign(path=[f'{i}.jpg' for i in range(len(rows))])
    for seed in range(10):
        sides = compare_sides(split_grouped(m, stratify=True, seed=seed))
        assert sides.loc['e'].tolist() == [4, 0, 0, 'never judged']
        assert sides.loc['f'].tolist() == [2, 0, 2, '']
        most_held = split_grouped(m, stratify=True, valid_share=.45, test_share=.45, seed=seed)
        assert compare_sides(most_held).loc['e'].tolist() == [4, 0, 0, 'never judged']
        folded = make_folds(m, 4, group='location', seed=seed)
        assert (folded.fold[folded.species == 'e'] == -1).all() and (folded.fold[folded.species != 'e'] >= 0).all()
        where = folded.fold[folded.species == 'g'].iloc[0]
        assert compare_sides(split_fold(folded, where)).note['g'] == 'never trained'


# ---- Groups ----


@many
@given(manifest=manifests(groups=values), columns=st.sampled_from([['location'], ['sequence', 'location']]))
def test_groups_are_connected_components(manifest, columns):
    numbers = find_groups(manifest, columns)
    found = {frozenset(g) for _, g in manifest.photo_id.groupby(numbers.to_numpy())}
    assert found == {frozenset(g) for g in flood(manifest, columns)}
    first = manifest.photo_id.groupby(numbers.to_numpy()).min()
    assert first.is_monotonic_increasing and first.index.tolist() == list(range(len(found)))


@pytest.mark.parametrize('column', [
    pd.Series([7, 7, 8]), pd.Series([7., 7, 8]), pd.Series(['7', ' 7', '8']), pd.Series([7, '7.0', 8.], dtype=object),
    pd.Series([7, 7, 8], dtype='category'), pd.Series(['7', '7', '8'], dtype='category'),
    pd.Series([7, 7, 8], dtype='Int64')])
def test_ids_of_all_types_name_the_same_groups(column):
    numbers, names = number_names(column)
    assert numbers.tolist() == [0, 0, 1] and names.tolist() == ['7', '8']


def test_whole_numbers_keep_all_digits():
    big = 2**60 + 1
    assert number_names(pd.Series([big, str(big), big + 1], dtype=object))[0].tolist() == [0, 0, 1]
    assert number_names(pd.Series([float('inf'), 1e300, pd.NA, pd.NaT], dtype=object))[0].tolist()[2:] == [-1, -1]


# ---- Folds ----


@pytest.mark.parametrize('name', FOLDS)
@many
@given(manifest=manifests(), k=st.integers(2, 5), seed=st.integers(0, 9))
def test_every_photo_is_held_out_once(name, manifest, k, seed):
    folded = attempt(FOLDS[name], manifest, k, seed=seed)
    same_but(manifest, folded, 'fold')
    assert (folded.fold.notna() == usable(manifest)).all()
    assert set(folded.fold.dropna()) - {-1} == set(range(k))
    turns = [split_fold(folded, i) for i in range(k)]
    for i, turn in enumerate(turns):
        assert ((turn.split == 'valid') == (folded.fold == i).fillna(False)).all()
        assert ((turn.split == 'train') == (folded.fold.notna() & (folded.fold != i)).fillna(False)).all()
    held = sum((t.split == 'valid').astype(int) for t in turns)
    assert (held == (folded.fold >= 0).fillna(False)).all()
    if name in COLUMNS: assert audit_leaks(folded, COLUMNS[name], side='fold').empty
    if name in ('photos', 'stratified'):
        sizes = folded.fold[folded.fold >= 0].value_counts()
        assert sizes.max() - sizes.min() <= 1
    if name == 'stratified':
        table = pd.crosstab(folded.species, folded.fold).reindex(columns=range(k), fill_value=0)
        assert (table.max(axis=1) - table.min(axis=1)).max() <= 1
        fine = folded[usable(folded)]
        assert ((fine.fold == -1) == (fine.groupby('species').species.transform('size') == 1)).all()
    rows = np.random.default_rng(seed).permutation(len(manifest))
    mixed = FOLDS[name](manifest.iloc[rows], k, seed=seed).set_index('photo_id').fold
    assert mixed[folded.photo_id].fillna(-9).tolist() == folded.fold.fillna(-9).tolist()


def test_folds_survive_a_csv(tmp_path):
    m = pd.DataFrame(dict(path=[f'{i}.jpg' for i in range(20)], species=['a', 'b']*9 + ['c', None]))
    folded = make_folds(m, 3)
    folded.to_csv(tmp_path/'m.csv', index=False)
    expected = split_fold(folded, 1, test=2).split
    for read in (pd.read_csv(tmp_path/'m.csv'), pd.read_csv(tmp_path/'m.csv', dtype=str)):
        assert split_fold(read, 1, test=2).split.fillna('-').tolist() == expected.fillna('-').tolist()


def test_a_fixed_test_stays_out_of_the_folds():
    m = pd.DataFrame(dict(path=[f'{i}.jpg' for i in range(60)], species=['a', 'b']*30, location=np.arange(60)//5))
    m = make_folds(split_fixed(m, 'location', test=[0, 1, 2]), 3, group='location', hold_test=True)
    assert m.fold[m.location < 3].isna().all() and m.fold[m.location >= 3].notna().all()
    for i in range(3):
        turn = check_leaks(split_fold(m, i))
        assert ((turn.split == 'test') == (m.location < 3)).all()
        assert ((turn.split == 'valid') == (m.fold == i).fillna(False)).all()
    late = split_fold(m.assign(flag=np.where(m.index%30 == 0, 'blurred', '')), 0)
    assert late.split.index[late.split.isna()].tolist() == [0, 30]


@pytest.mark.parametrize('backend', ['numpy_nullable', 'pyarrow'])
def test_tables_with_nullable_columns(backend):
    m = pd.DataFrame(dict(path=[f'{i}.jpg' for i in range(40)], species=['a', 'b', None, 'b']*10,
                          location=np.arange(40)//4))
    m = split_fixed(m, 'location', train=range(2, 9), test=[0, 1], rest=None)
    nullable = m.convert_dtypes(dtype_backend=backend)
    for make in (split_random, split_stratified, split_grouped, lambda m: split_grouped(m, stratify=True), make_folds,
                 lambda m: make_folds(m, 3, group='location', hold_test=True),
                 lambda m: split_fold(make_folds(m, 3, hold_test=True), 0)):
        one, other = (make(t).filter(['split', 'fold']).astype(object).fillna('-') for t in (m, nullable))
        assert one.values.tolist() == other.values.tolist()
    assert compare_sides(nullable).values.tolist() == compare_sides(m).values.tolist()
    assert audit_leaks(nullable).empty


# ---- The audit ----


@many
@given(manifest=manifests(groups=values), data=st.data())
def test_audit_finds_every_leak_and_no_other(manifest, data):
    n = len(manifest)
    split = data.draw(st.lists(st.sampled_from(['train', 'valid', 'test', None, '']), min_size=n, max_size=n))
    manifest = manifest.assign(split=pd.Series(split, dtype=object))
    stands = {}
    for column in ('location', 'sequence'):
        for value, side, flag in zip(manifest[column], split, manifest.flag):
            if named(value) is None or not side or flag: continue
            stands.setdefault((column, named(value)), []).append(side)
    torn = {k: v for k, v in stands.items() if len(set(v)) > 1}
    leaks = audit_leaks(manifest)
    assert set(zip(leaks['column'], leaks.group)) == set(torn) and len(leaks) == len(torn)
    for row in leaks.to_dict('records'):
        sides = torn[row['column'], row['group']]
        assert row['sides'] == ', '.join(s for s in SIDES if s in sides)
        for side in SIDES: assert row.get(side, 0) == sides.count(side)
    counts = count_leaks(manifest).set_index('column')
    assert counts.leaks.sum() == len(torn) and counts.state.to_dict() == dict(
        duplicate_group='absent', sequence='checked', location='checked', observation='absent')
    assert counts.groups.location == sum(c == 'location' for c, _ in stands)
    if torn:
        with pytest.raises(SnakeidError, match='on more than one side'): check_leaks(manifest)
    else: check_leaks(manifest)


def test_a_planted_leak_is_named():
    m = pd.DataFrame(dict(path=[f'{i}.jpg' for i in range(300)], species='boa', location=np.arange(300)//10,
                          duplicate_group=None, observation=[f'o{i//2}' for i in range(300)]))
    m = check_leaks(split_grouped(m))
    m.loc[17, 'split'] = 'test' if m.split[17] != 'test' else 'train'
    leaks = audit_leaks(m)
    assert leaks[['column', 'group']].values.tolist() == [['location', '1'], ['observation', 'o8']]
    m.loc[[40, 250], 'duplicate_group'] = 3.
    sides = m.split[40], m.split[250]
    assert ('duplicate_group' in set(audit_leaks(m)['column'])) == (sides[0] != sides[1])
    m.loc[250, 'split'] = next(s for s in SIDES if s != sides[0])
    assert audit_leaks(m).iloc[0][['column', 'group']].tolist() == ['duplicate_group', '3']
    with pytest.raises(SnakeidError, match=r"duplicate_group '3' \(") as e: check_leaks(m)
    assert str(e.value).endswith("split_grouped(manifest, ['duplicate_group', 'location', 'observation'])")


@many
@given(manifest=manifests(), data=st.data())
def test_compare_sides_counts_every_photo(manifest, data):
    n = len(manifest)
    split = data.draw(st.lists(st.sampled_from([*SIDES, None]), min_size=n, max_size=n))
    table = compare_sides(manifest.assign(split=pd.Series(split, dtype=object)))
    assert set(table.index) == set(manifest.species.dropna())
    for species, row in table.iterrows():
        stands = [s for s, k, f in zip(split, manifest.species, manifest.flag) if k == species and not f and s]
        assert [row[s] for s in SIDES] == [stands.count(s) for s in SIDES]
        trained, judged = 'train' in stands, 'valid' in stands or 'test' in stands
        notes = {(1, 1): '', (0, 1): 'never trained', (1, 0): 'never judged', (0, 0): 'on no side'}
        assert row.note == notes[trained, judged]


# ---- Fixed splits ----


@many
@given(manifest=manifests(groups=values), data=st.data())
def test_fixed_lists_are_kept(manifest, data):
    assume(usable(manifest).any())
    places = sorted({named(v) for v in manifest.location} - {None})
    sides = {p: data.draw(st.sampled_from([*SIDES, None])) for p in places}
    lists = {s: [p for p in places if sides[p] == s] for s in SIDES}
    expected = [sides.get(named(v)) if ok else None for v, ok in zip(manifest.location, usable(manifest))]
    assert split_fixed(manifest, 'location', **lists, rest=None).split.tolist() == expected
    lists.pop('train')
    expected = [(side or 'train') if ok else None for side, ok in zip(expected, usable(manifest))]
    parts = split_fixed(manifest, 'location', **lists)
    same_but(manifest, parts, 'split')
    assert parts.split.tolist() == expected


@pytest.mark.parametrize('written', [int, str, float])
def test_a_published_list_of_places(real_data, written):
    lists = json.loads((real_data/'tables'/'iwildcam2021_location_split.json').read_text())
    places = sorted(lists['train'] + lists['validation'])
    m = pd.DataFrame(dict(location=[written(p) for p in places for _ in range(3)],
                          species=['empty', 'ocelot', 'tapir']*len(places)))
    m['path'] = [f'{i}.jpg' for i in m.index]
    parts = split_fixed(m, 'location', train=lists['train'], valid=lists['validation'])
    by_place = parts.groupby('location').split.first()
    assert {int(float(p)) for p in by_place.index[by_place == 'valid']} == set(lists['validation'])
    assert parts.split.value_counts().to_dict() == dict(train=3*281, valid=3*44)
    assert audit_leaks(parts).empty


# ---- Counts ----


def test_the_numbers_of_the_paper(real_data):
    table = pd.read_csv(real_data/'tables'/'aicrowd_round3_85_species.csv')
    d = describe_counts(table.set_index('scientific_name').photos)
    assert d[['species', 'photos', 'max', 'min', 'median']].tolist() == [85, 129_773, 13_753, 30, 762]
    assert int(d['mean']) == 1526 and int(d['std']) == 2007       # figure 4 cuts its decimals off
    assert [d[f'{b} species'] for b in ('head', 'mid', 'tail')] == [83, 2, 0]     # Python regius has 77 photos
    assert sum(d[f'{b} photos'] for b in ('head', 'mid', 'tail')) == 129_773


@many
@given(counts=st.lists(st.integers(0, 5000), min_size=1, max_size=50))
def test_counts_are_described(counts):
    d = describe_counts(dict(enumerate(counts)))
    mean = sum(counts)/len(counts)
    assert (d.species, d.photos, d['max'], d['min']) == (len(counts), sum(counts), max(counts), min(counts))
    assert d['mean'] == pytest.approx(mean)
    assert d['std'] == pytest.approx((sum((c - mean)**2 for c in counts)/len(counts))**.5)
    ordered = sorted(counts)
    assert d['median'] == (ordered[(len(counts)-1)//2] + ordered[len(counts)//2])/2
    for b in ('head', 'mid', 'tail'):
        inside = [c for c in counts if name_band(c) == b]
        assert (d[f'{b} species'], d[f'{b} photos']) == (len(inside), sum(inside))


# ---- What can go wrong ----

sound = pd.DataFrame(dict(path=[f'{i}.jpg' for i in range(12)], species=['a', 'b']*6, location=list('aabbccddeeff'),
                          split=['train']*8 + ['valid']*2 + ['test']*2))
WRONG = {
    'no species': (lambda: split_random(sound.drop(columns='species')), "no column 'species'"),
    'no such group': (lambda: split_grouped(sound, ['location', 'site']), "no column 'site'"),
    'no group named': (lambda: split_grouped(sound, []), 'no column is named'),
    'all flagged, grouped': (lambda: split_grouped(sound.assign(flag='blurred')), 'nothing to split'),
    'all flagged, random': (lambda: split_random(sound.assign(flag='blurred')), 'nothing to split'),
    'all flagged, fixed': (lambda: split_fixed(sound.assign(flag='blurred'), 'location', test='a'), 'nothing to split'),
    'all flagged, folds': (lambda: make_folds(sound.assign(flag='blurred')), 'nothing to split'),
    'no label': (lambda: split_grouped(sound.assign(species=None)), 'nothing to split'),
    'no photos': (lambda: split_random(sound[:0]), 'nothing to split'),
    'one group': (lambda: split_grouped(sound.assign(location='dam')), '1 group of photos by location, too few'),
    'a group of all photos': (lambda: split_grouped(sound.assign(sequence=1), ['location', 'sequence']),
                              'name sequences differently'),
    'two groups, three sides': (lambda: split_grouped(sound.assign(location=['x', 'y']*6)), 'are 2 groups'),
    'a place a species': (lambda: split_grouped(sound, 'species', stratify=True), 'pass stratify=False'),
    'share below 0': (lambda: split_grouped(sound, valid_share=-.1), 'shares must be'),
    'share of 1': (lambda: split_grouped(sound, test_share=1), 'shares must be'),
    'shares of 1': (lambda: split_random(sound, test_share=.6, valid_share=.4), 'shares must be'),
    'no number as share': (lambda: split_random(sound, test_share=float('nan')), 'shares must be'),
    'seed below 0': (lambda: split_random(sound, seed=-1), 'seed must be 0 or more'),
    'k of 1': (lambda: make_folds(sound, 1), 'k must be'),
    'k of 2.5': (lambda: make_folds(sound, 2.5), 'k must be'),
    'k over photos': (lambda: make_folds(sound, 13), '12 photos'),
    'k over groups': (lambda: make_folds(sound, 7, group='location'), 'are 6 groups of photos by location'),
    'no such fold': (lambda: split_fold(make_folds(sound, 3), 3), 'found 0, 1, 2'),
    'the fold that trains always': (lambda: split_fold(make_folds(sound, 3), -1), 'no photo has the fold -1'),
    'lists as groups': (lambda: find_groups(sound.assign(location=[['a']]*12)), 'holds list values'),
    'a place on two sides': (lambda: split_fixed(sound, 'location', valid=['a'], test=['a ']), 'location a stands in'),
    'an unknown place': (lambda: split_fixed(sound, 'location', test=['A']), "not in 'location': A"),
    'text for a list': (lambda: split_fixed(sound, 'location', test='a'), 'put it into a list'),
    'nothing to check': (lambda: check_leaks(sound[['path', 'split']]), 'cannot be checked'),
    'not split': (lambda: audit_leaks(sound.drop(columns='split')), "no column 'split'"),
    'no counts': (lambda: describe_counts({}), 'no species to describe'),
    'labels for counts': (lambda: describe_counts(sound.species), 'count species with'),
    'less than none': (lambda: describe_counts([3, -1]), 'found -1'),
    'a gap': (lambda: describe_counts(pd.Series([3, None], dtype='Int64')), 'found <NA>'),
    'flagged photos only': (lambda: describe_counts(sound.assign(flag='blurred')), 'usable photos')}


@pytest.mark.parametrize('name', WRONG)
def test_one_clear_sentence(name):
    make, told = WRONG[name]
    with pytest.raises(SnakeidError) as e: make()
    assert told in str(e.value) and '\n' not in str(e.value)


def test_missing_places_stand_alone():
    m = sound.assign(location=[None, '', ' ', float('nan')]*3)
    parts = split_grouped(m, valid_share=.25, test_share=.25)
    assert parts.split.value_counts().to_dict() == dict(train=6, valid=3, test=3) and audit_leaks(parts).empty


def test_a_side_far_from_its_share_warns_and_a_near_one_does_not():
    m = sound.assign(location=['x']*7 + ['y']*4 + ['z'])
    with pytest.warns(UserWarning, match='instead of 10.0%: the largest group by location has 58.3%'): split_grouped(m)
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        split_grouped(sound, valid_share=.2, test_share=.2)
