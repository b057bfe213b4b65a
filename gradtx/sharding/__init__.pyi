from gradtx.sharding.mesh import on_mesh as on_mesh
from gradtx.sharding.placing import abstract_state as abstract_state
from gradtx.sharding.placing import init_sharded as init_sharded
from gradtx.sharding.placing import jit_update as jit_update
from gradtx.sharding.placing import state_shardings as state_shardings
from gradtx.sharding.zero import zero as zero
