"""Settings: closed, typed, immutable; one file per family of stages, so that a change of one concerns no other."""
