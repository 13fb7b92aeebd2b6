"""Fitting, selection and evaluation of click models.

A name is loaded when it is first used, because its module loads TensorFlow.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
