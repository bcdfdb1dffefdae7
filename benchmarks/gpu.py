"""Training on a GPU: how far reading photos is from being the brake. One command, under ten minutes on one GPU.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --dry          # the same steps, tiny and on the CPU: does the script run?

It draws photos as JPEG files of about 500×400 pixels (24 different ones, under 20,000 names) and measures the floors:
a copy inside the GPU's memory, a large bf16 product. Then photos a second: ResNet-50 at 224 pixels with mixed
precision on data that lies on the GPU already, reading alone, and the whole road through `make_dataloaders` and a
`Learner`. `peer` of the whole road is the step on data that is there. Predictions on the GPU are checked against the
CPU's first. Random data, warmed up, synchronised, medians of five.
"""
import argparse
import os
import platform
import statistics
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from common import save_table
from PIL import Image

from snakeid.core import make_rng
from snakeid.data.balance import weigh_photos
from snakeid.data.loaders import make_dataloaders
from snakeid.train.learner import make_learner
from snakeid.train.recipes import Recipe


def timed(work, repeats:int, sync) -> float:
    "Median seconds of one call, after one to warm up"
    work(), sync()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work(), sync()
        seconds.append(time.perf_counter()-start)
    return statistics.median(seconds)


def write_photos(folder:Path, different:int, names:int, size:tuple[int,int]=(500, 400)) -> pd.DataFrame:
    "A manifest of `names` links to photos of this width and height, with the detail of real ones"
    rng = make_rng(0, 'photos')
    for i in range(different):
        coarse = Image.fromarray(rng.integers(0, 255, (40, 50, 3)).astype(np.uint8)).resize(size, Image.BICUBIC)
        noise = rng.normal(0, 12, (*size[::-1], 3))
        pixels = (np.asarray(coarse, float) + noise).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder/f'{i}.jpg', quality=90)
    paths = []
    for i in range(names):
        paths.append(folder/'names'/f'{i}.jpg')
        if i == 0: paths[0].parent.mkdir()
        os.link(folder/f'{i % different}.jpg', paths[-1])
    species = [f'species {i % 85:02}' for i in range(names)]
    return pd.DataFrame(dict(path=[str(p) for p in paths], species=species, split='train'))


def begin(text:str) -> tuple:
    "Read the arguments of a script with this help; --dry or not, device, and what waits for it"
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--dry', action='store_true')
    args = parser.parse_args()
    if not args.dry and not torch.cuda.is_available():
        parser.error('no CUDA device here; --dry tries the script without one')
    device = torch.device('cpu' if args.dry else 'cuda')
    return args.dry, device, torch.cuda.synchronize if device.type == 'cuda' else lambda: None


def finish(rows:list, name:str, dry:bool):
    "Print what a dry run found, or write the table with GPU and versions"
    if dry:
        print(pd.DataFrame(rows, columns=['case', 'metric', 'ours', 'peer', 'unit']).to_string(index=False))
        return
    ask = ['nvidia-smi', '--query-gpu=name,driver_version', '--format=csv,noheader']
    gpu = subprocess.run(ask, capture_output=True, text=True).stdout.strip()
    save_table(rows, name,
               machine=f'{gpu}, {os.cpu_count()} cores, torch {torch.__version__}, Python {platform.python_version()}')


def main():
    dry, device, sync = begin(__doc__)
    plan = ('small_cnn', 56, 8, 64, 2) if dry else ('resnet50', 224, 256, 20_480, 5)
    arch, size, bs, names, repeats = plan
    rows = []

    big, side = torch.rand(2**20 if dry else 2**30, device=device), 256 if dry else 8192
    there = torch.empty_like(big)
    seconds = timed(partial(there.copy_, big), repeats, sync)
    rows.append(('copy inside memory', 'speed', 2*big.nbytes/1e9/seconds, None, 'GB/s'))
    a = torch.rand(side, side, device=device, dtype=torch.bfloat16)
    seconds = timed(partial(torch.matmul, a, a), repeats, sync)
    rows.append((f'bf16 product, {side}×{side}', 'speed', 2*side**3/1e12/seconds, None, 'TFLOP/s'))
    del big, there

    with tempfile.TemporaryDirectory() as tmp:
        manifest = weigh_photos(write_photos(Path(tmp), 24, names), 1.)
        recipe = Recipe(size=size, train_size=size, bs=bs, beta=1., loss='cross_entropy', warm_head=False)
        dls = make_dataloaders(manifest, **recipe.loading, need_valid=False, device=device)
        learn = make_learner(dls, arch, 'none', recipe)
        learn.unfreeze()
        x = torch.rand(bs, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
        y = torch.randint(0, len(dls.vocab), (bs,), device=device)

        learn.model.to(device, memory_format=torch.channels_last).eval()
        with torch.inference_mode(): here = learn.model(x[:8]).float().cpu()
        with torch.inference_mode(): alone = learn.model.cpu()(x[:8].cpu())
        apart = (here.softmax(1) - alone.softmax(1)).abs().max().item()
        assert apart < 1e-3, f'GPU and CPU disagree by {apart}'
        rows.append((f'{arch}, GPU against CPU', 'largest difference of a probability', apart, None, '0 to 1'))

        learn.model.to(device, memory_format=torch.channels_last).train()
        opt = torch.optim.Adam(learn.model.parameters(), 1e-4)
        scaler = torch.amp.GradScaler(device.type, enabled=device.type == 'cuda')

        def step():
            "A training step on data that is there"
            opt.zero_grad()
            with torch.autocast(device.type, dtype=torch.float16, enabled=device.type == 'cuda'):
                loss = learn.loss_func(learn.model(x), y)
            scaler.scale(loss).backward()
            scaler.step(opt)
            scaler.update()

        many, what = 2 if dry else 20, f'{arch}, {size} pixels, batches of {bs}'

        def steps():
            "Many of them"
            for _ in range(many): step()
        bare = many*bs/timed(steps, repeats, sync)
        rows.append((f'{what}, data on the GPU', 'training step', bare, None, 'photos/s'))
        again = many*bs/timed(steps, repeats, sync)
        rows.append((f'{arch}, the same once more', 'training step', again, bare, 'photos/s'))

        def read():
            "An epoch of batches and nothing else"
            for _ in dls.train: pass
        alone = names/timed(read, 1, sync)
        rows.append((f'reading alone, {dls.train.fake_l.num_workers} processes', 'batches on the device', alone, bare,
                     'photos/s'))

        def epoch():
            "An epoch as `fit_species` runs it"
            with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-4)
        road = names/timed(epoch, 2 if dry else 3, sync)
        rows.append((f'{what}, from files', 'training', road, bare, 'photos/s'))
        rows.append((f'{arch}, an epoch of 100,000 photos', 'time', 100_000/road/60, None, 'minutes'))
    finish(rows, 'gpu', dry)


if __name__ == '__main__': main()
