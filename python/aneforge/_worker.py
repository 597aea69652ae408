"""`python -m aneforge._worker`: programs on the engine for the process that has started this one."""

from __future__ import annotations

from aneforge import _native

if __name__ == "__main__":
    _native.worker()
