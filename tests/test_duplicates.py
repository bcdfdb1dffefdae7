"Duplicates: the search is exact, groups are whole, and what cannot be compared does no harm"
import hashlib
import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from snakeid.core import SnakeidError
from snakeid.data.duplicates import find_duplicates, flag_duplicates
from snakeid.data.likeness import compare_thumbs, find_blank, find_close, hash_photo
from snakeid.data.photo import open_photo

WORDS = st.integers(0, 2**64-1)


def scan(photos, **more):
    "A table of hashes of the named photos"
    rows = [dict(photo_id=n, digest=hashlib.blake2b(p.tobytes() + str(p.size).encode(), digest_size=16).hexdigest(),
                 reason='', width=p.width, height=p.height, **hash_photo(p)) for n, p in photos.items()]
    return pd.DataFrame(rows).assign(**more)


def crop(photo, left, top, right, bottom):
    "Cut off shares of the sides"
    w, h = photo.size
    return photo.crop((round(left*w), round(top*h), round((1-right)*w), round((1-bottom)*h)))


def recompress(photo, quality):
    "Save as JPEG and open again"
    file = io.BytesIO()
    photo.save(file, 'JPEG', quality=quality)
    return Image.open(file).convert('RGB')


def sets(groups): return {frozenset(g.photo_id) for _, g in groups.groupby('duplicate_group')}


def blank(level, noise, seed, strip=0):
    "A frame that shows nothing but noise, with a camera trap's strip of text if asked"
    rng = np.random.default_rng(seed)
    pixels = rng.normal(level, noise, (192, 256, 3))
    if strip:
        pixels[-strip:] = 0
        pixels[-strip+3:-3, 5:120] = np.where(rng.random((strip-6, 115, 1)) < .4, 255, 0)
        pixels[-strip+3:-3, 5:60] = np.where(np.random.default_rng(0).random((strip-6, 55, 1)) < .4, 255, 0)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope='module')
def photos():
    "Six drawn photos of 160 pixels, of two species"
    from snakeid.samples.collection import draw_photo
    from snakeid.samples.species import SPECIES
    return {f'p{i}': draw_photo(SPECIES[i % 2], 50+i, 160) for i in range(6)}


@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS, max_size=70), st.lists(WORDS, max_size=70), st.integers(0, 64), st.booleans(), st.integers(1, 3))
def test_search_is_exact(a, b, radius, ordered, workers):
    # neighbours of the first list, so that there is something to find at small radii
    b = b + [h ^ (1 << k) ^ (1 << 3*k) for k, h in enumerate(a[:20])]
    found = [(int(i), int(j)) for x, y in find_close(np.array(a, np.uint64), np.array(b, np.uint64), radius,
                                                     ordered=ordered, workers=workers) for i, j in zip(x, y)]
    wanted = {(i, j) for i, x in enumerate(a) for j, y in enumerate(b)
              if (x ^ y).bit_count() <= radius and (i < j or not ordered)}
    assert set(found) == wanted and len(found) == len(wanted)


def test_search_is_exact_over_many_blocks():
    a = np.random.default_rng(0).integers(0, 2**64, 20000, np.uint64)
    planted = [(3, 19999), (8191, 8192), (8190, 16384), (31, 32)]
    for i, j in planted: a[j] = a[i] ^ np.uint64(0b111)
    found = np.concatenate([np.stack(p, 1) for p in find_close(a, a, 3, ordered=True)])
    assert sorted(map(tuple, found.tolist())) == sorted(planted)


@pytest.mark.parametrize('change', [
    lambda p: p.resize((80, 80)), lambda p: p.resize((240, 240)), lambda p: recompress(p, 30),
    lambda p: crop(p, .05, .05, .05, .05), lambda p: crop(p, .05, 0, 0, 0), lambda p: crop(p, 0, 0, 0, .05),
    lambda p: p.point(lambda v: v*.8), lambda p: p.point(lambda v: v*1.2), lambda p: p.convert('L').convert('RGB')])
