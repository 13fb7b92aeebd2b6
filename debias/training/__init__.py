"""Fitting, selection and evaluation of click models.

Names are imported on first use, because their modules load TensorFlow.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
