"""Planted copies of real photos, found by `find_duplicates`, beside plain perceptual hashes.

    python benchmarks/duplicates.py --labels train_labels.csv --images images [--pairs pairs.csv] [--sheet page.png]
    python benchmarks/duplicates.py --labels train_labels.csv --images images --choose
    python benchmarks/duplicates.py --scale 10000 100000

The photos fall into two halves by a hash of their name. `--choose` prints, for one half, what several thresholds find;
the report is of the other half. Each kind of copy is planted by itself, one of every photo, so that a copy has to be
found by its original. A group is false when it joins photos that are no copies of each other; `--pairs` names pairs of
the originals that somebody has looked at and found to be copies (columns a and b, photo ids), `--sheet` draws all
groups of originals to look at. `peer` is `imagehash.phash` of the whole photo within 4, 8 and 10 bits, all joined.
Drawn collections follow the report. `--scale` times the search alone, on random hashes, in a process of its own.
"""
import argparse
import hashlib
import io
import os
import resource
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import imagehash
import numpy as np
import pandas as pd
from common import save_table
from PIL import Image, ImageOps
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from snakeid.data.duplicates import find_duplicates
from snakeid.data.likeness import find_close, hash_photo
from snakeid.data.tables import read_aicrowd
from snakeid.data.photo import open_photo
from snakeid.samples.collection import draw_collection, draw_page

SHARES = dict(left=(.05, 0, 0, 0), top=(0, .05, 0, 0), right=(0, 0, .05, 0), bottom=(0, 0, 0, .05), all=(.05,)*4)
ASKED = ('resized', 'recompressed', 'cropped') # The kinds of which 95% are to be found


def save(photo, quality):
    "The bytes of a JPEG"
    file = io.BytesIO()
    photo.save(file, 'JPEG', quality=quality)
    return file.getvalue()


def plant(photo, seed):
    "What people do to a photo: {kind: bytes}"
    rng, (w, h) = np.random.default_rng(seed), photo.size
    out = {f'resized x{s}': save(photo.resize((round(s*w), round(s*h)), Image.BICUBIC), 88) for s in (.5, .75, 1.5)}
    out['recompressed 30 to 60'] = save(photo, int(rng.integers(30, 61)))
    for side, (l, t, r, b) in SHARES.items():
        box = (round(l*w), round(t*h), round((1-r)*w), round((1-b)*h))
        out[f"cropped 5% {side}"] = save(photo.crop(box), 88)
    out['mirrored'] = save(ImageOps.mirror(photo), 88)
    for f in (.8, 1.2): out[f'brightness x{f}'] = save(photo.point([min(255, round(v*f)) for v in range(256)]*3), 88)
    return out


def scan(photo_id, path):
    "One row of the table of hashes, and the hash of the peer"
    photo, data = open_photo(path, 256), Path(path).read_bytes()
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    return dict(photo_id=photo_id, digest=digest, reason='', width=photo.width, height=photo.height,
                **hash_photo(photo), peer=int(str(imagehash.phash(photo)), 16))


def scan_all(named):
    "The table of hashes of {photo_id: path}"
    with ThreadPoolExecutor(os.cpu_count()) as pool: return pd.DataFrame(list(pool.map(scan, named, named.values())))


def group_peer(table, radius):
    "Groups of plain hashes: connected components of all pairs within `radius`"
    hashes = table.peer.to_numpy(np.uint64)
    pairs = np.concatenate([np.stack(p) for p in find_close(hashes, hashes, radius, ordered=True)], 1)
    label = connected_components(coo_array((np.ones(pairs.shape[1]), pairs), (len(table),)*2), directed=False)[1]
    found = pd.DataFrame(dict(photo_id=table.photo_id, duplicate_group=label))
    return found[found.duplicate_group.duplicated(keep=False)]


