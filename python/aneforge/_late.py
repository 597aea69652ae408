"""NumPy, which is imported when something of it is first used: it takes several times as long as this package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
else:

    class _Late:
        """The module, whose parts stay here once they were asked for."""

        def __getattr__(self, name: str) -> Any:
            import numpy

            part = getattr(numpy, name)
            setattr(self, name, part)
            return part

    np = _Late()

__all__ = ["np"]
