"What is known besides the photo: species tables, checklists, ranks, groups of photos, costs; made and real tables"
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from snakeid.core import SnakeidError, make_rng
from snakeid.data.taxa import COUNTRY_NAMES, REGIONS, find_taxa, make_checklist, match_names, read_taxa
from snakeid.predict.context import apply_checklist, decide_cost, join_photos, roll_up, venom_cost
from snakeid.predict.vote import vote_majority, vote_mean

# The same examples on every machine, and nothing written beside the tests
many = settings(max_examples=60, deadline=None, derandomize=True, database=None,
                phases=(Phase.generate, Phase.shrink))

# ---- Tables to work on ----

SPECIES = ['Naja naja', 'Naja atra', 'Ptyas mucosa', 'Boiga cyanea', 'Daboia russelii']


def write(path, text, **kwargs):
    path.write_text(text, **kwargs)
    return path


@pytest.fixture(scope='session')
def taxa():
    "Five species of three families; of one the venom is unknown, of another the family"
    return pd.DataFrame(dict(genus=['Naja', 'Naja', 'Ptyas', 'Boiga', 'Daboia'],
                             family=['Elapidae', 'Elapidae', 'Colubridae', 'Colubridae', None],
                             venomous=pd.array([True, True, False, None, True], dtype='boolean'),
                             countries=[('India',), ('China', 'Laos'), ('China', 'India'), ('Southeast Asia',), ()]),
                        index=SPECIES)


@pytest.fixture(scope='session')
def catalog(real_data):
    "A real table of 1,791 species"
    file = real_data/'tables'/'species_catalog.csv'
    if not file.is_file(): pytest.skip("no tables/species_catalog.csv among the real data")
    return read_taxa(file)


@st.composite
def tables(draw):
    "Probabilities [n,species], with exact zeros and ties among them"
    s, n = draw(st.integers(1, 6)), draw(st.integers(1, 8))
    row = st.lists(st.one_of(st.just(0), st.integers(0, 5), st.integers(0, 10**6)), min_size=s, max_size=s).filter(any)
    counts = np.array(draw(st.lists(row, min_size=n, max_size=n)), dtype=float)
    return counts/counts.sum(1, keepdims=True)


def names(probs): return SPECIES[:probs.shape[1]] + ['Bitis arietans'][:probs.shape[1]-5]


# ---- Reading ----

def test_usual_columns_are_found_in_any_order(tmp_path):
    file = write(tmp_path/'t.csv', 'Country\tFamily\tVenomous\tBinomial\nIndia\tElapidae\t1\tNaja naja\n')
    table = read_taxa(file)
    assert table.index.tolist() == ['Naja naja']
    row = table.iloc[0]
    assert (row.genus, row.family, row.venomous, row.countries) == ('Naja', 'Elapidae', True, ('India',))
    assert row.known_anywhere and table.index.name == 'species'


def test_named_columns_win_and_the_separator_is_free(tmp_path):
    file = write(tmp_path/'t.csv', 'scientific_name,Latin,where\nx y,Naja naja,India/Nepal\n')
    table = read_taxa(file, columns=dict(species='Latin', countries='where'), between='/')
    assert table.countries.to_dict() == {'Naja naja': ('India', 'Nepal')}


@pytest.mark.parametrize('word,meant', [('Venomous', True), ('VENOMOUS', True), ('1', True), ('yes', True),
                                        ('1.0', True), ('Non Venomous', False), ('non-venomous', False),
                                        ('harmless', False), ('0', False), ('False', False),
                                        ('', None), ('unknown', None), ('NA', None)])
def test_words_for_venom(tmp_path, word, meant):
    venom = read_taxa(write(tmp_path/'t.csv', f'species,venomous\nNaja naja,{word}\n')).venomous
    assert venom.dtype == 'boolean'
    assert pd.isna(venom.iloc[0]) if meant is None else venom.iloc[0] == meant