def test_copies_are_found_and_nothing_else(photos, change):
    copies = {f'{n} copy': change(p) for n, p in photos.items()}
    groups = find_duplicates(scan(photos | copies))
    assert sets(groups) == {frozenset((n, f'{n} copy')) for n in photos}
    assert set(groups.kind) == {'near'} and groups.distance.between(0, .06).all()


def test_mirrored_copies_are_found_and_named(photos):
    copies = {f'{n} copy': ImageOps.mirror(recompress(p, 70)) for n, p in photos.items()}
    groups = find_duplicates(scan(photos | copies))
    assert len(groups) == 12 and set(groups.kind) == {'mirrored'}


def test_groups_are_transitive(photos):
    whole = photos['p2']
    chain = scan(dict(left=crop(whole, .07, 0, 0, 0), right=crop(whole, 0, 0, .07, 0), mirrored=ImageOps.mirror(whole),
                      whole=whole))
    assert not len(find_duplicates(chain[chain.photo_id.isin(['left', 'right'])]))
    groups = find_duplicates(chain)
    assert sets(groups) == {frozenset(chain.photo_id)}
    # of several as large the first by name stays
    assert groups.duplicate_group.unique().tolist() == ['mirrored'] and groups.keep.sum() == 1


def test_rows_and_threads_in_any_order(photos):
    table = scan(photos | {f'{n} small': p.resize((90, 90)) for n, p in photos.items()}
                 | {f'{n} cut': crop(p, 0, .04, .03, 0) for n, p in photos.items()})
    first = find_duplicates(table)
    for seed in range(3):
        mixed = table.sample(frac=1, random_state=seed).set_axis(range(100, 100+len(table)))
        pd.testing.assert_frame_equal(find_duplicates(mixed, workers=1+seed), first)
    assert len(first) == 18


def test_the_largest_is_kept_and_comes_first(photos):
    sizes = dict(a=80, b=240, c=160)
    groups = find_duplicates(scan({n: photos['p0'].resize((s, s)) for n, s in sizes.items()}))
    assert groups.photo_id.tolist() == ['b', 'c', 'a'] and groups.keep.tolist() == [True, False, False]
    assert set(groups.duplicate_group) == {'b'}


@pytest.mark.parametrize('make', [
    lambda i: Image.new('RGB', (200, 150), (i, i, i)), lambda i: blank(5, 4, i), lambda i: blank(250, 4, i),
    lambda i: blank(6, 5, i, strip=24), lambda i: blank(120, 8, i, strip=24)])
def test_blank_photos_do_not_group(make):
    frames = {f'f{i}': make(i) for i in range(12)}
    assert find_blank([hash_photo(p)['thumb'] for p in frames.values()]).all()
    assert not len(find_duplicates(scan(frames)))


def test_vignettes_do_not_group():
    y, x = np.mgrid[:150, :200]/np.array([150, 200]).reshape(2, 1, 1) - .5
    rng = np.random.default_rng(0)
    def frame(): return 10 + 120*np.exp(-(x*x + y*y)/rng.uniform(.1, .2)) + rng.normal(0, 5, x.shape)
    frames = {f'f{i}': Image.fromarray(frame().clip(0, 255).astype(np.uint8)) for i in range(12)}
    assert not len(find_duplicates(scan(frames)))


def test_blank_photos_do_not_tie_others_together(photos):
    groups = find_duplicates(scan(photos | {f'{n} copy': recompress(p, 50) for n, p in photos.items()}
                                  | {f'f{i}': blank(5, 4, i) for i in range(20)}))
    assert len(sets(groups)) == 6 and len(groups) == 12


def test_identical_files_are_one_whatever_they_show(photos):
    black = blank(5, 4, 0)
    groups = find_duplicates(scan(dict(a=photos['p0'], b=photos['p0'], c=black, d=black, e=photos['p1'])))
    assert sets(groups) == {frozenset('ab'), frozenset('cd')}
    assert set(groups.kind) == {'exact'} and (groups.distance == 0).all()


def test_an_unknown_digest_is_no_match(photos):
    for unknown in (None, '', np.nan): assert not len(find_duplicates(scan(photos, digest=unknown)))


