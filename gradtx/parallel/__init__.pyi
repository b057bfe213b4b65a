from gradtx.parallel.norms import all_finite as all_finite
from gradtx.parallel.norms import global_norm as global_norm
from gradtx.parallel.replicas import replica_specs as replica_specs
from gradtx.parallel.replicas import stacked as stacked
from gradtx.parallel.replicas import unstacked as unstacked
from gradtx.parallel.replicas import varying as varying
from gradtx.parallel.sums import pmean as pmean
from gradtx.parallel.sums import psum as psum