def judge(groups, root, copies):
    "Share of the `copies` (pairs: copy, original) that share a group; groups; false groups"
    group = groups.set_index('photo_id').duplicate_group
    found = [c in group and o in group and group[c] == group[o] for c, o in copies]
    roots = groups.assign(root=groups.photo_id.map(root)).groupby('duplicate_group').root.nunique()
    return (np.mean(found) if len(copies) else np.nan), len(roots), int((roots > 1).sum())


class Roots(dict):
    "A photo's original: itself, where nothing else is known"
    def __missing__(self, key): return key


def half_of(name): return hashlib.blake2b(str(name).encode(), digest_size=1).digest()[0] % 2


def plant_half(manifest, half, folder, pairs):
    "Tables of the originals of a half and of each kind of copy; every photo's original"
    chosen = manifest[[half_of(p) == half for p in manifest.photo_id]]
    root = Roots()
    for a, b in pairs: root[b] = root[a]
    named = {}
    for photo_id, path in zip(chosen.photo_id, chosen.path):
        seed = int.from_bytes(hashlib.blake2b(photo_id.encode(), digest_size=4).digest())
        for kind, data in plant(open_photo(path), seed).items():
            copy = f'{photo_id} {kind}'
            (folder/f'{copy}.jpg').write_bytes(data)
            named.setdefault(kind, {})[copy] = folder/f'{copy}.jpg'
            root[copy] = root[photo_id]
    return scan_all(dict(zip(chosen.photo_id, chosen.path))), {k: scan_all(n) for k, n in named.items()}, root


def compare(originals, kinds, root, find):
    "For each kind of copy: share found, groups, false groups"
    found = {}
    for kind, copies in kinds.items():
        groups = find(pd.concat([originals, copies], ignore_index=True))
        found[kind] = judge(groups, root, [(c, c.split(' ')[0]) for c in copies.photo_id])
    return found


def total(found):
    "Groups and false groups of all kinds, and the least share found of the kinds that are asked for"
    return (sum(f[1] for f in found.values()), sum(f[2] for f in found.values()),
            min(f[0] for k, f in found.items() if k.startswith(ASKED)))


def report_photos(args, rows):
    "The report on real photos"
    manifest = read_aicrowd(args.labels, args.images)
    manifest = manifest[manifest.flag == '']
    pairs = pd.read_csv(args.pairs, dtype=str)[['a', 'b']].to_numpy().tolist() if args.pairs else []
    with tempfile.TemporaryDirectory() as folder:
        originals, kinds, root = plant_half(manifest, int(not args.choose), Path(folder), pairs)
        if args.choose:
            for radius in (10, 12, 14):
                for similar in (.88, .91, .94, .97):
                    find = partial(find_duplicates, radius=radius, similar=similar)
                    found = compare(originals, kinds, root, find)
                    groups, false, least = total(found)
                    print(f"radius {radius} similar {similar}: least found {least:.4f}, "
                          f"mirrored {found['mirrored'][0]:.4f}, false groups {false/groups:.4f}", flush=True)
            return
        ours = compare(originals, kinds, root, find_duplicates)
        for radius in (4, 8, 10):
            peer = compare(originals, kinds, root, partial(group_peer, radius=radius))
            for kind in kinds:
                rows.append(dict(case=f'{kind}, peer within {radius} bits', metric='copies found', ours=ours[kind][0],
                                 peer=peer[kind][0], unit='share'))
            false = [total(f)[1]/total(f)[0] for f in (ours, peer)]
            rows.append(dict(case=f'all kinds, peer within {radius} bits', metric='false groups', ours=false[0],
                             peer=false[1], unit='share'))
        start = time.process_time()
        table = scan_all(dict(zip(manifest.photo_id, manifest.path)))
        middle = time.process_time()
        every = find_duplicates(table)
        spent = {'open and hash a photo': middle-start, 'find groups, a photo': time.process_time()-middle}
        for metric, seconds in spent.items():
            rows.append(dict(case=f'{len(manifest)} originals', metric=metric, ours=1000*seconds/len(manifest),
                             unit='ms of one core'))
        found, groups, false = judge(every, root, pairs)
        rows.append(dict(case=f'{len(manifest)} originals', metric='groups', ours=groups, unit='groups'))
        if pairs:
            rows.append(dict(case=f'{len(manifest)} originals', metric='false groups', ours=false, unit='groups'))
            rows.append(dict(case=f'{len(pairs)} pairs of originals, known by eye', metric='pairs found', ours=found,
                             unit='share'))
        if args.sheet:
            paths = dict(zip(manifest.photo_id, manifest.path))
            members = every.groupby('duplicate_group').photo_id.agg(list)
            draw_page([paths.get(p, '') for m in members for p in [*m, *['']*4][:4]], 8, 224).save(args.sheet)
            print(every.to_string())