def test_a_word_for_venom_that_nobody_explained(tmp_path):
    file = write(tmp_path/'t.csv', 'species,venomous\nNaja naja,mildly\nBoa boa,mildly\n')
    with pytest.raises(SnakeidError, match="of venom 'mildly': say what it means"): read_taxa(file)
    assert read_taxa(file, words=dict(Mildly=True)).venomous.all()


def test_rows_of_photos_become_rows_of_species(tmp_path):
    file = write(tmp_path/'t.csv', 'binomial,country,family\n' + 'Naja_naja,India,Elapidae\n'*3 + 'naja naja,Nepal,\n'
                 ',Peru,\nBoa constrictor,unknown,Boidae\n')
    table = read_taxa(file)
    assert table.countries.to_dict() == {'Naja naja': ('India', 'Nepal'), 'Boa constrictor': ()}
    assert table.known_anywhere.tolist() == [True, False] and table.family.tolist() == ['Elapidae', 'Boidae']


@pytest.mark.parametrize('column,values', [('genus', ('Naja', 'Ophiophagus')), ('family', ('Elapidae', 'Viperidae')),
                                           ('venomous', ('yes', 'no'))])
def test_a_species_that_is_two_things(tmp_path, column, values):
    file = write(tmp_path/'t.csv', f'species,{column}\nNaja naja,{values[0]}\nBoa boa,{values[0]}\n'
                                   f'naja-naja,{values[1]}\n')
    with pytest.raises(SnakeidError, match=f'more than one {column} for Naja naja: {values[0]}, {values[1]}'):
        read_taxa(file)


@pytest.mark.parametrize('text,columns,says', [
    ('a,b\n1,2\n', {}, 'no column of scientific names; found a, b'), ('species\n\n', {}, 'no rows|names no species'),
    ('species,g\n,x\n', {}, 'names no species'), ('species,g\nx,y\n', dict(genus='h'), "no column 'h'"),
    ('species,g\nx,y\n', dict(order='g'), "found 'order'"), ('', {}, 'is empty')])
def test_files_that_are_no_table_of_species(tmp_path, text, columns, says):
    with pytest.raises(SnakeidError, match=says): read_taxa(write(tmp_path/'t.csv', text), columns=columns)


def test_every_other_name_of_a_country_is_understood(tmp_path):
    meant = sorted({c for v in COUNTRY_NAMES.values() for c in v.split('; ')})
    file = write(tmp_path/'t.csv', 'species;countries\n' + ''.join(f'S{i} s;{c}\n' for i, c in enumerate(meant)),
                 encoding='utf-8')
    table = read_taxa(file)
    assert [c for (c,) in table.countries] == meant          # a usual name is not another's other name
    for other, usual in COUNTRY_NAMES.items():
        found = make_checklist(table, other.upper()).known
        assert [table.countries[s][0] for s in found.index[found]] == sorted(usual.split('; ')), other


def test_wider_areas_are_no_countries(taxa):
    for region in REGIONS:
        with pytest.raises(SnakeidError, match='wider than a country'): make_checklist(taxa, region.lower())


# ---- Looking up ----

def test_match_names():
    assert match_names(['NAJA_NAJA', 'x', 'ptyas-mucosa', 'Naja naja'], SPECIES).tolist() == [0, -1, 2, 0]
    assert match_names([], SPECIES).tolist() == [] and match_names(['x'], []).tolist() == [-1]


def test_find_taxa_keeps_order_and_names(taxa):
    found = find_taxa(['daboia_russelii', 'Naja oxiana', 'naja naja', 'daboia_russelii'], taxa)
    assert found.index.tolist() == ['daboia_russelii', 'Naja oxiana', 'naja naja', 'daboia_russelii']
    assert found.listed.tolist() == [True, False, True, True]
    assert found.genus.tolist() == ['Daboia', 'Naja', 'Naja', 'Daboia']
    assert found.family.fillna('').tolist() == ['', 'Elapidae', 'Elapidae', '']
    assert found.venomous.dtype == 'boolean' and pd.isna(found.venomous.iloc[1])
    assert taxa.columns.tolist() == ['genus', 'family', 'venomous', 'countries']     # the table itself is left alone


