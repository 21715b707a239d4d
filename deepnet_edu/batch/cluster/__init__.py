"""A batch on many machines: a Dask scheduler, workers, and a notebook on one of them."""
