//! Differential tests of tconvc against tract; see `tests/`.
