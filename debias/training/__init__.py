"""Fitting, choosing and evaluating click models: for users, commands and tables.

Names are loaded when they are first used, for the modules behind them load TensorFlow.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
