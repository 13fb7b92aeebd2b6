"""Unbiased learning to rank and retrieval from click logs.

The names in `__init__.pyi` are the stable interface; all other names may change. Names
are imported on first use, so `import debias` does not load TensorFlow.
"""

import lazy_loader

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
