"""Learn what users find relevant from clicks that are biased by how items were shown.

The names in `__init__.pyi` beside this file are stable; everything else in the package
may change. A name is loaded when it is first used, so `import debias` loads no
TensorFlow.
"""

import lazy_loader

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
