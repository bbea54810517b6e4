//! Part of tconvc.
