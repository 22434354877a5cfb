"""Matrix products that are generated: six variants of one blocked product, any tile, several CPUs.

`variants` says what differs between the six; `tir` and `schedules` express it in TensorIR, which TVM
compiles; `routines` calls and exports the result; `foreign` runs it on emulated CPUs. Needs
`pip install 'ouikit[tvm]'`; TVM is imported when the first product is generated. Source: Algorithm 1039
(ACM TOMS 50(1), arXiv 2310.20347).
"""

from ouikit.products.generators.routines import KINDS, Product, Routine, generate
from ouikit.products.generators.variants import VARIANTS

__all__ = ["KINDS", "VARIANTS", "Product", "Routine", "generate"]