def test_unreadable_rows_are_left_out(photos):
    table = scan(photos | dict(copy=photos['p0']))
    broken = pd.DataFrame([dict(photo_id=f'broken {i}', digest='0', reason='truncated') for i in range(3)])
    groups = find_duplicates(pd.concat([broken, table], ignore_index=True))
    assert sets(groups) == {frozenset(('p0', 'copy'))}
    # a reason counts, even where hashes stand
    table.loc[table.photo_id == 'copy', 'reason'] = 'too small'
    assert not len(find_duplicates(table))
    assert not len(find_duplicates(pd.concat([broken, table[:0]], ignore_index=True)))


def test_a_table_from_a_csv_file_is_as_good(photos, tmp_path):
    table = scan(photos | dict(copy=photos['p0'], small=photos['p1'].resize((80, 80))))
    for broken in (False, True):
        if broken: table.loc[len(table)] = dict(photo_id='broken', reason='truncated')
        table.to_csv(tmp_path/'table.csv', index=False)
        pd.testing.assert_frame_equal(find_duplicates(pd.read_csv(tmp_path/'table.csv')), find_duplicates(table))


@pytest.mark.parametrize('n', [0, 1])
def test_none_or_one(photos, n):
    groups = find_duplicates(scan(photos)[:n])
    assert not len(groups) and groups.columns.tolist() == ['photo_id', 'duplicate_group', 'kind', 'distance', 'keep']
    manifest = pd.DataFrame(dict(path=[f'{i}.jpg' for i in photos][:n], species='adder'))
    flagged = flag_duplicates(manifest, groups, copies=True)
    assert len(flagged) == n and (flagged.flag == '').all() and flagged.duplicate_group.isna().all()


def test_tiny_photos_can_be_hashed():
    for size in ((1, 1), (1, 300), (3, 2), (4000, 16)): assert len(hash_photo(Image.new('RGB', size))['phash']) == 16


def test_frames_of_different_times_stay_apart(photos):
    p = photos['p2']
    table = scan(dict(a=p, b=recompress(p, 90), c=recompress(p, 60), d=recompress(p, 30)))
    assert len(sets(find_duplicates(table))) == 1
    table['taken_at'] = ['10:00', '11:00', '10:00', '']
    groups = find_duplicates(table, apart='taken_at')
    # d, of no known time, joins one of the two frames and does not tie them together
    assert sets(groups) in ({frozenset('acd')}, {frozenset('ac'), frozenset('bd')})
    table['taken_at'] = ['10:00', '11:00', '12:00', '13:00']
    assert not len(find_duplicates(table, apart='taken_at'))
    # identical files are one, whatever the clock said
    table.loc[table.photo_id == 'b', 'digest'] = table.digest[0]
    assert sets(find_duplicates(table, apart='taken_at')) == {frozenset('ab')}


def test_labels_that_differ_are_flagged_on_every_member(photos):
    p = photos['p3']
    groups = find_duplicates(scan(dict(a=p, b=p.resize((80, 80)), c=recompress(p, 50), d=photos['p4'])))
    manifest = pd.DataFrame(dict(photo_id=list('abcd'), path=[f'{n}.jpg' for n in 'abcd'],
                                 species=['adder', 'boa', None, 'boa']))
    flags = flag_duplicates(manifest, groups).flag.tolist()
    assert flags == ['duplicate with another label: b is boa', 'duplicate with another label: a is adder', '', '']
    flags = flag_duplicates(manifest, groups, copies=True).flag.tolist()
    assert flags[2] == 'near-duplicate: copy of a' and flags[3] == ''


def test_flagging_again_changes_nothing_and_flagged_photos_are_never_the_best(photos):
    p = photos['p3']
    groups = find_duplicates(scan(dict(a=p, b=p.resize((120, 120)), c=p.resize((80, 80)))))
    manifest = pd.DataFrame(dict(photo_id=list('abc'), path=[f'{n}.jpg' for n in 'abc'], flag=['no label', '', '']))
    flagged = flag_duplicates(manifest, groups, copies=True)
    assert flagged.flag.tolist() == ['no label', '', 'near-duplicate: copy of b']
    pd.testing.assert_frame_equal(flag_duplicates(flagged, groups, copies=True), flagged)
    assert manifest.columns.tolist() == ['photo_id', 'path', 'flag']          # the caller's table is as it was


