"""Collections beside fastai: DataLoaders from many rows (`manifests.py`), then the check of files (`integrity.py`).

    python benchmarks/collections.py                    # on drawn photos
    python benchmarks/collections.py --images images    # and a folder of sound photos

Each part can also be run alone. This file lends its name to no module: a script's folder comes first on Python's
path, and `import collections` has to find the standard library's.
"""
import sys

if __name__ == 'collections':
    del sys.modules[__name__]
    folder = sys.path.pop(0)
    import collections  # noqa: F401  the standard library's, which now takes this module's place
    sys.path.insert(0, folder)
elif __name__ == '__main__':
    import subprocess
    from pathlib import Path
    here = Path(__file__).parent
    for script, arguments in (('manifests.py', []), ('integrity.py', sys.argv[1:])):
        if done := subprocess.run([sys.executable, here/script, *arguments]).returncode: sys.exit(done)