def test_a_family_is_not_guessed_where_the_genus_has_two(taxa):
    torn = taxa.assign(family=['Elapidae', 'Viperidae', 'Colubridae', 'Colubridae', None])
    assert find_taxa(['Naja oxiana', 'Naja naja'], torn).family.fillna('').tolist() == ['', 'Elapidae']


def test_countries_may_stand_in_lists_but_not_as_text(taxa):
    lists = taxa.assign(countries=[list(c) if c else None for c in taxa.countries])
    for country in ('India', 'Laos'): assert make_checklist(lists, country).equals(make_checklist(taxa, country))
    with pytest.raises(SnakeidError, match='countries of Naja naja, Naja atra, Ptyas mucosa and 2 more are one text'):
        make_checklist(taxa.assign(countries=[str(c) for c in taxa.countries]), 'India')


# ---- Checklists ----

def test_a_checklist_has_three_answers(taxa):
    listed = make_checklist(taxa, 'Laos', [*SPECIES, 'Vipera berus'])
    assert listed.known.tolist() == [False, True, False, False, False, False]
    assert listed.possible.tolist() == [False, True, False, True, True, True]
    assert listed.why.tolist() == ['not known from Laos', 'known from Laos', 'not known from Laos',
                                   'Southeast Asia in the table: counts as possible',
                                   'no country in the table: counts as possible',
                                   'not in the table: counts as possible']


def test_an_unknown_country_gets_near_names(taxa):
    with pytest.raises(SnakeidError, match="no country 'Indja': near names are India"): make_checklist(taxa, 'Indja')
    with pytest.raises(SnakeidError, match="no country '': it knows China, India, Laos"): make_checklist(taxa, '')
    with pytest.raises(SnakeidError, match="no country 'Peru'"): make_checklist(taxa, ['India', 'Peru'])


def test_a_checklist_in_a_table_is_as_good_as_its_names(taxa):
    probs = np.array([[.3, .3, .2, .1, .1]])
    listed = make_checklist(taxa, 'Laos', SPECIES)
    a = apply_checklist(probs, SPECIES, listed)
    b = apply_checklist(probs, SPECIES, ['naja-atra', 'BOIGA CYANEA', 'Daboia_russelii'])
    assert a.table.equals(b.table) and a.lacking == b.lacking == []


def test_nothing_is_replaced_in_silence():
    probs = np.array([[.6, .3, .1], [.2, .7, .1], [1, 0, 0]])
    for strength in (0, .5, .9, 1):
        table = apply_checklist(probs, SPECIES[:3], ['Naja atra', 'Vipera berus'], strength=strength).table
        assert table.unrestricted.tolist() == ['Naja naja', 'Naja atra', 'Naja naja']
        assert np.allclose(table.unrestricted_confidence, [.6, .7, 1]) and np.allclose(table.off_list, [.7, .3, 1])
        assert [n.startswith('Naja naja: not known from here') for n in table.note] == [True, False, True]
    assert apply_checklist(probs, SPECIES[:3], ['Naja atra', 'Vipera berus']).lacking == ['Vipera berus']


@many
@given(tables(), st.data())
def test_rows_of_a_restricted_table_sum_to_one(probs, data):
    species = names(probs)
    allowed = data.draw(st.lists(st.sampled_from(species), min_size=1))
    strength = data.draw(st.one_of(st.sampled_from([0, 1]), st.floats(0, 1)))
    found = apply_checklist(probs, species, allowed, strength=strength)
    assert np.allclose(found.probabilities.sum(1), 1) and (found.probabilities >= 0).all()
    on = np.isin(species, allowed)
    if strength == 1: assert not found.probabilities[probs[:, on].sum(1) > 0][:, ~on].any()
    if strength == 0: assert np.allclose(found.probabilities, probs)
    table, own = found.table, np.array(species)[probs.argmax(1)]
    changed = table.species != table.unrestricted
    assert (table.note[changed] == table.unrestricted[changed] + ': not known from here').all()
    assert ((table.note != '') == ~np.isin(own, allowed)).all()
    assert np.allclose(probs[np.arange(len(probs)), [species.index(s) for s in table.unrestricted]], probs.max(1))


