"What the benchmarks share: how a table is made, printed and kept"
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd

COLUMNS = ('case', 'metric', 'ours', 'peer', 'ratio', 'unit', 'machine', 'commit')


def save_table(
    rows:list[tuple|dict], # (case, metric, ours, peer, unit), or these by name; no peer is NaN, None or left out
    name:str, # Of the file in benchmarks/results, without suffix
    *,
    machine:str|None=None, # What tells its speed, behind the processor's kind; threads and torch unless given
    stays:Callable|None=None, # stays(old): which rows of the file stay, bool [n], besides those measured anew; none
    shows:Callable|None=None, # shows(table): which rows are printed, bool [n]; all
)->pd.DataFrame: # Columns case, metric, ours, peer, ratio, unit, machine, commit: all rows of the file
    "Write a benchmark's table and print what is new in it"
    table = pd.DataFrame(rows, columns=['case', 'metric', 'ours', 'peer', 'unit']).astype(dict(ours=float, peer=float))
    table.insert(4, 'ratio', table.ours/table.peer.where(table.peer != 0))
    if machine is None:
        import torch                                     # late: not every benchmark should hold it in memory
        machine = f'{torch.get_num_threads()} threads, torch {torch.__version__}'
    table['machine'] = f'{platform.machine()}, {machine}'
    command = ['git', 'rev-parse', '--short', 'HEAD']
    commit = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    table['commit'] = commit.stdout.strip()
    shown = table[shows(table)] if shows else table
    print(shown[list(COLUMNS[:6])].round(4).to_string(index=False, na_rep='-'))
    out = Path(__file__).parent/'results'/f'{name}.csv'
    if stays and out.exists():
        old = pd.read_csv(out)
        measured, anew = (pd.MultiIndex.from_frame(t[['case', 'metric']]) for t in (old, table))
        old = old[stays(old) & ~measured.isin(anew)]
        if len(old): table = pd.concat([old, table], ignore_index=True)
    out.parent.mkdir(exist_ok=True)
    table.round(4).to_csv(out, index=False)
    return table
