"""Networks and baselines, one file each; `gyri.catalogue` finds them."""