@many
@given(tables())
def test_a_list_of_all_species_changes_nothing(probs):
    found = apply_checklist(probs, names(probs), names(probs), strength=1)
    assert np.allclose(found.probabilities, probs) and (found.table.note == '').all()


# ---- Ranks ----

@many
@given(tables(), st.floats(.01, 1))
def test_an_answer_is_probable_enough_or_unknown(taxa, probs, least):
    species = names(probs)
    answers = roll_up(probs, species, taxa, least=least)
    tree = find_taxa(species, taxa)
    for p, (rank, name, probability) in zip(probs, answers.itertuples(index=False)):
        sums = {r: pd.Series(p).groupby(v.to_numpy()).sum() for r, v in
                (('species', tree.index.to_series()), ('genus', tree.genus), ('family', tree.family))}
        if rank == 'unknown':
            assert name == 'unknown' and all(s.max() < least + 1e-9 for s in sums.values() if len(s))
            continue
        assert probability >= least and np.isclose(sums[rank][name], probability)
        finer = {'species': [], 'genus': ['species'], 'family': ['species', 'genus']}[rank]
        assert all(sums[r].max() < least + 1e-9 for r in finer)


def test_a_species_without_a_family_counts_in_none(taxa):
    answers = roll_up([[0, 0, .3, .3, .4], [0, .1, 0, 0, .9]], SPECIES, taxa, least=.6)
    assert answers['rank'].tolist() == ['family', 'species']
    assert answers.name.tolist() == ['Colubridae', 'Daboia russelii']
    alone = roll_up([[.5, .5]], ['Daboia russelii', 'Eristicophis macmahoni'], taxa)
    assert alone.iloc[0].tolist() == ['unknown', 'unknown', 0.]


# ---- Groups of photos ----

@many
@given(tables(), st.data(), st.sampled_from(['mean', 'vote', 'product']))
def test_joining_is_independent_of_order(probs, data, how):
    n = len(probs)
    group = st.sampled_from(['a', 'b', 7, 7., '7', None, float('nan'), ''])
    groups = data.draw(st.lists(group, min_size=n, max_size=n))
    order = data.draw(st.permutations(range(n)))
    one, two = join_photos(probs, groups, how), join_photos(probs[order], [groups[i] for i in order], how)
    assert np.allclose(one.probabilities[one.group][order], two.probabilities[two.group])
    assert np.allclose(one.spread().vote_share[order], two.spread().vote_share) or how != 'vote'
    assert np.allclose(one.probabilities.sum(1), 1) and one.photos.sum() == n
    assert one.photos.tolist() == np.bincount(one.group).tolist()
    none = [g is None or g != g or g == '' for g in groups]
    kinds = len({str(g)[0] for g, gone in zip(groups, none) if not gone})
    assert len(one.names) == kinds + sum(none) and sum(v is None for v in one.names) == sum(none)


@many
@given(tables())
def test_one_group_is_judged_as_views_of_one_photo_are(probs):
    views = probs[:, None]
    for how, rule in (('mean', vote_mean), ('vote', vote_majority)):
        ours, theirs = join_photos(probs, ['a']*len(probs), how), rule(views)
        assert np.allclose(ours.probabilities, theirs.probabilities)
        assert np.isclose(ours.confidence[0], theirs.confidence[0])     # equal also where two species are level
    apart = join_photos(probs, [None]*len(probs))
    assert np.allclose(apart.probabilities, probs) and apart.winner.tolist() == apart.probabilities.argmax(1).tolist()


@many
@given(tables())
def test_the_product_is_the_geometric_mean(probs):
    floored = np.maximum(probs, 1e-9)
    direct = floored.prod(0)**(1/len(probs))
    assert np.allclose(join_photos(probs, ['a']*len(probs), 'product').probabilities, direct/direct.sum())


