"""Palimpsest: how much of a teacher's private text a distilled student still gives away."""

import warnings

# Libraries below ask tqdm for a notebook's widgets; without ipywidgets it warns on the page and draws its plain bar.
warnings.filterwarnings("ignore", message="IProgress not found")
