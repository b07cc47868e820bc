"""Making dictionaries from a diffusers Flux: sampling, capture of activations, SAE training."""
