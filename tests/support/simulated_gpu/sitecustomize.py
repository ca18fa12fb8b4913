"""Gives a worker a simulated GPU, as SIMULATED_GPU describes; see tests/support/simulated.py.

Python imports this module by its name at the start of every process whose PYTHONPATH has this
folder. Only tests and benchmarks put it there.
"""

import importlib.abc
import importlib.util
import os
import sys

# What to call once a module is imported: module -> module and function.
AFTER = {
    "ctranslate2": ("tests.support.simulated", "install"),
    "app.engine.hardware": ("tests.support.simulated", "show"),
    "app.engine.model": ("tests.measure.stages", "install"),
}


class AfterImport(importlib.abc.MetaPathFinder):
    """Calls a function once a module is imported, before its importer goes on."""

    def __init__(self) -> None:
        self._after = dict(AFTER)

    def find_spec(self, name, path=None, target=None):
        if name not in self._after:
            return None
        module, function = self._after.pop(name)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def executed(imported):
            execute(imported)
            getattr(importlib.import_module(module), function)()

        spec.loader.exec_module = executed
        return spec


if "SIMULATED_GPU" in os.environ:
    sys.meta_path.insert(0, AfterImport())
