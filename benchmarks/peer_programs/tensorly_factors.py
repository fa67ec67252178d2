"""tensorly's Tucker-2 or CP of kernels: tucker|cp KERNELS.npz RANKS.npz OUT.npz."""

import sys

import numpy as np
from tensorly.decomposition import parafac, partial_tucker

method, kernels, ranks, out = sys.argv[1:]
asked, made = np.load(ranks), {}
for name, kernel in np.load(kernels).items():
    kh, kw, C, N = kernel.shape
    kernel, rank = kernel.astype(np.float64), [int(one) for one in asked[name]]
    if method == "tucker":
        (core, (inputs, outputs)), _ = partial_tucker(kernel, rank=rank, modes=[2, 3])
        factors = [inputs[None, None], core, outputs.T[None, None]]
    else:
        flat = kernel.reshape(kh * kw, C, N)
        size, (taps, first, last) = parafac(
            flat, rank=rank[0], init="svd", random_state=0, tol=1e-6
        )
        middle = (taps * size).reshape(kh, kw, -1, 1)
        factors = [first[None, None], middle, last.T[None, None]]
    made |= {f"{name}.{place}": factor for place, factor in enumerate(factors)}
np.savez(out, **made)
