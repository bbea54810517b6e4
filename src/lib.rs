//! A compiler for neural networks that up-sample.