def test_the_product_of_very_many_photos_stays_a_number():
    probs = np.tile([[1e-8, 1 - 2e-8, 1e-8]], (5000, 1))
    joined = join_photos(probs, np.zeros(5000), 'product')
    assert np.allclose(joined.probabilities, probs[:1]) and joined.photos.tolist() == [5000]


def test_no_photos_are_no_groups(taxa):
    none = np.empty((0, 5))
    joined = join_photos(none, [])
    assert joined.probabilities.shape == (0, 5) and not len(joined.names) and not len(joined.spread().winner)
    assert not len(roll_up(none, SPECIES, taxa)) and not len(decide_cost(none, np.eye(5))[0])
    assert not len(apply_checklist(none, SPECIES, SPECIES).table)


# ---- Costs ----

@many
@given(tables())
def test_with_all_errors_alike_the_most_probable_wins(probs):
    chosen, expected = decide_cost(probs, 1 - np.eye(probs.shape[1]))
    rows = np.arange(len(probs))
    assert np.allclose(probs[rows, chosen], probs.max(1), rtol=0, atol=1e-11)
    clear = np.sort(probs, axis=1)[:, -2:]
    clear = clear[:, -1] - clear[:, 0] > 1e-9 if probs.shape[1] > 1 else rows == rows
    assert (chosen == probs.argmax(1))[clear].all()
    assert np.allclose(expected, 1 - probs.max(1))


@many
@given(tables(), st.data())
def test_no_answer_costs_less_than_the_chosen(probs, data):
    s = probs.shape[1]
    venom = data.draw(st.lists(st.sampled_from([True, False, None]), min_size=s, max_size=s))
    cost = venom_cost(venom)
    chosen, expected = decide_cost(probs, cost)
    by_hand = [[sum(p[t]*cost[t, a] for t in range(s)) for a in range(s)] for p in probs]
    assert np.allclose(expected, np.min(by_hand, axis=1))
    assert np.allclose([row[k] for row, k in zip(by_hand, chosen)], expected)


@many
@given(st.lists(st.sampled_from([True, False, None]), min_size=1, max_size=6))
def test_an_unknown_venom_is_never_the_cheap_reading(venom):
    cost = venom_cost(venom)
    assert not cost.diagonal().any()
    for fill in (True, False):
        assert (cost >= venom_cost([fill if v is None else v for v in venom])).all()


def test_venom_in_all_its_types():
    wanted = venom_cost([True, False, None]).tolist()
    for given_ in ([1, 0, np.nan], pd.array([True, False, None], dtype='boolean'), [1., 0., pd.NA],
                   pd.Series([True, False, None], index=list('abc'))):
        assert venom_cost(given_).tolist() == wanted
    assert venom_cost(np.array([True, False]), weights=[[1, 1], [9, 1]]).tolist() == [[0, 9], [1, 0]]


# ---- Bad input ----

GOOD = np.full((2, 5), .2)
BAD = {'one row': (GOOD[0], r'shape \[photos, species\], found \[5\]'),
       'views': (GOOD[None], r'found \[1, 2, 5\]'), 'no species': (np.ones((2, 0)), r'found \[2, 0\]'),
       'ragged': ([[.5, .5], [1]], 'must be a table of numbers'), 'words': ([['a']*5], 'must be a table of numbers'),
       'NaN': (np.where(np.arange(10).reshape(2, 5) == 7, np.nan, GOOD), 'row 1 .*holds NaN or infinity'),
       'infinity': (np.where(np.arange(10).reshape(2, 5) == 1, np.inf, GOOD), 'row 0 .*holds NaN or infinity'),
       'negative': (GOOD + [[0]*5, [.3, -.3, 0, 0, 0]], 'row 1 .*holds negative'),
       'percent': (GOOD*100, 'row 0 .*does not sum to 1'), 'nothing': (GOOD*[[1], [0]], 'row 1 .*does not sum to 1')}