def report_drawn(rows):
    "The report on drawn collections, where the truth is known"
    cases = {'drawn photos': (dict(n=1000, seed=5, duplicates=.05), None),
             'drawn camera traps': (dict(n=600, seed=3, species=6, locations=6, camera_trap=True, duplicates=.05),
                                    None)}
    cases['drawn camera traps, times known'] = (cases['drawn camera traps'][0], 'taken_at')
    for name, (request, apart) in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            truth = draw_collection(folder, **request)
            table = scan_all(dict(zip(truth.photo_id, truth.path))).merge(truth[['photo_id', 'taken_at']])
        copies = truth[truth.truth_of != '']
        root = Roots(zip(copies.photo_id, copies.truth_of))
        pairs = list(root.items())
        ours, peer = (judge(g, root, pairs) for g in (find_duplicates(table, apart=apart), group_peer(table, 8)))
        for i, metric in ((0, 'copies found'), (2, 'false groups')):
            a, b = ((f[i], f[i]/max(f[1], 1))[i > 0] for f in (ours, peer))
            rows.append(dict(case=f'{name}, peer within 8 bits', metric=metric, ours=a, peer=b, unit='share'))


def report_scale(sizes, rows):
    "Seconds and memory of the search alone: all pairs of n photos, three hashes each"
    few = np.random.default_rng(0).integers(0, 2**64, 300, np.uint64).tolist()
    few = [imagehash.hex_to_hash(f'{h:016x}') for h in few]
    start = time.perf_counter()
    for i, a in enumerate(few):
        for b in few[:i]: a - b
    one = (time.perf_counter() - start)/(300*299/2)
    for n in sizes:
        a, b, c = np.random.default_rng(n).integers(0, 2**64, (3, n), np.uint64)
        before, pairs = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0
        start, cpu = time.perf_counter(), time.process_time()
        for others, ordered in ((a, True), (b, False), (c, True)):
            pairs += sum(len(i) for i, _ in find_close(a, others, 12, ordered=ordered))
        seconds = time.perf_counter() - start
        case = f'{n} random hashes within 12 bits, three searches'
        rows.append(dict(case=case, metric='time', ours=seconds, peer=one*2*n*n, unit='s, peer extrapolated'))
        rows.append(dict(case=case, metric='time of one core', ours=time.process_time() - cpu, unit='s'))
        rows.append(dict(case=case, metric='memory above the hashes', unit='MB',
                         ours=(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)/1024))
        print(f'{n}: {seconds:.1f} s, {pairs} pairs', flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--labels')
    parser.add_argument('--images')
    parser.add_argument('--pairs')
    parser.add_argument('--sheet')
    parser.add_argument('--choose', action='store_true')
    parser.add_argument('--scale', type=int, nargs='*', default=[])
    args = parser.parse_args()
    rows = []
    if args.images: report_photos(args, rows)
    if args.choose: return
    if args.images: report_drawn(rows)
    report_scale(args.scale, rows)
    if not rows: parser.error('give --labels and --images, or --scale')
    save_table(rows, 'duplicates', machine=f'{os.cpu_count()} cores, numpy {np.__version__}',
               stays=lambda old: old.case != '')


if __name__ == '__main__': main()
