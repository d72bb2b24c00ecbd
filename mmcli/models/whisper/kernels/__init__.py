"""Fused kernels (Triton) for what this family's decode step has beside the shared ones; see `mmcli.layers.kernels`."""
