"""Palimpsest: how much of a teacher's private text a distilled student still gives away."""
