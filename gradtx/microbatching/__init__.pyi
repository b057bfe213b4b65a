from gradtx.microbatching.accumulators import AccumulationType as AccumulationType
from gradtx.microbatching.accumulators import Accumulator as Accumulator
from gradtx.microbatching.examples import IndividualOutputs as IndividualOutputs
from gradtx.microbatching.examples import micro_grad as micro_grad
from gradtx.microbatching.examples import micro_vmap as micro_vmap
from gradtx.microbatching.parts import microbatch as microbatch
from gradtx.microbatching.parts import reshape_batch_axis as reshape_batch_axis
