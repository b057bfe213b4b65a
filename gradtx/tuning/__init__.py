"""Searching hyperparameters: spaces made of transformations, populations trained in one program, and what steers them.

A layer above all others: it may import everything in `gradtx`, and nothing there imports it. Optuna is the caller's.
"""

from gradtx.tuning.bayesian import ask as ask
from gradtx.tuning.bayesian import tell as tell
from gradtx.tuning.halving import Rung as Rung
from gradtx.tuning.halving import rungs as rungs
from gradtx.tuning.halving import select as select
from gradtx.tuning.halving import successive_halving as successive_halving
from gradtx.tuning.pbt import Population as Population
from gradtx.tuning.pbt import evolve as evolve
from gradtx.tuning.pbt import exploit as exploit
from gradtx.tuning.pbt import explore as explore
from gradtx.tuning.population import best as best
from gradtx.tuning.population import rank as rank
from gradtx.tuning.population import run_population as run_population
from gradtx.tuning.search import grid as grid
from gradtx.tuning.search import member as member
from gradtx.tuning.search import random as random
from gradtx.tuning.search import size as size
from gradtx.tuning.search import stack as stack
from gradtx.tuning.space import Distribution as Distribution
from gradtx.tuning.space import choice as choice
from gradtx.tuning.space import log_uniform as log_uniform
from gradtx.tuning.space import uniform as uniform