@pytest.mark.parametrize('case', BAD)
def test_rows_that_are_no_probabilities(taxa, case):
    probs, says = BAD[case]
    for judge in (lambda: apply_checklist(probs, SPECIES, SPECIES), lambda: roll_up(probs, SPECIES, taxa),
                  lambda: join_photos(probs, ['a', 'b']), lambda: decide_cost(probs, np.eye(5))):
        with pytest.raises(SnakeidError, match=says): judge()


def test_rounded_rows_are_put_right(taxa):
    rounded = np.array([[.333, .333, .333, 0, 0]], dtype=np.float32)
    assert np.isclose(apply_checklist(rounded, SPECIES, SPECIES).probabilities.sum(), 1)
    assert np.isclose(join_photos(rounded, [1]).probabilities.sum(), 1)
    assert not np.shares_memory(apply_checklist(GOOD, SPECIES, SPECIES).probabilities, GOOD) and (GOOD == .2).all()


@pytest.mark.parametrize('species,says', [(SPECIES[:4], '5 columns of probabilities for 4 species'),
                                          ([*SPECIES[:4], 'Naja naja'], 'the same species more than once'),
                                          ([*SPECIES[:4], 'naja_naja'], 'Naja naja, naja_naja name the same species')])
def test_species_that_do_not_fit(taxa, species, says):
    with pytest.raises(SnakeidError, match=says): apply_checklist(GOOD, species, SPECIES)
    with pytest.raises(SnakeidError, match=says): roll_up(GOOD, species, taxa)


@pytest.mark.parametrize('allowed,says', [([], 'is empty'), ((), 'is empty'), ('Vipera berus', 'none of the 1 species'),
                                          (['Vipera berus', 'Boa boa'], r'none of the 2 .*\(Vipera berus, Boa boa\)'),
                                          (pd.DataFrame(dict(possible=[False]*5), index=SPECIES), 'is empty'),
                                          (pd.DataFrame(dict(name=SPECIES)), "no column 'possible', found name")])
def test_checklists_that_list_nothing(allowed, says):
    with pytest.raises(SnakeidError, match=says): apply_checklist(GOOD, SPECIES, allowed)


def test_one_name_is_a_checklist_too():
    assert apply_checklist(GOOD, SPECIES, 'naja atra', strength=1).table.species.tolist() == ['Naja atra']*2


@pytest.mark.parametrize('call', [
    lambda: apply_checklist(GOOD, SPECIES, SPECIES, strength=-.1),
    lambda: apply_checklist(GOOD, SPECIES, SPECIES, strength=np.nan), lambda: join_photos(GOOD, ['a']),
    lambda: join_photos(GOOD, [['a'], ['b']]), lambda: join_photos(GOOD, ['a', 'b'], 'sum'),
    lambda: join_photos(GOOD, ['a', 'b'], floor=np.nan), lambda: decide_cost(GOOD, np.eye(4)),
    lambda: decide_cost(GOOD, np.ones((5, 6))), lambda: decide_cost(GOOD, np.full((5, 5), np.inf)),
    lambda: decide_cost(GOOD, [[1], [1, 2]]), lambda: venom_cost(['Venomous', 'no']), lambda: venom_cost([2, 0]),
    lambda: venom_cost([]), lambda: venom_cost([True], weights=((1, 2), (-5, 2))),
    lambda: venom_cost([True], weights=(1, 5))])
def test_arguments_that_mean_nothing(call):
    with pytest.raises(SnakeidError): call()


@pytest.mark.parametrize('least', [0, -1, 1.01, np.nan])
def test_a_probability_that_no_answer_can_have(taxa, least):
    with pytest.raises(SnakeidError, match='least must be over 0'): roll_up(GOOD, SPECIES, taxa, least=least)


@pytest.mark.parametrize('table', [None, [], pd.DataFrame(dict(species=SPECIES))])
def test_a_table_of_something_else(table):
    with pytest.raises(SnakeidError, match='read it by `read_taxa`'): find_taxa(SPECIES, table)
    with pytest.raises(SnakeidError, match='read it by `read_taxa`'): make_checklist(table, 'India')


