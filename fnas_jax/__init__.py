"""Fast neural architecture search in JAX."""

import os

# Before anything loads LAPACK: on small matrices the threads of OpenBLAS mostly wait for each
# other (twenty times slower on two busy cores), and may wait for ever beside those of XLA.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.1.0"
