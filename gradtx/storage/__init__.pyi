from gradtx.storage.codec import Codec as Codec
from gradtx.storage.codec import Stored as Stored
from gradtx.storage.correction import corrected as corrected
from gradtx.storage.dynamic import int8 as int8
from gradtx.storage.floating import float8 as float8
from gradtx.storage.plain import bfloat16 as bfloat16