def test_names_that_the_table_has_none_of(taxa):
    for species in (['cobra'], []):
        with pytest.raises(SnakeidError, match='none of the'): find_taxa(species, taxa)
    with pytest.raises(SnakeidError, match='the same species more than'): find_taxa(SPECIES, pd.concat([taxa, taxa]))
    with pytest.raises(SnakeidError, match='no country is named'): make_checklist(taxa, [])


def test_no_network_is_needed():
    code = "import sys, snakeid.predict.context; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, '-c', code], check=True)


# ---- A real table ----

def test_the_catalog_is_read_whole(catalog):
    assert len(catalog) == 1791 and catalog.index.is_unique
    assert catalog.venomous.sum() == 519 and not catalog.venomous.isna().any()
    assert catalog.genus.nunique() == 398 and catalog.family.nunique() == 25
    assert catalog.known_anywhere.all() and not any('unknown' in c or '' in c for c in catalog.countries)


def test_two_spellings_of_a_country_make_one_checklist(catalog, real_data):
    table = pd.read_csv(real_data/'tables'/'species_catalog.csv').set_index('scientific_name')
    cells = table.countries.str.split(' | ', regex=False)
    for usual, spellings, least in (('United States of America', {'United States', 'United States of America'}, 188),
                                    ('Myanmar', {'Myanmar', 'Burma', 'Myanmar (Burma)'}, 102)):
        wanted = {s for s, found in cells.items() if spellings & set(found)}
        for country in spellings | {usual}:
            listed = make_checklist(catalog, country)
            assert set(listed.index[listed.known]) == wanted and len(wanted) == least
            assert listed.possible[listed.known].all()


def test_a_challenge_meets_the_catalog(catalog, real_data):
    file = real_data/'tables'/'aicrowd_round3_85_species.csv'
    theirs = pd.read_csv(file)
    found = find_taxa(theirs.scientific_name, catalog)
    assert found.listed.all()                                # agkistrodon-contortrix is Agkistrodon contortrix
    assert (found.genus.str.lower() == theirs.scientific_name.str.split('-').str[0].to_numpy()).all()
    rng = make_rng(0, 'made probabilities')
    probs = rng.dirichlet(np.full(85, .05), size=200)
    answers = roll_up(probs, theirs.scientific_name, catalog)
    assert {'species', 'genus', 'family', 'unknown'} == set(answers['rank'])
    assert (answers.probability >= .7)[answers['rank'] != 'unknown'].all()
    listed = make_checklist(catalog, 'India', theirs.scientific_name)
    told = apply_checklist(probs, theirs.scientific_name, listed, strength=1)
    assert listed.possible[told.table.species].all() and (told.table.note != '').mean() > .5
    assert np.allclose(told.probabilities.sum(1), 1)
    chosen, _ = decide_cost(probs, venom_cost(found.venomous))
    assert found.venomous.to_numpy(bool)[chosen].mean() > found.venomous.to_numpy(bool)[probs.argmax(1)].mean()


def test_a_real_list_has_holes(catalog, real_data):
    file = real_data/'snakes14'/'train_labels.csv'
    if not file.is_file(): pytest.skip("no snakes14/train_labels.csv among the real data")
    listed = make_checklist(catalog, 'Philippines', pd.read_csv(file).scientific_name.unique())
    # All 14 were photographed there: why a checklist doubts by default, and does not forbid
    assert len(listed) == 14 and (~listed.possible).sum() == 5
    assert (listed.why == 'not in the table: counts as possible').sum() == 1


def test_labels_of_photos_make_a_table_of_species(catalog, real_data):
    file = real_data/'tables'/'snakeclef2021_5000.csv'
    if not file.is_file(): pytest.skip("no tables/snakeclef2021_5000.csv among the real data")
    table = read_taxa(file)
    labels = pd.read_csv(file)
    assert set(table.index) == set(labels.binomial) and table.venomous.isna().all()
    seen = labels[labels.country != 'unknown'].groupby('binomial').country.nunique()
    assert len(table.countries[seen.idxmax()]) == seen.max() > 5
