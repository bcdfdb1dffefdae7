"""62,894 photos from JPEG files to a table of species, on a GPU: where the time goes. One command, under ten minutes.

    python benchmarks/gpu_predict.py
    python benchmarks/gpu_predict.py --dry          # the same steps, tiny and on the CPU: does the script run?

The camera-trap project this library learned from took 13 hours for as many photos with a majority vote over four
views. Here: ResNet-50 (random weights, which cost the same time), 216 species, four views at 224 pixels, majority
vote, by `stream_predictions` to Parquet, once from photos of 500×400 pixels and, for a share of them, of 2048×1536.
Photos are made with the detail of real ones (24 different files of each size, under as many names as there are photos).

The floors come first: a copy inside the GPU's memory, one from the CPU's pinned memory, the network on pixels that lie
on the GPU already, decoding and cutting views alone by 1 to all cores, decoding by `torchvision.io.decode_jpeg` on the
GPU where it is built in. `peer` of the whole road is the slower of network and decoding, which a perfect overlap would
reach. The last rows share the main thread's time out: waiting for decoded photos, in the network (with its copies), and
the rest (votes, table, file). Scores on the GPU are checked against the CPU's before anything is timed.
"""
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from gpu import begin, finish, timed, write_photos
from torch import nn

from snakeid.core import make_rng
from snakeid.models.bundle import Bundle
from snakeid.models.factory import make_body, make_head
from snakeid.predict import batch
from snakeid.predict.backends import make_backend
from snakeid.predict.stream import read_predictions, stream_predictions
from snakeid.predict.views import read_views

SPECIES, VIEWS = 216, 4 # Outputs, looks at each photo
TOLERANCE = .02 # Largest difference of scores in half precision, as a share of the largest score


class Watch:
    "Seconds that the main thread spends in a function, or waiting for a generator"
    def __init__(self): self.seconds = 0.

    def call(self, work):
        "The same function, watched"
        def watched(*args, **kwargs):
            "Call and count"
            start = time.perf_counter()
            try: return work(*args, **kwargs)
            finally: self.seconds += time.perf_counter() - start
        return watched

    def wait(self, make):
        "The same generator, watched"
        def watched(*args, **kwargs):
            "Pass on and count"
            things = iter(make(*args, **kwargs))
            step = self.call(partial(next, things, self))
            while (thing := step()) is not self: yield thing
        return watched


def floors(bundle:Bundle, paths:list[str], device:torch.device, repeats:int, sync, dry:bool) -> tuple:
    "Rows, then photos a second of the network and of decoding alone"
    rows, bs = [], 8 if dry else 256
    big = torch.rand(2**20 if dry else 2**30, device=device)
    there = torch.empty_like(big)
    seconds = timed(partial(there.copy_, big), repeats, sync)
    rows.append(('copy inside memory', 'speed', 2*big.nbytes/1e9/seconds, None, 'GB/s'))
    del big, there
    held = torch.randint(0, 256, (bs, bundle.size, bundle.size, 3), dtype=torch.uint8)
    if device.type == 'cuda': held = held.pin_memory()
    there = torch.empty_like(held, device=device)
    seconds = timed(partial(there.copy_, held, non_blocking=True), repeats, sync)
    rows.append((f'copy of {bs} pictures to the device', 'speed', held.nbytes/1e9/seconds, None, 'GB/s'))
    model = bundle.model.to(device, memory_format=torch.channels_last).eval()
    x = torch.rand(bs, 3, bundle.size, bundle.size, device=device).contiguous(memory_format=torch.channels_last)

    def many():
        "The network alone"
        with torch.inference_mode(), torch.autocast(device.type, torch.float16, enabled=device.type == 'cuda'):
            for _ in range(1 if dry else 20): model(x)
    network = (1 if dry else 20)*bs/VIEWS/timed(many, repeats, sync)
    rows.append((f'{bundle.spec.arch}, {VIEWS} views, pixels on the device', 'speed', network, None, 'photos/s'))
    decode = 0.
    for workers in sorted({1, 2, 4, 8, os.cpu_count()} & set(range(1, os.cpu_count() + 1))):
        some = paths[:64 if dry else 1024*min(workers, 4)]
        def read(some=some, workers=workers):
            "All views of some photos, by threads"
            for _ in read_views(some, 'four', bundle.size, workers, 128): pass
        decode = len(some)/timed(read, 1, lambda: None)
        rows.append((f'decode and cut {VIEWS} views, {workers} threads', 'speed', decode, None, 'photos/s'))
    if device.type == 'cuda':
        from torchvision.io import decode_jpeg, read_file
        files = [read_file(p) for p in paths[:512]]
        try: seconds = timed(partial(decode_jpeg, files, device=device), repeats, sync)
        except RuntimeError as e: print(f'no decoding on the GPU: {e}')
        else: rows.append(('decode_jpeg on the GPU', 'speed', len(files)/seconds, None, 'photos/s'))
    return rows, network, decode


