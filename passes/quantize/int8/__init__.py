"""8-bit weights and activations: where, on which grids, and how the graph says so."""
