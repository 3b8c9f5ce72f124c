"""The checks of `conceptlab gpu-check`, room by room; `experiments.gpu_check` runs them."""
