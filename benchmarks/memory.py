"""What it is worth to let the process keep the memory it frees: `snakeid.core.keep_freed_memory`.

    python benchmarks/memory.py

Forward passes and training steps of the default network on 32 random pictures of 224 pixels, each way in a process of
its own, in turn, medians of three. `peer` is PyTorch as it is.
"""
import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time


def measure(keep:bool) -> dict[str, float]:
    "Photos a second and the largest size of this process"
    import torch

    from snakeid.core import keep_freed_memory
    from snakeid.models.factory import make_body
    torch.set_num_threads(os.cpu_count() or 1)
    if keep: keep_freed_memory()
    body = make_body()[0].eval().to(memory_format=torch.channels_last)
    x = torch.rand(32, 3, 224, 224).contiguous(memory_format=torch.channels_last)

    def forward():
        "As prediction does it"
        with torch.inference_mode(): body(x)

    def step():
        "As training does it"
        body(x).sum().backward()

    found = {}
    for name, work in (('forward', forward), ('training step', step)):
        work()
        start = time.perf_counter()
        for _ in range(4): work()
        found[name] = 4*len(x)/(time.perf_counter()-start)
    return found | dict(memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e6)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--one', choices=('keep', 'plain'), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one == 'keep')))
        return
    from common import save_table
    found = {'keep': [], 'plain': []}
    for _ in range(3):
        for way, runs in found.items():
            done = subprocess.run([sys.executable, __file__, '--one', way], check=True, capture_output=True, text=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
    mid = {way: {k: statistics.median(r[k] for r in runs) for k in runs[0]} for way, runs in found.items()}
    units = {'forward': 'photos/s', 'training step': 'photos/s', 'memory': 'GB'}
    metrics = {'memory': 'largest size of the process'}
    save_table([(f'tf_efficientnet_lite0, {k}', metrics.get(k, 'speed'), mid['keep'][k], mid['plain'][k], unit)
                for k, unit in units.items()], 'memory')


if __name__ == '__main__': main()
