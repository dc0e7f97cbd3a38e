"""Palimpsest: how much of a teacher's private text a distilled student still gives away."""

import os
import warnings

# Libraries below ask tqdm for a notebook's widgets; without ipywidgets it warns on the page and draws its plain bar.
warnings.filterwarnings("ignore", message="IProgress not found")

# In bf16 on a CPU, PyTorch and oneDNN each keep what they compiled for the last thousand shapes of a product. Every batch of text has
# shapes of its own, so memory grew by 80 MB a step of a 100 M model. A step has fewer than so many; read once, at the first product.
for _cache in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
    os.environ.setdefault(_cache, "128")