def main():
    dry, device, sync = begin(__doc__)
    arch, size, bs, n, repeats = ('small_cnn', 56, 8, 96, 2) if dry else ('resnet50', 224, 64, 62_894, 5)
    torch.manual_seed(0)
    body, spec = make_body(arch, 'none')
    model = nn.Sequential(body, make_head(spec.features, SPECIES)).eval()
    bundle = Bundle(model, [f'species {i}' for i in range(SPECIES)], spec, size)
    rows = []

    pixels = make_rng(0, 'pixels').integers(0, 256, (16, size, size, 3)).astype(np.uint8)
    exact = make_backend(bundle, 'torch', device='cpu')(pixels)
    backend = make_backend(bundle, 'torch', device=device)
    apart = np.abs(backend(pixels) - exact).max()/np.abs(exact).max()
    assert apart < TOLERANCE, f'GPU and CPU disagree by {apart:.3f} of the largest score'
    rows.append((f'{arch}, half precision against the CPU', 'largest difference of scores', apart, None, 'share'))

    with tempfile.TemporaryDirectory() as tmp:
        for (width, height), share in (((500, 400), 1), ((2048, 1536), 8)):
            folder, many = Path(tmp)/f'{width}', n//share
            folder.mkdir()
            paths = write_photos(folder, 24, many, (width, height)).path.tolist()
            found, network, decode = floors(bundle, paths, device, repeats, sync, dry)
            rows += [(f'{width}×{height}: {case}' if 'decode' in case else case, *rest) for case, *rest in found
                     if share == 1 or 'decode' in case]
            options = dict(views='four', aggregate='majority', backend=backend, device=device, bs=bs)
            stream_predictions(bundle, paths[:2*bs], folder/'warm.parquet', **options)
            waits, runs = Watch(), Watch()
            with patch.object(batch, 'read_views', waits.wait(batch.read_views)), \
                 patch.object(batch, 'predict_views', runs.call(batch.predict_views)):
                start = time.perf_counter()
                out = stream_predictions(bundle, paths, folder/'species.parquet', part=min(many, 8192), **options)
                seconds = time.perf_counter() - start
            table = read_predictions(out)
            assert len(table) == many and (table.flag == '').all() and table.species.notna().all()
            case = f'{width}×{height}: {many} files to Parquet, {VIEWS} views, majority'
            rows += [(case, 'time', seconds, None, 's'),
                     (case, 'speed', many/seconds, min(network, decode), 'photos/s')]
            shares = {'waits for photos': waits.seconds/seconds, 'copies and network': runs.seconds/seconds}
            shares['votes, table, file'] = 1 - sum(shares.values())
            rows += [(case, f"main thread's time: {what}", value, None, 'share') for what, value in shares.items()]
    finish(rows, 'gpu_predict', dry)


if __name__ == '__main__': main()
