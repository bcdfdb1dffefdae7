"What the benchmarks share: how a table is made, printed and kept"
import platform
import subprocess
from pathlib import Path

import pandas as pd
import torch


def save_table(
    rows:list[tuple], # (case, metric, ours, peer, unit)
    name:str, # Of the file in benchmarks/results, without suffix
)->pd.DataFrame: # Columns case, metric, ours, peer, ratio, unit, machine, commit
    "Write a benchmark's table and print it"
    table = pd.DataFrame(rows, columns=['case', 'metric', 'ours', 'peer', 'unit'])
    table.insert(4, 'ratio', table.ours/table.peer)
    table['machine'] = f'{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}'
    command = ['git', 'rev-parse', '--short', 'HEAD']
    commit = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    table['commit'] = commit.stdout.strip()
    table.round(4).to_csv(Path(__file__).parent/'results'/f'{name}.csv', index=False)
    print(table[['case', 'metric', 'ours', 'peer', 'ratio', 'unit']].round(3).to_string(index=False))
    return table
