"""Names for the types that many modules share."""

from typing import Any

import numpy as np
import numpy.typing as npt

JSON = dict[str, Any]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Texts = npt.NDArray[np.str_]