@pytest.mark.parametrize('sequence, spared', [
    (['x', 'x', 'x'], True), (['x', 'y', None], False), (['', '', ''], False), ([None]*3, False)])
def test_only_a_known_and_shared_sequence_is_spared(photos, sequence, spared):
    p = photos['p5']
    groups = find_duplicates(scan(dict(a=p, b=recompress(p, 80), c=p.resize((80, 80)))))
    manifest = pd.DataFrame(dict(photo_id=list('abc'), path=[f'{n}.jpg' for n in 'abc'],
                                 species=['adder', 'empty', 'adder'], sequence=sequence))
    flagged = flag_duplicates(manifest, groups, copies=True, spare='sequence')
    assert (flagged.flag == '').all() == spared
    assert flagged.duplicate_group.notna().all()


def test_identical_files_of_one_sequence_are_flagged(photos):
    groups = find_duplicates(scan(dict(a=photos['p0'], b=photos['p0'])))
    manifest = pd.DataFrame(dict(photo_id=list('ab'), path=['a.jpg', 'b.jpg'], sequence='x'))
    flagged = flag_duplicates(manifest, groups, copies=True, spare='sequence')
    assert flagged.flag.tolist() == ['', 'exact duplicate: copy of a']


def test_bad_input_is_told_in_a_sentence(photos):
    table = scan(photos)
    for column in ('photo_id', 'digest', 'width', 'height', 'phash', 'phash_inner', 'phash_mirror', 'thumb'):
        with pytest.raises(SnakeidError, match=f"no column '{column}'"): find_duplicates(table.drop(columns=column))
    with pytest.raises(SnakeidError, match='p0.* stand more than once'): find_duplicates(pd.concat([table, table]))
    for radius in (-1, 65):
        with pytest.raises(SnakeidError, match='0 to 64 bits'): find_duplicates(table, radius=radius)
    for similar in (0, 1.01):
        with pytest.raises(SnakeidError, match='at most 1'): find_duplicates(table, similar=similar)
    with pytest.raises(SnakeidError, match='as many of both'): compare_thumbs(list(table.thumb), [table.thumb[0]])


def test_progress_ends_at_all(photos):
    seen = []
    find_duplicates(scan(photos), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == len(seen)


def test_many_copies_of_one_photo_do_not_multiply_the_work(photos, monkeypatch):
    "300 copies have 44,850 pairs; joined ones are not compared again"
    import snakeid.data.duplicates as module
    compared = []
    def count(thumbs, others, **options):
        compared.append(len(thumbs))
        return compare_thumbs(thumbs, others, **options)
    monkeypatch.setattr(module, 'compare_thumbs', count)
    row = scan(dict(a=photos['p0'])).iloc[0]
    table = pd.DataFrame([dict(row, photo_id=f'{i:03d}', digest=str(i)) for i in range(300)])
    assert len(find_duplicates(table)) == 300
    assert sum(compared) < 10_000


def test_real_photos(real_data):
    "Real photos from the web: copies that were looked at by eye; see benchmarks/duplicates.py for the figures"
    folder = real_data/'snakes14'/'images'
    if not folder.is_dir(): pytest.skip("no snakes14 among the real photos")
    paths = sorted(folder.iterdir())
    table = pd.DataFrame([dict(photo_id=p.stem, digest=p.stem, width=224, height=224, **hash_photo(open_photo(p, 256)))
                          for p in paths])
    groups = find_duplicates(table)
    # seven pairs of copies, and one of two frames of a steady hand
    assert len(groups) == 16 and groups.groupby('duplicate_group').size().eq(2).all()
    assert (groups.distance < .01).sum() == 14
    assert not find_blank(table.thumb.tolist()).any()
