"""Click simulation with known truth: queries, policies, populations, click logs.

>>> import simulators
>>> data = simulators.generate(queries=20, seed=1)
>>> policy = simulators.PlackettLuce(simulators.weak_ranker(data), temperature=0.5)
>>> log = simulators.simulate(data, policy, "mixed", sessions=1000, seed=2)
>>> log.sessions, log.list_size
(1000, 10)

Names are imported on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
